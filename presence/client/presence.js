/**
 * Who is in a room, right now: the browser's half of `presence`. No dependencies, no build step.
 *
 *     import { joinRoom } from '/presence.js';
 *
 *     const room = joinRoom({ room: 'lobby', user: 'ann' });
 *     room.on('sync', () => render([...room.members.values()], room.anonymous));
 *     room.on('join', (member) => say(`${member.user} is here`));
 *     room.on('message', ({ from, text }) => say(`${from ?? 'someone'}: ${text}`));
 *     room.update({ status: 'busy' });
 *     room.send('hello');
 *
 * What always holds: the roster is the server's at some version, never a guess. A hole in the versions, or a frame
 * that cannot be read, leads to a new connection and a whole new roster, of which only the net difference is told.
 * Each tab has a secret token, by which it has its presence again after a reload, a lost network or a restart of the
 * server, and nobody else is told that it was away.
 *
 * @typedef {{user: string, presences: Map<string, object>}} Member  One user: presence id -> meta, one for each tab.
 *   A member is a value: when the user changes, `members` gets a new one and the old one stays as it was.
 * @typedef {{state: 'connecting'|'live'|'reconnecting'|'left'|'closed', why?: string, code?: number, reason?: string,
 *   attempt?: number, delay?: number}} Status  `delay` is the milliseconds until the next attempt, 0 while one runs;
 *   `why` is `lost`, `gap`, `malformed`, `timeout` or `restored` (from the browser's page cache).
 * @typedef {{maxAge?: number, minDelay?: number, maxDelay?: number, resume?: boolean, env?: object}} Options
 *   Milliseconds.
 *   `maxAge` is the server's setting (60000); a heartbeat is sent every third of it. The n-th attempt in a row to
 *   reconnect waits a random part of `minDelay` (500) times 2^n, at most `maxDelay` (30000). With `resume` (true) the
 *   parameter `session` is added to the URL, unless it has one. `env` replaces what the browser provides (see
 *   `browser`); tests use it.
 */

import { address } from './presence/address.js';
import { browser } from './presence/browser.js';
import { PresenceError } from './presence/error.js';
import { HEARTBEAT, bytes, isDiff, isMessage, isObject, isReserved, isState, parse } from './presence/frames.js';
import { every } from './presence/heart.js';
import { Roster } from './presence/roster.js';
import { Token } from './presence/token.js';

export { PresenceError };

const MAX_TEXT = 64 * 1024;
const MAX_META = 4096;
/** Close codes after which coming back by itself would be wrong: done, refused by a limit. */
const FINAL = new Set([1000, 1008]);
const RESTARTING = 1012;
/** Another tab came with our token: the copy of this one, since a browser copies what a tab remembers. */
const TAKEN_OVER = 4409;
/** The pages of a restarting server come back spread over this time, well within its grace. */
const RESTART_SPREAD = 2000;
/** A connection without its first frame after this time is given up; more than the server's handshake time-out. */
const PATIENCE = 15000;
/** A connection that lived this long counts as a success, so that one which dies at once is not retried hotly. */
const SETTLED = 10000;
const MAX_TIMER = 2 ** 31 - 1;

/**
 * Joins a room and stays in it until `leave` or `close`, through any number of connections.
 *
 * @param {string | {room: string, user?: string, path?: string}} target  The socket's URL (relative ones are resolved
 *   against the page), or a room and a user; without a user the visitor is anonymous. `path` is `/ws`.
 * @param {Options} [options]
 * @returns {Room}
 * @throws {PresenceError} `bad_name`: the server would refuse that room or user before it could tell the page why.
 */
export function joinRoom(target, options = {}) {
  return new Room(target, options);
}

/** A room as one page sees it. Made by `joinRoom`. */
class Room {
  #url;
  #token = null;
  /** Sockets that are no good any more, and kept open only so that nobody is told of a leave before we are back. */
  #aside = [];
  #options;
  #env;
  #roster = new Roster();
  #listeners = new Map();
  #status = { state: 'connecting' };
  #socket = null;
  #stopHeart = null;
  #alarm = null;
  #page = null;
  #early = [];
  #meta = null;
  #failures = 0;
  #liveSince = null;

