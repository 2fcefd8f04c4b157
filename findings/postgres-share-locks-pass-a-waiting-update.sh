#!/usr/bin/env bash
# PostgreSQL: who asks for a lock on a table waits behind those who wait already, but FOR SHARE on a row is granted while an
# UPDATE of that row waits. So transactions that share-lock one row, and overlap, keep an UPDATE of it out for as long as they
# go on. Nor does lock_timeout end that: it counts anew for each transaction that is waited for, so the UPDATE waits several times as
# long without an error. MariaDB (InnoDB) lets the UPDATE have its turn: there the newcomer waits.
# Needs the programs of PostgreSQL and MariaDB (Debian: postgresql mariadb-server-core mariadb-client-core).
set -euo pipefail
export PATH="$PATH:/usr/sbin:/usr/local/sbin"
bin=$(dirname "$(readlink -f "$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)")")
folder=$(mktemp -d)
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$folder" "$@"; else "$@"; fi; }
[ "$(id -u)" != 0 ] || chown 65534:65534 "$folder"
mariadb=
stop() {
    as "$bin/pg_ctl" -D "$folder/postgres" -m immediate stop || true
    [ -z "$mariadb" ] || { kill "$mariadb"; wait "$mariadb" || true; }
}
trap 'stop >/dev/null 2>&1; rm -rf "$folder"' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

port=$(free_port)
as "$bin/initdb" --no-sync --auth=trust --username=owner -D "$folder/postgres" >/dev/null
as "$bin/pg_ctl" -D "$folder/postgres" -w -l "$folder/log" \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c lock_timeout=2s" start >/dev/null
postgres() { "$bin/psql" -X -q -At "host=127.0.0.1 port=$port user=owner dbname=postgres" "$@"; }
other=$(free_port)
as mariadb-install-db --no-defaults --skip-test-db --auth-root-authentication-method=normal --datadir="$folder/mariadb" \
    --innodb-log-file-size=16M >/dev/null 2>&1
as mariadbd --no-defaults --datadir="$folder/mariadb" --tmpdir="$folder" --socket="$folder/socket" --port="$other" \
    --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-lock-wait-timeout=2 \
    --transaction-isolation=READ-COMMITTED >"$folder/mariadb.log" 2>&1 &
mariadb=$!
mysql() { command mariadb --no-defaults --user=root --socket="$folder/socket" --skip-column-names --batch --force --unbuffered "$@"; }
for _ in $(seq 300); do mysql -e 'SELECT 1' >/dev/null 2>&1 && break; sleep 0.2; done
postgres -c 'SELECT version()' | cut -d, -f1
mysql -e 'SELECT version()'
mysql -e 'CREATE DATABASE d'
table='CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)'
postgres -c "$table"
mysql d -e "$table"

# A session of a database that stays open: it takes statements from a pipe. `say` waits until they are answered.
open() {
    local name=$1
    mkfifo "$folder/$name"
    case $2 in
        postgres) postgres >"$folder/$name.out" 2>&1 <"$folder/$name" & ;;
        mariadb) mysql d >"$folder/$name.out" 2>&1 <"$folder/$name" & ;;
    esac
    eval "exec {$name}>\"\$folder/$name\""
}
tell() { local name=$1; shift; echo "$*; SELECT 'answered';" >&"${!name}"; }
answers() { grep -c answered "$folder/$1.out" || true; }
answered() {
    local name=$1 wanted=$2
    for _ in $(seq 50); do [ "$(answers "$name")" -lt "$wanted" ] || return 0; sleep 0.1; done
    return 1
}
close() { local name=$1; eval "exec {$name}>&-"; }
failed() { grep -qE 'ERROR' "$folder/$1.out"; }

# Waits until a session waits for a lock.
waiting() {
    local count
    for _ in $(seq 50); do
        case $1 in
            postgres) count=$(postgres -c "SELECT count(*) FROM pg_locks WHERE NOT granted") ;;
            mariadb) count=$(mysql -e "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'") ;;
        esac
        [ "$count" = 0 ] || return 0
        sleep 0.1
    done
    return 1
}

