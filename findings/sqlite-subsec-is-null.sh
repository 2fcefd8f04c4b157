#!/usr/bin/env bash
# SQLite before 3.42 has no modifier 'subsec', and `unixepoch('subsec')` is then NULL, without an error: an unknown word in the
# place of the first argument is a time value that is not understood, and every time function of such a value is NULL. A column
# of times that is filled so, or a comparison with it, is silently empty. From 3.42 on it is the time with a fraction.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 3.40.1.0 3.42.0.0; do
    python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --target "$folder/$version" "apsw==$version"
done
run() {
    PYTHONPATH="$folder/$1" python3 - "$2" <<'PY'
import sys
import apsw
answer = apsw.Connection(":memory:").execute(
    "SELECT unixepoch('subsec'), typeof(unixepoch('subsec')), typeof(unixepoch()), unixepoch('subsec') > 0").fetchall()
value, kind, plain, later = answer[0]
print(f"SQLite {apsw.sqlitelibversion()}: unixepoch('subsec') is of type {kind}, unixepoch() is {plain}, "
      f"unixepoch('subsec') > 0 is {later}")
sys.exit(kind != sys.argv[1])
PY
}
run 3.40.1.0 null
run 3.42.0.0 real
# Seen on 2026-11-29, Python 3.11, Linux x86-64:
# SQLite 3.40.1: unixepoch('subsec') is of type null, unixepoch() is integer, unixepoch('subsec') > 0 is None
# SQLite 3.42.0: unixepoch('subsec') is of type real, unixepoch() is integer, unixepoch('subsec') > 0 is 1
