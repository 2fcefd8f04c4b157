#!/usr/bin/env bash
# The npm package ws 8.23.0 as a client: a message over `maxPayload` makes it send Close 1009 on the wire, but its own `close`
# event says 1006 to the application, which so cannot see why. Needs: Node and npm. Loopback only. Fails if that changes.
set -euo pipefail
folder="$(mktemp -d)"; trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --prefix "$folder" ws@8.23.0 >/dev/null
cat >trial.cjs <<'JS'
const net = require('net'), crypto = require('crypto'), WebSocket = require('ws');
console.log('node', process.version, 'ws', require('ws/package.json').version);
const sent = Buffer.alloc(100, 'x');
const server = net.createServer((socket) => {
  let head = '', opened = false, wire = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (bytes) => {
    if (opened) { wire = Buffer.concat([wire, bytes]); return; }
    head += bytes.toString('latin1');
    if (!head.includes('\r\n\r\n')) return;
    opened = true;
    const key = /sec-websocket-key: (\S+)/i.exec(head)[1];
    const accept = crypto.createHash('sha1').update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    socket.write(Buffer.concat([Buffer.from([0x81, sent.length]), sent]));
  });
  socket.on('close', async () => {
    while (seen.code === undefined) await new Promise((next) => setTimeout(next, 20));
    const mask = wire.subarray(2, 6);
    const code = ((wire[6] ^ mask[0]) << 8) | (wire[7] ^ mask[1]);
    console.log('on the wire: opcode', wire[0] & 15, 'code', code, '| the application:', seen);
    server.close();
    if ((wire[0] & 15) !== 8 || code !== 1009 || seen.code !== 1006) { console.log('the behaviour has changed'); process.exit(1); }
    console.log('AS FOUND: 1009 on the wire, 1006 for the application');
  });
});
let seen = {};
server.listen(0, '127.0.0.1', () => {
  const client = new WebSocket(`ws://127.0.0.1:${server.address().port}/`, { maxPayload: 99 });
  client.on('error', (error) => { seen.error = error.code; });
  client.on('close', (code) => { seen.code = code; });
});
JS
timeout 60 node trial.cjs