# One session holds a shared lock, a second wants the exclusive one, a third asks for a shared one: is it granted?
# $1 database, $2 name, $3 shared lock, $4 exclusive lock
third_is() {
    local one=$2one two=$2two three=$2three result
    open "$one" "$1"; open "$two" "$1"; open "$three" "$1"
    tell "$one" "BEGIN; $3"
    answered "$one" 1
    # It shall wait longer than the third session does.
    case $1 in
        postgres) tell "$two" "SET lock_timeout = 0; BEGIN; $4" ;;
        mariadb) tell "$two" "SET innodb_lock_wait_timeout = 60; BEGIN; $4" ;;
    esac
    waiting "$1"
    tell "$three" "BEGIN; $3"
    answered "$three" 1
    result=granted
    ! failed "$three" || result=refused
    tell "$one" COMMIT; tell "$two" COMMIT; tell "$three" COMMIT
    close "$one"; close "$two"; close "$three"
    echo "$result"
}

row=$(third_is postgres a 'SELECT n FROM t WHERE id = 1 FOR SHARE' 'UPDATE t SET n = n + 1 WHERE id = 1')
echo "PostgreSQL, a row:   a shared lock while an UPDATE waits: $row"
whole=$(third_is postgres b 'LOCK TABLE t IN SHARE MODE' 'LOCK TABLE t IN EXCLUSIVE MODE')
echo "PostgreSQL, a table: a shared lock while an exclusive one waits: $whole"
inno=$(third_is mariadb c 'SELECT n FROM t WHERE id = 1 LOCK IN SHARE MODE' 'UPDATE t SET n = n + 1 WHERE id = 1')
echo "MariaDB, a row:      a shared lock while an UPDATE waits: $inno"

# Two sessions that take turns, so that one of them always has the row, and none has it for as long as lock_timeout.
open even postgres; open odd postgres; open writer postgres
lock='BEGIN; SELECT n FROM t WHERE id = 1 FOR SHARE'
tell even "SET lock_timeout = 0; $lock"
answered even 1
begun=$(date +%s%N)
tell writer "SET lock_timeout = '1s'; UPDATE t SET n = 100 WHERE id = 1"
waiting postgres
elapsed() { echo $((($(date +%s%N) - begun) / 1000000)); }
turns=0 n=0
while [ "$n" -lt 20 ] || [ "$(elapsed)" -lt 4000 ]; do
    n=$((n + 1))
    tell odd "$lock"; answered odd $((2 * n - 1))
    tell even COMMIT; answered even $((2 * n))
    tell even "$lock"; answered even $((2 * n + 1))
    tell odd COMMIT; answered odd $((2 * n))
    [ "$(answers writer)" = 0 ] && turns=$((turns + 1))
done
waited=$(elapsed)
tell even COMMIT
answered writer 1
error=none
! failed writer || error='lock timeout'
echo "PostgreSQL, a row:   turns of two overlapping sessions during which the UPDATE waited: $([ "$turns" = "$n" ] && echo all || echo "$turns of $n")"
echo "PostgreSQL, a row:   and when nobody took another lock it was done: n = $(postgres -c 'SELECT n FROM t')"
echo "PostgreSQL, a row:   with a lock_timeout of 1 s it waited for 4 s: $([ "$waited" -ge 4000 ] && echo yes || echo no); error: $error"
close even; close odd; close writer
[ "$row $whole $inno $error" = 'granted refused refused none' ] && [ "$turns" = "$n" ] && [ "$waited" -ge 4000 ]
# Seen on 2026-12-01, Debian 12:
# PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu
# 10.11.19-MariaDB-0+deb12u1
# PostgreSQL, a row:   a shared lock while an UPDATE waits: granted
# PostgreSQL, a table: a shared lock while an exclusive one waits: refused
# MariaDB, a row:      a shared lock while an UPDATE waits: refused
# PostgreSQL, a row:   turns of two overlapping sessions during which the UPDATE waited: all
# PostgreSQL, a row:   and when nobody took another lock it was done: n = 100
# PostgreSQL, a row:   with a lock_timeout of 1 s it waited for 4 s: yes; error: none
