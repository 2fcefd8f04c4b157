/**
 * Who is in a room, right now: the browser's half of `presence`. No dependencies, no build step.
 *
 *     import { joinRoom } from '/presence.js';
 *
 *     const room = joinRoom({ room: 'lobby', user: 'ann' });
 *     room.on('sync', () => render([...room.members.values()], room.anonymous));
 *     room.on('join', (member) => log(`${member.user} is here`));
 *     room.on('message', ({ from, text }) => log(`${from ?? 'someone'}: ${text}`));
 *     room.update({ status: 'busy' });
 *     room.send('hello');
 *
 * One connection for several rooms:
 *
 *     const connection = connect('/ws/team');
 *     const lobby = connection.room('lobby');
 *     const attic = connection.room('attic');
 *
 * What always holds: a roster is the server's at some version, never a guess. A hole in the versions, or a frame that
 * cannot be read, leads to a new connection and a whole new roster, of which only the net difference is reported.
 * Each tab has a secret token, by which it has its presence again after a reload, a lost network or a restart of the
 * server, and nobody else sees that it was away.
 *
 * @typedef {{user: string, presences: ReadonlyMap<string, object>}} Member  One user: presence id -> meta, one for each
 *   tab. A member is a value: when the user changes, `members` gets a new one and the old one stays as it was.
 * @typedef {{state: 'connecting'|'live'|'reconnecting'|'left'|'closed', why?: string, code?: number, reason?: string,
 *   attempt?: number, delay?: number}} Status  `delay` is the milliseconds until the next attempt, 0 while one runs;
 *   `why` is `lost`, `silent`, `refused`, `gap`, `malformed`, `timeout`, `too_large` or `restored` (from the browser's page cache).
 * @typedef {string | URL | {room: string, user?: string, path?: string}} Address  The socket's URL (relative ones are
 *   resolved against the page), or a room and a user; without a user the visitor is anonymous. `path` is `/ws`.
 * @typedef {Address | Address[] | ((attempt: number) => Address)} Target  Of a list each further try takes the next one,
 *   and the first again after the last. A function is called before each try.
 * @typedef {{maxAge?: number, grace?: number, minDelay?: number, maxDelay?: number, resume?: boolean, env?: object}}
 *   Options  Milliseconds.
 *   `maxAge` (60000) and `grace` (10000) are the server's settings. A heartbeat is sent every third of `maxAge`, at least
 *   every 20 s. The n-th try in a row waits between half and all of `minDelay` (500) times 2^n, at most a fifth of
 *   `grace` until three times `grace` have passed since the loss, and then at most `maxDelay` (30000). With `resume`
 *   (true) the parameter `session` is added to the URL, unless it has one. `env` replaces what the browser provides (see
 *   `browser`); tests use it.
 */

import { Connection } from './presence/connection.js';
import { PresenceError } from './presence/error.js';
import { Room } from './presence/room.js';

export { PresenceError };

/**
 * Connects, and stays connected until `close`, through any number of sockets. The server decides which rooms the socket
 * is in; `room(name)` of the connection is the object of one of them.
 *
 * @param {Target} target
 * @param {Options} [options]
 * @returns {Connection}
 * @throws {PresenceError} `bad_name`: the server would refuse that room or user before it could tell the page why.
 */
export function connect(target, options = {}) {
  return new Connection(target, options);
}

/**
 * Joins a room and stays in it until `leave` or `close`: a connection and its one room.
 *
 * @param {Target} target
 * @param {Options} [options]
 * @returns {Room}
 * @throws {PresenceError} `bad_name`, as `connect`.
 */
export function joinRoom(target, options = {}) {
  let room;
  new Connection(target, options, (link) => { room = new Room(link); });
  return room;
}
