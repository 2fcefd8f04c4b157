#!/usr/bin/env bash
# A WebSocket of actix-web keeps the memory into which the server read the headers of its handshake until the socket ends, though the request
# and its headers are dropped when the handshake is answered. The buffer is that in which later frames are read, and is replaced only once
# it is nearly full. So a client that comes with 60 kB of headers and then says little costs some 60 kB more than another, for as
# long as it stays. What bounds that is a limit on headers below actix-web's own, not letting go of the request.
# Needs cargo, a C compiler and Python.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/program/src"
cd "$folder/program"
cat >Cargo.toml <<'TOML'
[package]
name = "program"
version = "0.0.0"
edition = "2024"
[dependencies]
actix-web = { version = "=4.18.1", default-features = false, features = ["macros"] }
actix-http = "=3.20.0"
actix-ws = "=0.4.0"
futures-util = "0.3"
TOML
cat >src/main.rs <<'RUST'
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use futures_util::StreamExt;

async fn socket(request: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
    let (answer, mut session, mut messages) = actix_ws::handle(&request, body)?;
    drop(request);
    actix_web::rt::spawn(async move {
        while let Some(Ok(actix_ws::Message::Text(text))) = messages.next().await {
            if session.text(text).await.is_err() {
                break;
            }
        }
    });
    Ok(answer)
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let server = HttpServer::new(|| App::new().route("/", web::get().to(socket))).workers(1).bind("127.0.0.1:0")?;
    println!("{}", server.addrs()[0].port());
    server.run().await
}
RUST
cargo build --quiet --release
cat >clients.py <<'PY'
import os, re, socket, subprocess, sys, time

SOCKETS, TEXTS = 200, 20

def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) * 1024

def held(program, size):
    server = subprocess.Popen([program], stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        def opened():
            client = socket.create_connection(("127.0.0.1", port))
            extra = "".join(f"X-Filler-{n}: {'x' * 6000}\r\n" for n in range(size // 6000))
            client.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                           f"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n{extra}\r\n".encode())
            assert client.recv(4096).startswith(b"HTTP/1.1 101")
            for _ in range(TEXTS):
                client.sendall(b"\x81\x85\0\0\0\0hello")
                assert client.recv(100) == b"\x81\x05hello"
            return client
        clients = [opened() for _ in range(20)]
        time.sleep(1)
        before = resident(server.pid)
        clients += [opened() for _ in range(SOCKETS)]
        time.sleep(1)
        return (resident(server.pid) - before) // SOCKETS
    finally:
        server.kill()
        server.wait()

usual, large = (held(sys.argv[1], size) for size in (0, 60_000))
print(f"a socket with usual headers takes {usual:,} bytes, one with 60,000 bytes of headers {large:,}")
sys.exit(large - usual < 40_000)
PY
grep -A1 -E '^name = "(actix-web|actix-http|actix-ws)"' Cargo.lock | grep -v '^--' | paste - - 
python3 clients.py "${CARGO_TARGET_DIR:-target}/release/program"
# Seen on 2026-11-29, Debian 12:
# name = "actix-http"	version = "3.20.0"
# name = "actix-web"	version = "4.18.1"
# name = "actix-ws"	version = "0.4.0"
# a socket with usual headers takes 13,680 bytes, one with 60,000 bytes of headers 74,383
