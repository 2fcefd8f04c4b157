// One room as a page sees it: who is here, and what the page does there. The connection under it may be one for several
// rooms; it hands each room its own frames through the `link`.

import { PresenceError } from './error.js';
import { Events } from './events.js';
import { bytes, isDiff, isObject, isReserved, isState, isTooLarge } from './frames.js';
import { Replica } from './replica.js';

const MAX_META = 4096;

/** A room. Made by `joinRoom`, or by the `room` of a connection. */
export class Room {
  #link;
  #events;
  #replica = new Replica();
  #status = { state: 'connecting' };
  #meta = null;
  #metaTimer = null;
  /** The page asked to join by `join()`, so that each new connection must ask again. */
  #asks = false;
  /** The page left, but a new connection may have joined the room by itself. */
  #leavesAgain = false;

  constructor(link) {
    this.#link = link;
    this.#events = new Events(link.env.report);
    const { state } = link.status();
    if (state === 'reconnecting' || state === 'closed') this.#status = link.status();
    this.#attach();
  }

  #attach() {
    this.#link.attach(this, {
      dialling: (status) => this.#onDialling(status),
      opened: () => this.#onOpened(),
      lost: (status) => { if (!this.#isAway()) this.#turn(status); },
      ended: (status) => { if (this.#status.state !== 'closed') this.#rest(status); },
      adopt: (replica) => { this.#replica = replica; },
      show: () => this.#onAdopted(),
      frame: (frame, length) => this.#receive(frame, length),
      kept: () => this.#replica.kept,
      emit: (event, ...details) => { if (!this.#isAway()) this.#events.emit(event, ...details); },
      isAway: () => this.#isAway(),
    });
  }

  /** The room's name; null until the first frame, if `joinRoom` was given a URL. @returns {string | null} */
  get name() { return this.#link.name(); }
  /** Everyone with a name: user -> member. Read-only. @returns {ReadonlyMap<string, Member>} */
  get members() { return this.#replica.roster.members; }
  /** How many sockets without a name are here, this one included. */
  get anonymous() { return this.#replica.roster.anonymous; }
  /** The id of this page's own presence; null outside the room. */
  get me() { return this.#replica.roster.me; }
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
   * - `join` (member): a user's first presence. Those found on entering are reported by `sync` alone.
   * - `leave` (member): a user's last presence went; the member as it was.
   * - `update` (member, previous): someone who stays has another meta, a tab more or a tab less.
   * - `count` ({users, anonymous}): one of the two numbers changed.
   * - `message` (frame): a frame of type `message`, with all its fields. The chat's have `from` and `text`; `from` is null
   *   for an anonymous visitor.
   * - `frame` (frame): a frame of a type that is the application's own.
   * - `text` (text): a text that is not a JSON object with a type.  - `binary` (data): a binary frame.
   * - `status` (status): see `Status`.  - `error` (PresenceError): the server's complaint, or a frame not understood.
   *
   * Of one frame joins are reported first, then updates, leaves, the count and `sync`. What a listener gets is frozen.
   */
  on(event, listener) { return this.#events.on(event, listener); }

  /**
   * Sends a text to everyone in the room.
   *
   * A text that the server would take for a heartbeat or a command is refused, not changed: a program that sends JSON
   * must not find other bytes at the far end, and a person can be asked to put a word before it.
   *
   * @throws {PresenceError} `reserved_text`; `too_large` (over 64 KiB of UTF-8); `not_live`: nothing was sent.
   */
  send(text) {
    if (typeof text !== 'string') throw new TypeError('a text is a string');
    const isNamed = this.#link.isNamed();
    if (!isNamed && isReserved(text)) throw new PresenceError('reserved_text', 'the server would take this text for a command');
    const frame = isNamed ? this.#command('message', { text }) : text;
    if (isTooLarge(frame)) throw new PresenceError('too_large', 'a text has at most 64 KiB');
    if (this.#status.state !== 'live' || !this.#link.isOpen()) throw new PresenceError('not_live', 'not in the room now');
    this.#link.send(frame);
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
    this.#meta = JSON.parse(text);
    this.#sendMeta();
  }

  /** Leaves the room and empties the roster, until `join`. With `joinRoom`, a socket lost meanwhile is not opened again. */
  leave() {
    if (this.#isAway()) return;
    this.#asks = false;
    if (this.#link.isOpen()) this.#link.send(this.#command('leave'));
    else this.#link.gone();
    this.#rest({ state: 'left' });
  }

  /** Asks the server to join; comes back after `leave`, `close` or a final close code; does not wait for a retry. */
  join() {
    const { state } = this.#status;
    if (state === 'live') return;
    const wasAway = this.#isAway();
    this.#asks = this.#link.isNamed();
    if (state === 'closed') this.#attach();
    if (this.#link.isOpen() && (wasAway || this.#asks)) this.#link.send(this.#command('join'));
    if (wasAway) this.#await({ state: 'connecting' });
    if (this.#isAway()) return; // a listener changed its mind
    if (!this.#link.isOpen()) this.#link.open();
    else if (wasAway) this.#link.awaitFirst();
  }

  /** Leaves for good. A room of `joinRoom` closes its socket too, and lets go of the page's events. */
  close() {
    if (this.#status.state === 'closed') return;
    if (!this.#link.isSolo && !this.#isAway() && this.#link.isOpen()) this.#link.send(this.#command('leave'));
    this.#asks = false;
    this.#end({ state: 'closed', code: 1000, reason: 'closed by the page' });
  }

  /** A room of its own connection ends with it; another one only lets go of the connection. */
  #end(status) {
    if (this.#link.isSolo) return this.#link.end(status);
    this.#link.detach();
    this.#rest(status);
  }

  // The connection under it.

  #onDialling(status) {
    if (this.#status.state === 'left') return;
    if (status.state === 'connecting' && this.#status.state === 'connecting') this.#replica.await(); // no news
    else this.#await(status);
  }

  #onOpened() {
    if (this.#status.state === 'left') this.#leavesAgain = true;
    else if (this.#asks) this.#link.send(this.#command('join'));
  }

  /** The first frame is due: what was sent of the room before it belongs to another stay of this page in it. */
  #await(status) {
    this.#leavesAgain = false;
    this.#replica.await();
    this.#turn(status);
  }

  /** Outside the room, by decision of the page or the server. */
  #rest(status) {
    this.#disarm();
    this.#replica = new Replica();
    this.#turn(status);
    this.#events.emit('count', { users: 0, anonymous: 0 });
    this.#events.emit('sync', this);
  }

  #isAway() { return this.#status.state === 'left' || this.#status.state === 'closed'; }

  /** A command as the chat knows it. A room that is not the connection's own is named in it. */
  #command(type, fields) {
    return JSON.stringify(this.#link.isNamed() ? { type, room: this.name, ...fields } : { type, ...fields });
  }

  // Frames.

  /** `length` is that of the text, if the frame is of the roster. */
  #receive(frame, length) {
    if (this.#status.state === 'left') return this.#onLate(frame);
    switch (frame.type) {
      case 'presence.state': return isState(frame) ? this.#onPart(frame, length) : this.#unreadable(frame.type);
      case 'presence.diff': return isDiff(frame) ? this.#onPart(frame, length) : this.#unreadable(frame.type);
      case 'presence': return this.#end({ state: 'closed', reason: 'the server does not speak `diff` in this room' });
      case 'error': return this.#onError(frame);
      case 'message': return this.#events.emit('message', frame);
      default: return this.#events.emit('frame', frame);
    }
  }

  /** After we left: still on its way, or a server that joins the room by itself whenever a socket comes. */
  #onLate({ type }) {
    if (type !== 'presence.state' || !this.#leavesAgain) return;
    this.#leavesAgain = false;
    this.#link.send(this.#command('leave'));
  }

  /** Nothing is reported before the last part, so that a page never sees half of a change. */
  #onPart(part, length) {
    const frame = this.#replica.assemble(part, length);
    if (frame === null) this.#link.retry({ why: 'gap' });
    else if (frame === undefined) return;
    else if (frame.type === 'presence.state') this.#onState(frame);
    else this.#onDiff(frame);
  }

  #onState(state) {
    const { change, late } = this.#replica.replace(state);
    this.#link.arrived();
    this.#sendMeta();
    this.#show(change);
    for (const diff of late) {
      if (this.#status.state !== 'live') return; // a listener left, or there was a gap
      this.#onDiff(diff);
    }
  }

  #show(change) {
    if (this.#status.state !== 'live') this.#turn({ state: 'live' });
    this.#announce(change);
  }

  /** The server had sent the room's state before the page asked for the room. */
  #onAdopted() {
    if (this.#status.state !== 'connecting' || this.#replica.isWaiting) return;
    this.#show({ joined: [], updated: [], left: [], counted: true });
  }

  #onDiff(diff) {
    const change = this.#replica.apply(diff);
    if (change) this.#announce(change);
    else if (change === null) this.#link.retry({ why: 'gap' });
  }

  #onError({ code, message }) {
    // Somebody else ended this page's stay in the room. A page that has left and joined again by itself waits for its first frame.
    if (code === 'removed' && this.#status.state === 'live') {
      this.#asks = false;
      this.#rest({ state: 'left', reason: String(message) });
    }
    // The store is away: a refused meta is tried again (a refused join is, when the first frame does not come).
    if (code === 'unavailable' && this.#status.state === 'live') {
      this.#disarm();
      const delay = this.#link.minDelay * (1 + this.#link.env.random());
      this.#metaTimer = this.#link.env.setTimeout(() => { this.#metaTimer = null; this.#sendMeta(); }, delay);
    }
    this.#events.emit('error', new PresenceError(String(code), String(message)));
  }

  #unreadable(type) {
    this.#link.retry({ why: 'malformed' });
    this.#events.emit('error', new PresenceError('malformed', `the server sent an unreadable ${type}`));
  }

  #sendMeta() {
    const isJoined = !this.#replica.isWaiting && this.#link.isOpen() && !this.#isAway();
    if (isJoined && this.#meta !== null) this.#link.send(this.#command('update', { meta: this.#meta }));
  }

  #disarm() {
    if (this.#metaTimer !== null) this.#link.env.clearTimeout(this.#metaTimer);
    this.#metaTimer = null;
  }

  #turn(status) {
    if (status.state !== 'live') this.#disarm();
    this.#status = Object.freeze({ ...status });
    this.#events.emit('status', this.#status);
  }

  #announce({ joined, updated, left, counted }) {
    for (const member of joined) this.#events.emit('join', member);
    for (const [member, previous] of updated) this.#events.emit('update', member, previous);
    for (const member of left) this.#events.emit('leave', member);
    if (counted) this.#events.emit('count', { users: this.members.size, anonymous: this.anonymous });
    this.#events.emit('sync', this);
  }
}
