// Enters a room as a client that knows nothing of parts: `node enter.mjs ws|undici URL`, in a folder with both packages.
//
// Writes "entered" once its state is complete, reads on, when the user `last` has come writes who is here, as JSON, and stays. The
// library is used with its default settings.

import { createRequire } from 'node:module';

const [library, url] = process.argv.slice(2);
// Where it is run, and not where this file lies.
const { WebSocket } = createRequire(`${process.cwd()}/`)(library);

let users = new Map();
let version = null;
let isWhole = false;
let entered = false;
let told = false;
let left = 0;
let largest = 0;

function take(frame) {
  if (frame.type === 'presence.state') {
    users = new Map(frame.members.map(({ user, presences }) => [user, new Set(presences.map(({ id }) => id))]));
  } else if (frame.type === 'presence.diff') {
    if (frame.from !== version) throw new Error('a step is missing');
    for (const { user, id } of [...frame.joins, ...frame.updates]) {
      if (!users.has(user)) users.set(user, new Set());
      users.get(user).add(id);
    }
    for (const { user, id } of frame.leaves) {
      users.get(user).delete(id);
      left += 1;
      if (users.get(user).size === 0) users.delete(user);
    }
  } else {
    return;
  }
  version = frame.version;
  isWhole = !frame.more; // only to know when to write "entered"
}

const socket = new WebSocket(url);
socket.addEventListener('message', ({ data }) => {
  largest = Math.max(largest, Buffer.byteLength(data));
  take(JSON.parse(data));
  if (isWhole && !entered) {
    entered = true;
    console.log('entered');
  }
  if (isWhole && users.has('last') && !told) {
    told = true;
    const seen = Object.fromEntries([...users].map(([user, ids]) => [user, [...ids]]));
    console.log(JSON.stringify({ users: seen, left, largest }));
  }
});
socket.addEventListener('close', ({ code }) => { throw new Error(`the connection ended with ${code}`); });