  constructor(target, options) {
    this.#options = { maxAge: 60000, minDelay: 500, maxDelay: 30000, ...options };
    if (!(this.#options.maxAge > 0)) throw new RangeError('maxAge is a number of milliseconds above 0');
    this.#env = { ...browser(), ...options.env };
    this.#url = address(target, this.#env.location);
    const own = (this.#options.resume ?? true) && !this.#url.searchParams.has('session');
    if (own) this.#token = new Token(this.#url.href, this.#env);
    this.#dial({ state: 'connecting' });
  }

  /** Everyone with a name: user -> member. @returns {ReadonlyMap<string, Member>} */
  get members() { return this.#roster.members; }
  /** How many sockets without a name are here, this one included. */
  get anonymous() { return this.#roster.anonymous; }
  /** The id of this page's own presence; null outside the room. */
  get me() { return this.#roster.me; }
  /** The members that this page does not belong to. @returns {Member[]} */
  get others() { return [...this.members.values()].filter((member) => !member.presences.has(this.me)); }
  /** @returns {Status} */
  get status() { return this.#status; }
  /** One user's member, if here. @returns {Member | undefined} */
  get(user) { return this.members.get(user); }

  /**
   * Calls `listener` on each event of a kind until the returned function is called.
   *
   * - `sync` (room): the roster is up to date again; after every frame that changed it. Enough to draw from.
   * - `join` (member): a user's first presence. Those found on entering are told by `sync` alone.
   * - `leave` (member): a user's last presence went; the member as it was.
   * - `update` (member, previous): someone who stays has another meta, a tab more or a tab less.
   * - `count` ({users, anonymous}): one of the two numbers changed.
   * - `message` ({from, text}): someone spoke; `from` is null for an anonymous visitor.
   * - `status` (status): see `Status`.  - `error` (PresenceError): the server's complaint, or a frame not understood.
   *
   * Of one frame joins are told first, then updates, leaves, the count and `sync`.
   */
  on(event, listener) {
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    const entry = { listener };
    this.#listeners.get(event).add(entry);
    return () => this.#listeners.get(event).delete(entry);
  }

  /**
   * Says a text to everyone in the room.
   *
   * A text that the server would take for a heartbeat or a command is refused, not changed: a program that sends JSON
   * must not find other bytes at the far end, and a person can be asked to put a word before it.
   *
   * @throws {PresenceError} `reserved_text`; `too_large` (over 64 KiB of UTF-8); `not_live`: nothing was sent.
   */
  send(text) {
    if (typeof text !== 'string') throw new TypeError('a text is a string');
    if (isReserved(text)) throw new PresenceError('reserved_text', 'the server would take this text for a command');
    if (bytes(text) > MAX_TEXT) throw new PresenceError('too_large', `a text has at most ${MAX_TEXT} bytes`);
    if (this.#status.state !== 'live' || !this.#isOpen()) throw new PresenceError('not_live', 'not in the room now');
    this.#socket.send(text);
  }

  /**
   * Replaces this presence's meta: now, or as soon as the room is live, and again after each reconnect.
   *
   * @throws {PresenceError} `bad_meta`: not an object that JSON can hold; `too_large`: over 4,096 bytes as sent.
   */
  update(meta) {
    const text = isObject(meta) ? JSON.stringify(meta) : undefined;
    if (!text?.startsWith('{')) throw new PresenceError('bad_meta', 'a meta is an object that JSON can hold');
    if (bytes(text) > MAX_META) throw new PresenceError('too_large', `a meta has at most ${MAX_META} bytes`);
    this.#meta = text;
    this.#sendMeta();
  }

  /** Leaves the room and empties the roster, until `join`. A socket lost meanwhile is not opened again. */
  leave() {
    if (['left', 'closed'].includes(this.#status.state)) return;
    if (this.#isOpen()) this.#socket.send('{"type":"leave"}');
    else this.#drop('left');
    this.#rest({ state: 'left' });
  }

  /** Comes back after `leave`, `close` or a final close code; tries at once if a reconnect is waiting. */
  join() {
    if (this.#status.state === 'reconnecting') return this.#wake();
    if (!['left', 'closed'].includes(this.#status.state)) return;
    this.#failures = 0;
    if (!this.#isOpen()) return this.#dial({ state: 'connecting' });
    this.#socket.send('{"type":"join"}');
    this.#await({ state: 'connecting' });
  }

  /** Leaves for good: closes the socket and lets go of the page's events. */
  close() {
    if (this.#status.state === 'closed') return;
    this.#rest({ state: 'closed', code: 1000, reason: 'closed by the page' });
  }

  // The connection. Events are always told last, since a listener may call any method.

  #dial(status) {
    this.#setAside('dialled again');
    this.#watchPage();
    this.#token?.hold();
    let socket;
    try {
      socket = new this.#env.WebSocket(this.#token ? this.#token.addTo(this.#url) : this.#url.href);
    } catch (error) { // not a URL for a socket, or forbidden on this page: no later attempt would differ
      return this.#rest({ state: 'closed', reason: error.message });
    }
    this.#socket = socket;
    socket.onopen = () => { this.#stopHeart = every(this.#beatInterval(), () => this.#beat(), this.#env); };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = (event) => this.#lost(event);
    this.#await(status);
  }

  /** The first frame is due: what was said of the room before it belongs to another life of this page in it. */
  #await(status) {
    this.#early = [];
    this.#arm(PATIENCE, () => this.#retry({ why: 'timeout' }));
    this.#turn(status);
  }

  #lost({ code, reason }) {
    this.#drop('lost');
    if (this.#status.state === 'left') return;
    // Not fought over: the other tab keeps it, and this one comes back as another presence.
    if (code === TAKEN_OVER && this.#token) this.#token.renew();
    const final = FINAL.has(code) || (code === TAKEN_OVER && !this.#token);
    if (final) this.#rest({ state: 'closed', code, reason });
    else this.#retry({ why: 'lost', code, reason });
  }

  /** Gives the connection up and dials again after a random delay ("full jitter"), so that crowds spread out. */
  #retry(detail) {
    this.#setAside(detail.why);
    if (this.#liveSince !== null && this.#env.now() - this.#liveSince >= SETTLED) this.#failures = 0;
    this.#liveSince = null;
    const backoff = Math.min(this.#options.maxDelay, this.#options.minDelay * 2 ** this.#failures);
    const ceiling = detail.code === RESTARTING ? Math.max(backoff, RESTART_SPREAD) : backoff;
    const delay = Math.round(this.#env.random() * ceiling);
    this.#failures += 1;
    const status = { state: 'reconnecting', ...detail, attempt: this.#failures };
    this.#arm(delay, () => this.#dial({ ...status, delay: 0 }));
    this.#turn({ ...status, delay });
  }

  /** Outside the room, by decision of the page or the server. */
  #rest(status) {
    this.#arm(null);
    this.#liveSince = null;
    this.#closeAside(status.state);
    if (status.state === 'closed') {
      this.#drop('closed');
      this.#token?.letGo();
      this.#unwatchPage();
    }
    this.#roster = new Roster();
    this.#turn(status);
    this.#emit('count', { users: 0, anonymous: 0 });
    this.#emit('sync', this);
  }

  /** Closes the socket, which for the server is a leave. */
  #drop(reason) { this.#detach()?.close(1000, reason); }

  /** Lets go of the socket without a leave: with the token, the next one takes its presence over. */
  #setAside(reason) {
    const socket = this.#detach();
    if (socket?.readyState === 1 && this.#token) this.#aside.push(socket);
    else socket?.close(1000, reason);
  }

  #closeAside(reason) {
    for (const socket of this.#aside.splice(0)) socket.close(1000, reason);
  }

  #detach() {
    this.#arm(null);
    this.#stopHeart?.();
    this.#stopHeart = null;
    const socket = this.#socket;
    this.#socket = null;
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }

  #isOpen() { return this.#socket?.readyState === 1; }
  #beat() { if (this.#isOpen()) this.#socket.send(HEARTBEAT); }
  #beatInterval() { return Math.min(MAX_TIMER, Math.max(1, Math.floor(this.#options.maxAge / 3))); }

  /** The one timer of whatever state the room is in: patience for a first frame, a retry, a meta to send again. */
  #arm(delay, alarm) {
    if (this.#alarm !== null) this.#env.clearTimeout(this.#alarm);
    this.#alarm = delay === null ? null : this.#env.setTimeout(() => { this.#alarm = null; alarm(); }, delay);
  }

  // The page: a network that is back, or eyes that are, should not wait for a timer.

  #watchPage() {
    if (this.#page) return;
    this.#page = new AbortController();
    const { window, document } = this.#env;
    const until = { signal: this.#page.signal };
    window?.addEventListener('online', () => this.#wake(), until);
    window?.addEventListener('pagehide', ({ persisted }) => { if (persisted) this.#shelve(); }, until);
    window?.addEventListener('pageshow', ({ persisted }) => { if (persisted) this.#restore(); }, until);
    document?.addEventListener('visibilitychange', () => { if (!document.hidden) this.#wake(); }, until);
  }

  #unwatchPage() {
    this.#page?.abort();
    this.#page = null;
  }

  /** Dials now if a retry is waiting; else a heartbeat makes the network tell whether the socket still lives. */
  #wake() {
    if (this.#status.state === 'reconnecting' && !this.#socket) this.#dial({ ...this.#status, delay: 0 });
    else this.#beat();
  }

  /**
   * Into the browser's page cache, where a page is kept for a step back: its socket would stay open, and its user be shown
   * in the room, for nobody.
   */
  #shelve() {
    if (['left', 'closed'].includes(this.#status.state)) return;
    this.#drop('the page was left');
    this.#closeAside('the page was left');
  }

  /** Back from the browser's page cache: whatever the socket looks like, the server has counted us out. */
  #restore() {
    if (['left', 'closed'].includes(this.#status.state)) return;
    this.#dial({ state: 'reconnecting', why: 'restored', attempt: this.#failures, delay: 0 });
  }

  // Frames.

  #receive(data) {
    if (this.#status.state === 'left') return; // still on its way when we left
    const frame = parse(data);
    switch (isObject(frame) ? frame.type : undefined) {
      case undefined: return this.#malformed('a frame that is not a JSON object with a type');
      case 'presence.state': return isState(frame) ? this.#onState(frame) : this.#unreadable(frame.type);
      case 'presence.diff': return isDiff(frame) ? this.#onDiff(frame) : this.#unreadable(frame.type);
      case 'message': return isMessage(frame) ? this.#onMessage(frame) : this.#malformed('an unreadable message');
      case 'presence': return this.#rest({ state: 'closed', reason: 'the server does not speak `diff` in this room' });
      case 'error': return this.#onError(frame);
      default: return; // a newer server may say more
    }
  }

  #onState(state) {
    const early = this.#early;
    const change = this.#roster.replace(state);
    this.#arm(null);
    this.#early = null;
    this.#closeAside('resumed');
    this.#liveSince ??= this.#env.now();
    this.#sendMeta();
    if (this.#status.state !== 'live') this.#turn({ state: 'live' });
    this.#announce(change);
    for (const diff of early ?? []) {
      if (this.#status.state !== 'live') return; // a listener left, or there was a gap
      if (diff.epoch === state.epoch && diff.version > state.version) this.#onDiff(diff);
    }
  }

  #onDiff(diff) {
    if (this.#early) return void this.#early.push(diff);
    const change = this.#roster.apply(diff);
    if (change) this.#announce(change);
    else this.#retry({ why: 'gap' });
  }

  #onMessage({ from, text }) { this.#emit('message', { from, text }); }

  #onError({ code, message }) {
    // The store is away: a refused meta is tried again (a refused join is, when the first frame does not come).
    if (code === 'unavailable' && this.#status.state === 'live') {
      this.#arm(this.#options.minDelay * (1 + this.#env.random()), () => this.#sendMeta());
    }
    this.#emit('error', new PresenceError(String(code), String(message)));
  }

  #malformed(what) { this.#emit('error', new PresenceError('malformed', `the server sent ${what}`)); }

  #unreadable(type) {
    this.#retry({ why: 'malformed' });
    this.#malformed(`an unreadable ${type}`);
  }

  #sendMeta() {
    const joined = this.#early === null && this.#isOpen() && this.#status.state !== 'left';
    if (joined && this.#meta !== null) this.#socket.send(`{"type":"update","meta":${this.#meta}}`);
  }

  #turn(status) {
    this.#status = Object.freeze(status);
    this.#emit('status', this.#status);
  }

  #announce({ joined, updated, left, counted }) {
    for (const member of joined) this.#emit('join', member);
    for (const [member, previous] of updated) this.#emit('update', member, previous);
    for (const member of left) this.#emit('leave', member);
    if (counted) this.#emit('count', { users: this.members.size, anonymous: this.anonymous });
    this.#emit('sync', this);
  }

  /** A listener that throws is reported like any uncaught error; the others are still told. */
  #emit(event, ...details) {
    for (const { listener } of [...(this.#listeners.get(event) ?? [])]) {
      try { listener(...details); } catch (error) { this.#env.report(error); }
    }
  }
}
