#!/usr/bin/env bash
# Caddy 2.6.2 as reverse proxy: at a reload of its configuration it sends the backend of each open WebSocket a Close (1001)
# WITHOUT a mask, though RFC 6455, 5.1 has every frame to a server masked. The client gets a well-formed one.
# Needs: Debian 12 (apt-get), Python 3. Loopback only; ends what it starts. Fails if the behaviour is another.
set -euo pipefail
folder="$(mktemp -d)"; pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq caddy=2.6.2-5 >/dev/null 2>&1
dpkg-deb -x caddy_*.deb root
caddy="$folder/root/usr/bin/caddy"
echo "caddy $("$caddy" version)"
cat >trial.py <<'PY'
import base64, hashlib, os, socket, subprocess, sys, threading, time
caddy, folder = sys.argv[1:]
def free():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); p = s.getsockname()[1]; s.close(); return p
def head(s):
    b = b""
    while b"\r\n\r\n" not in b: b += s.recv(4096)
    return b.partition(b"\r\n\r\n")
got = {}
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
ready = threading.Event()
def backend():
    s, _ = listener.accept()
    request, _, _ = head(s)
    key = [l.split(b":", 1)[1].strip() for l in request.split(b"\r\n") if l.lower().startswith(b"sec-websocket-key")][0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    ready.set(); s.settimeout(30); got["backend"] = s.recv(100)
thread = threading.Thread(target=backend); thread.start()
port = free()
open("Caddyfile", "w").write("{\n\tadmin unix/%s/admin\n}\nhttp://127.0.0.1:%d {\n\tbind 127.0.0.1\n\treverse_proxy 127.0.0.1:%d\n}\n" % (folder, port, listener.getsockname()[1]))
env = dict(os.environ, HOME=folder, XDG_DATA_HOME=folder + "/data", XDG_CONFIG_HOME=folder + "/config")
run = subprocess.Popen([caddy, "run", "--config", "Caddyfile", "--adapter", "caddyfile"], env=env, stderr=open("log", "w"))
try:
    for _ in range(600):
        try: c = socket.create_connection(("127.0.0.1", port)); break
        except OSError: time.sleep(.1)
    c.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % port)
    answer, _, _ = head(c); print("through caddy:", answer.split(b"\r\n")[0].decode()); ready.wait(10)
    subprocess.run([caddy, "reload", "--force", "--config", "Caddyfile", "--adapter", "caddyfile", "--address", "unix/%s/admin" % folder], env=env, check=True, stderr=subprocess.DEVNULL)
    thread.join(40); c.settimeout(30); got["client"] = c.recv(100)
finally:
    run.terminate(); run.wait()
for who, frame in got.items(): print("%s received %s" % (who, frame.hex(" ")))
assert got["backend"] == b"\x88\x02\x03\xe9", "the backend's Close is no longer unmasked: has the behaviour changed?"
assert got["client"] == b"\x88\x02\x03\xe9", got["client"]
print("AS FOUND: at a reload the backend gets Close 1001 without a mask (second byte 02; a masked one would be 82)")
PY
python3 trial.py "$caddy" "$folder"
