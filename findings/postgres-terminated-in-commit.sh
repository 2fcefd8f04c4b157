#!/usr/bin/env bash
# A session of PostgreSQL that is terminated in the middle of COMMIT: whether the transaction is done depends on how far COMMIT
# has come, and the client sees an end of the connection either way. While COMMIT runs deferred triggers it is undone. While
# COMMIT waits for a synchronous standby it is done, and there after a restart too, although it was never acknowledged.
# Needs PostgreSQL's server programs (Debian: postgresql), in the path or under /usr/lib/postgresql.
set -euo pipefail
bin=$(dirname "$(readlink -f "$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)")")
folder=$(mktemp -d)
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$folder" "$@"; else "$@"; fi; }
[ "$(id -u)" != 0 ] || chown 65534:65534 "$folder"
stop() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; }
trap 'stop; rm -rf "$folder"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as "$bin/initdb" --no-sync --auth=trust --username=owner -D "$folder/data" >/dev/null
start() {
    as "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
        -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=" start >/dev/null
}
sql() { "$bin/psql" -X -q -At "host=127.0.0.1 port=$port user=owner dbname=postgres" "$@"; }
start
sql -c 'SELECT version()' | cut -d, -f1

# Runs an insert whose COMMIT waits at $2, as pg_stat_activity names it, and terminates it there.
terminated() {
    sql -v ON_ERROR_STOP=1 >"$folder/client" 2>&1 -c "SET application_name = 'client'" -c BEGIN -c "$1" -c COMMIT &
    local client=$! at=
    for _ in $(seq 300); do
        at=$(sql -c "SELECT pid FROM pg_stat_activity WHERE application_name = 'client' AND wait_event = '$2' AND query = 'COMMIT'")
        [ -z "$at" ] || break
        sleep 0.1
    done
    [ -n "$at" ] || { echo "COMMIT does not wait at $2"; exit 1; }
    sql -c "SELECT pg_terminate_backend($at)" >/dev/null
    local status=0
    wait "$client" || status=$?
    [ "$status" != 0 ] || echo 'the client was answered'
}

sql -c 'CREATE TABLE t (n int)' -c "CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'" \
    -c 'CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION waits()'
terminated 'INSERT INTO t VALUES (1)' PgSleep
triggers=$(sql -c 'SELECT count(*) FROM t WHERE n = 1')
echo "terminated while COMMIT runs deferred triggers: $triggers rows; the client saw: $(tail -n 1 "$folder/client")"

sql -c 'DROP TRIGGER waits ON t' -c "ALTER SYSTEM SET synchronous_standby_names = 'nobody'" -c 'SELECT pg_reload_conf()' >/dev/null
terminated 'INSERT INTO t VALUES (2)' SyncRep
standby=$(sql -c 'SELECT count(*) FROM t WHERE n = 2')
echo "terminated while COMMIT waits for a standby:     $standby rows; the client saw: $(tail -n 1 "$folder/client")"
stop
start
again=$(sql -c 'SELECT count(*) FROM t WHERE n = 2')
echo "the same after a crash and a restart:            $again rows"
[ "$triggers $standby $again" = '0 1 1' ]
# Seen on 2026-11-29, Debian 12:
# PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu
# terminated while COMMIT runs deferred triggers: 0 rows; the client saw: connection to server was lost
# terminated while COMMIT waits for a standby:     1 rows; the client saw: connection to server was lost
# the same after a crash and a restart:            1 rows
