#!/usr/bin/env bash
# Python's websocket-client 1.9.2: when the server closes, whatever the code, `recv()` returns '' without an error, exactly as
# for an empty text message, and leaves the application without the code. Needs: Python 3 with venv. Loopback only. Fails if that changes.
set -euo pipefail
folder="$(mktemp -d)"; trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/site" websocket-client==1.9.2
cat >"$folder/trial.py" <<'PY'
import base64, hashlib, socket, struct, sys, threading
import websocket
print("python", sys.version.split()[0], "websocket-client", websocket.__version__)
def serve(frame):
    listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
    def one():
        s, _ = listener.accept(); b = b""
        while b"\r\n\r\n" not in b: b += s.recv(4096)
        key = [l.split(b":", 1)[1].strip() for l in b.split(b"\r\n") if l.lower().startswith(b"sec-websocket-key")][0]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n" + frame)
        s.settimeout(10)
        try:
            while s.recv(100): pass
        except OSError: pass
        s.close()
    threading.Thread(target=one, daemon=True).start()
    return "ws://127.0.0.1:%d/" % listener.getsockname()[1]
def received(frame):
    ws = websocket.create_connection(serve(frame), timeout=10)
    value = ws.recv(); ws.shutdown(); return value
empty = received(b"\x81\x00")
closed = {code: received(b"\x88\x07" + struct.pack(">H", code) + b"stale") for code in (1000, 1008, 4408)}
print("an empty text:", repr(empty), "| Close:", closed)
assert empty == "" and set(closed.values()) == {""}, "the behaviour has changed"
print("AS FOUND: a Close with 1000, 1008 or 4408 and an empty text are the same '' for the application")
PY
PYTHONPATH="$folder/site" timeout 60 python3 "$folder/trial.py"
