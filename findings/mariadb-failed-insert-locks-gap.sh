#!/usr/bin/env bash
# MariaDB at READ COMMITTED, which is known to lock no gaps: an INSERT that fails as a duplicate of a unique key keeps a lock on
# the gap before the row that it found, until its transaction ends. Another transaction cannot insert a smaller key there
# meanwhile (error 1205 after innodb_lock_wait_timeout), but may insert one after the row.
# Needs MariaDB's programs (Debian: mariadb-server-core mariadb-client-core).
set -euo pipefail
export PATH="$PATH:/usr/sbin:/usr/local/sbin"
folder=$(mktemp -d)
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$folder" "$@"; else "$@"; fi; }
[ "$(id -u)" != 0 ] || chown 65534:65534 "$folder"
server=
trap '[ -z "$server" ] || { kill "$server"; wait "$server" || true; } 2>/dev/null; rm -rf "$folder"' EXIT
as mariadb-install-db --no-defaults --skip-test-db --auth-root-authentication-method=normal --datadir="$folder/data" \
    --innodb-log-file-size=16M >/dev/null 2>&1
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as mariadbd --no-defaults --datadir="$folder/data" --tmpdir="$folder" --socket="$folder/socket" --port="$port" \
    --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-lock-wait-timeout=2 \
    --transaction-isolation=READ-COMMITTED >"$folder/log" 2>&1 &
server=$!
sql() { mariadb --no-defaults --user=root --socket="$folder/socket" --skip-column-names --batch "$@"; }
for _ in $(seq 300); do sql -e 'SELECT 1' >/dev/null 2>&1 && break; sleep 0.2; done
sql -e 'SELECT VERSION(), @@tx_isolation'
sql -e 'CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, name INT, UNIQUE (name)) ENGINE = InnoDB;
    INSERT INTO d.t VALUES (1, 10), (2, 20), (3, 30)'

# One session whose insert fails and which keeps its transaction open until it is let go.
mkfifo "$folder/statements"
sql --force --unbuffered d <"$folder/statements" >"$folder/first" 2>&1 &
first=$!
exec 3>"$folder/statements"
echo 'BEGIN; INSERT INTO t VALUES (4, 20); SELECT "failed, and goes on";' >&3
for _ in $(seq 100); do grep -q 'goes on' "$folder/first" && break; sleep 0.1; done
grep -E "ERROR|goes on" "$folder/first"

insert() {
    local answer
    answer=$(sql d -e "INSERT INTO t VALUES ($1, $2)" 2>&1) && answer=done || answer=$(grep ERROR <<<"$answer")
    echo "another inserts the key $2: $answer" >&2
    case $answer in done) echo done ;; *1205*) echo 1205 ;; *) echo other ;; esac
}
before=$(insert 5 15)
after=$(insert 6 25)
echo 'ROLLBACK;' >&3
exec 3>&-
wait "$first" || true
free=$(insert 7 15)
[ "$before $after $free" = '1205 done done' ]
# Seen on 2026-11-29, Debian 12:
# 10.11.19-MariaDB-0+deb12u1	READ-COMMITTED
# ERROR 1062 (23000) at line 1: Duplicate entry '20' for key 'name'
# failed, and goes on
# another inserts the key 15: ERROR 1205 (HY000) at line 1: Lock wait timeout exceeded; try restarting transaction
# another inserts the key 25: done
# another inserts the key 15: done
