// Rooms on a fake browser, frames as a server sends them, and what must hold.

import { connect, joinRoom, PresenceError } from '../presence.js';
import { fakeBrowser } from './fakes.js';

export function dial(options = {}, world = {}) {
  const browser = fakeBrowser(world);
  const room = joinRoom({ room: 'lobby', user: 'ann' }, { ...options, env: browser.env });
  return { room, browser, socket: browser.socket, clock: browser.clock, told: listen(room) };
}

export function live(users, options, world) {
  const dialled = dial(options, world);
  dialled.socket.open();
  dialled.socket.says(state(1, users));
  dialled.told.length = 0;
  return dialled;
}

/** A connection whose socket is open. `of(room, frame)` makes a frame one of that room. */
export function connected(target = '/ws', options = {}, world = {}) {
  const browser = fakeBrowser(world);
  const connection = connect(target, { ...options, env: browser.env });
  browser.socket.open();
  return { connection, browser, socket: browser.socket, clock: browser.clock };
}

export const of = (room, frame) => ({ ...frame, room });

/** Lets what was put off until the page has had its chance to listen happen. */
export const turnOver = () => new Promise((resolve) => { queueMicrotask(resolve); });

export function state(version, users, { anonymous = 0 } = {}) {
  const members = Object.entries(users)
    .map(([user, ids]) => ({ user, presences: ids.map((id) => ({ id, meta: {} })) }));
  const me = users.ann?.at(-1) ?? 'me';
  return { type: 'presence.state', room: 'lobby', epoch: 'e', version, members, anonymous, me };
}

export function diff(from, { joins = [], leaves = [], updates = [], anonymous = 0 }) {
  const entries = (list) => list.map(([user, id, meta = {}]) => ({ user, id, meta }));
  return {
    type: 'presence.diff', room: 'lobby', epoch: 'e', from, version: from + 1, anonymous,
    joins: entries(joins), leaves: entries(leaves), updates: entries(updates),
  };
}

/** Everything a room tells, as short lines. */
export function listen(room) {
  const told = [];
  const ids = ({ presences }) => [...presences.keys()].join();
  room.on('sync', ({ members }) => told.push(`sync ${[...members.keys()].join(' ')}`));
  room.on('join', ({ user }) => told.push(`join ${user}`));
  room.on('leave', ({ user }) => told.push(`leave ${user}`));
  room.on('update', (now, old) => told.push(`update ${now.user} ${ids(old)} -> ${ids(now)}`));
  room.on('count', ({ users, anonymous }) => told.push(`count ${users}+${anonymous}`));
  room.on('status', ({ state: now, why, code }) => told.push(['status', now, why, code].filter(Boolean).join(' ')));
  return told;
}

export const tokenOf = ({ url }) => new URL(url).searchParams.get('session');

export const metaOf = (text) => JSON.parse(text).meta.n;

export function equal(actual, expected) {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== b) throw new Error(`expected ${b}\n     got ${a}`);
}

/** `code` undefined: any error that is not a PresenceError. */
export function throws(code, call) {
  let error = null;
  try { call(); } catch (thrown) { error = thrown; }
  if (!error) throw new Error(`expected ${code}, got no error`);
  equal(error instanceof PresenceError ? error.code : undefined, code);
}
