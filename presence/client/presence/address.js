// Where a room's socket is, by the names of the room and of the user.

import { PresenceError } from './error.js';
import { bytes } from './frames.js';

const MAX_NAME = 255;

export function address(target, page) {
  const url = new URL(typeof target === 'string' ? target : path(target), page);
  url.protocol = url.protocol.replace(/^http/, 'ws');
  url.hash = '';
  return url;
}

function path({ path = '/ws', room, user }) {
  checkName('room', room);
  if (room === '.' || room === '..') throw new PresenceError('bad_name', 'a URL cannot carry the rooms "." and ".."');
  if (user !== undefined && user !== null) checkName('user', user);
  return `${path}/${encodeURIComponent(room)}${user == null ? '' : `?user=${encodeURIComponent(user)}`}`;
}

function checkName(kind, name) {
  const good = typeof name === 'string' && name !== '' && bytes(name) <= MAX_NAME
    && !/[\u0000-\u001f\u007f-\u009f]/.test(name) && !/[\ud800-\udfff]/u.test(name);
  if (!good) throw new PresenceError('bad_name', `a ${kind} has 1 to ${MAX_NAME} bytes and no control characters`);
}
