#!/usr/bin/env bash
# sqlx 0.9 with `statement-cache-capacity=0` still gives each prepared statement of PostgreSQL a name (sqlx_s_1, sqlx_s_2, ...),
# and counts them for each connection alone. So the option does not make it fit for a pooler that hands one session of the server
# to several clients by turns, as other drivers' "no cache" does: the second connection prepares a name that is there already.
# `persistent(false)` on a query is what makes the statement unnamed.
# Needs PostgreSQL's server programs (Debian: postgresql) and cargo.
set -euo pipefail
bin=$(dirname "$(readlink -f "$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)")")
folder=$(mktemp -d)
mkdir "$folder/server"
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$folder/server" "$@"; else "$@"; fi; }
chmod 755 "$folder"
[ "$(id -u)" != 0 ] || chown 65534:65534 "$folder/server"
trap 'as "$bin/pg_ctl" -D "$folder/server/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
mkdir -p "$folder/program/src"
cd "$folder/program"
cat >Cargo.toml <<'TOML'
[package]
name = "program"
version = "0.0.0"
edition = "2024"
[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["postgres", "runtime-tokio"] }
tokio = { version = "1", features = ["rt", "macros"] }
[profile.dev]
debug = false
TOML
cat >src/main.rs <<'RUST'
use sqlx::{Connection, PgConnection};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), sqlx::Error> {
    let url = std::env::args().nth(1).unwrap();
    for _ in 0..2 {
        let mut connection = PgConnection::connect(&url).await?;
        sqlx::query("SELECT 'as usual', $1::int4").bind(1).fetch_one(&mut connection).await?;
        sqlx::query("SELECT 'not persistent', $1::int4").bind(1).persistent(false).fetch_one(&mut connection).await?;
        connection.close().await?;
    }
    Ok(())
}
RUST
cargo build --quiet
grep -A1 '^name = "sqlx-postgres"' Cargo.lock | tr '\n' ' '; echo
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as "$bin/initdb" --no-sync --auth=trust --username=owner -D "$folder/server/data" >/dev/null
as "$bin/pg_ctl" -D "$folder/server/data" -w -l "$folder/server/log" \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c log_statement=all" start >/dev/null
"$bin/postgres" --version
"${CARGO_TARGET_DIR:-target}/debug/program" "postgres://owner@127.0.0.1:$port/postgres?statement-cache-capacity=0"
grep -o 'execute .*' "$folder/server/log"
[ "$(grep -c "execute sqlx_s_1: SELECT 'as usual'" "$folder/server/log")" = 2 ]
[ "$(grep -c "execute <unnamed>: SELECT 'not persistent'" "$folder/server/log")" = 2 ]
# Seen on 2026-11-29, Debian 12:
# name = "sqlx-postgres" version = "0.9.0"
# postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
# execute sqlx_s_1: SELECT 'as usual', $1::int4
# execute <unnamed>: SELECT 'not persistent', $1::int4
# execute sqlx_s_1: SELECT 'as usual', $1::int4
# execute <unnamed>: SELECT 'not persistent', $1::int4
