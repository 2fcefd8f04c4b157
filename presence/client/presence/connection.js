// One socket after the other to one service, for any number of rooms: dials, beats and tries again.
//
// Events are emitted last in each step, since a listener may call any method.

import { Addresses } from './address.js';
import { browser } from './browser.js';
import { PresenceError } from './error.js';
import { Events } from './events.js';
import { isTooLarge } from './frames.js';
import { Heart } from './heart.js';
import { watchPage } from './page.js';
import { ASIDE, DONE, LOST, Retry, SUPERSEDED, isFinal } from './retry.js';
import { Room } from './room.js';
import { Sorter } from './sorter.js';
import { Token } from './token.js';

const DEFAULTS = { maxAge: 60000, grace: 10000, minDelay: 500, maxDelay: 30000, resume: true };
/** An error of a socket is followed by its close within this time, or it is taken for closed. */
const CLOSE_AFTER_ERROR = 1000;

/** A connection. Made by `connect`, or by `joinRoom` for its one room. */
export class Connection {
  #options;
  #env;
  #addresses;
  #token = null;
  #events;
  #status = { state: 'connecting' };
  #socket = null;
  #opened = false;
  #served = false;
  #heart = null;
  /** Sockets that are no good any more, kept open only so that nobody sees a leave before we are back. */
  #aside = [];
  #alarm = null;
  /** The alarm limits the wait for what comes first, and is no retry. */
  #isAwaiting = false;
  #stopWatching = null;
  #retry;
  #sorter;

  /** @param {((link: object) => void) | null} solo  makes the one room of `joinRoom` */
  constructor(target, options = {}, solo = null) {
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.#options = { ...DEFAULTS, ...Object.fromEntries(given) };
    if (!(this.#options.maxAge > 0)) throw new RangeError('maxAge is a number of milliseconds above 0');
    if (!(this.#options.grace >= 0)) throw new RangeError('grace is a number of milliseconds, at least 0');
    this.#env = { ...browser(), ...options.env };
    this.#events = new Events(this.#env.report);
    this.#sorter = new Sorter(this.#events, {
      ownName: () => this.#ownName,
      onProgress: () => { if (this.#isAwaiting) this.#awaitFirst(); },
      onExcess: (reason) => this.#end({ state: 'closed', why: 'too_large', reason }),
    });
    this.#retry = new Retry(this.#options);
    this.#addresses = new Addresses(target, this.#env.location);
    if (this.#options.resume) this.#token = new Token(this.#addresses.key, this.#env);
    if (solo) {
      this.#sorter.solo = { hooks: null, name: this.#addresses.room };
      solo(this.#link(null));
    }
    this.#dial({ state: 'connecting' });
  }

  /** @returns {Status} `live` as soon as the socket is open; each room has a status of its own. */
  get status() { return this.#status; }

  /** The object of a room, always the same until it is closed. It is `live` once the server has sent the room's state. */
  room(name) {
    if (typeof name !== 'string' || name === '') throw new PresenceError('bad_name', 'a room has a name');
    const known = this.#sorter.rooms.get(name);
    if (known) return known.room;
    const room = new Room(this.#link(name));
    const { replica, isBroken } = this.#sorter.claim(name);
    const { hooks } = this.#sorter.rooms.get(name);
    if (replica) hooks.adopt(replica);
    // After the page has had the chance to listen.
    queueMicrotask(() => { if (isBroken && this.#isOpen()) this.#again({ why: 'gap' }); else hooks.show(); });
    return room;
  }

  /**
   * Calls `listener` on each event of a kind until the returned function is called.
   *
   * - `status` (status): the connection changed.
   * - `room` (name): the server sent the state of a room that has no object yet; `room(name)` makes one.
   * - `frame` (frame): a JSON object with a type that is the application's own, of any room; `message` and `error` too.
   * - `text` (text): any other text.  - `binary` (data): a binary frame.
   * - `error` (PresenceError): the server's complaint that no room object took, or a frame not understood.
   */
  on(event, listener) { return this.#events.on(event, listener); }

  /**
   * Sends a text as it is, such as a command of the application's own.
   *
   * @throws {PresenceError} `too_large` (over 64 KiB of UTF-8); `not_live`: nothing was sent.
   */
  send(text) {
    if (typeof text !== 'string') throw new TypeError('a text is a string');
    if (isTooLarge(text)) throw new PresenceError('too_large', 'a text has at most 64 KiB');
    if (!this.#isOpen()) throw new PresenceError('not_live', 'there is no connection now');
    this.#socket.send(text);
  }

  /** Connects again after `close` or a final close code; does not wait for a retry. */
  open() {
    if (this.#status.state === 'reconnecting') return this.#wake();
    if (!this.#isOver()) return;
    this.#retry.reset();
    this.#dial({ state: 'connecting' });
  }

  /** Leaves all rooms for good: closes the socket and lets go of the page's events. */
  close() { this.#end({ state: 'closed', code: DONE, reason: 'closed by the page' }); }

  /** What a room may ask of its connection. `name` is null for the one room of `joinRoom`. */
  #link(name) {
    const isSolo = name === null;
    return {
      env: this.#env,
      minDelay: this.#options.minDelay,
      isSolo,
      name: () => (isSolo ? this.#sorter.solo.name : name),
      // Commands to the room that the URL names are the chat's; any other room is named in them.
      isNamed: () => !isSolo && name !== this.#ownName,
      status: () => this.#status,
      isOpen: () => this.#isOpen(),
      send: (text) => this.#socket.send(text),
      open: () => this.open(),
      retry: (detail) => this.#again(detail),
      end: (status) => this.#end(status),
      attach: (room, hooks) => {
        if (isSolo) this.#sorter.solo.hooks = hooks;
        else this.#sorter.rooms.set(name, { room, hooks });
      },
      detach: () => this.#sorter.rooms.delete(name),
      arrived: () => this.#onArrived(),
      awaitFirst: () => { if (isSolo) this.#awaitFirst(); },
      gone: () => { if (isSolo) this.#idle(); },
    };
  }

  // The socket.

  #dial(status) {
    this.#setAside('dialled again');
    this.#stopWatching ??= watchPage(this.#env, {
      wake: () => this.#wake(), shelve: () => this.#shelve(), restore: () => this.#restore(),
    });
    let socket;
    try {
      socket = new this.#env.WebSocket(this.#url());
    } catch (error) { // not a URL for a socket, or forbidden on this page: no later attempt would differ
      return this.#end({ state: 'closed', reason: error.message });
    }
    this.#socket = socket;
    this.#opened = this.#served = false;
    socket.onopen = () => this.#onOpen();
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = (event) => this.#onClose(event);
    socket.onerror = () => this.#onError();
    this.#awaitFirst();
    this.#turn(status, (hooks) => hooks.dialling(status));
  }

  #url() {
    const { url } = this.#addresses;
    if (!this.#token || url.searchParams.has('session')) return url.href;
    this.#token.hold();
    return this.#token.addTo(url);
  }

  /**
   * The time until the roster is here is limited; without a room of its own the connection only has to open. The time counts
   * anew with all that shows progress, the handshake and each page of a large state: a slow line needs longer for the whole.
   */
  #awaitFirst() {
    const patience = this.#opened ? this.#retry.patience : this.#retry.handshake(this.#env.now());
    this.#arm(patience, () => {
      const others = this.#sorter.strangers.map((name) => JSON.stringify(name)).join(', ');
      this.#again({ why: 'timeout', ...(others && { reason: `the server speaks of other rooms only: ${others}` }) });
    });
    this.#isAwaiting = true;
  }

  #onOpen() {
    this.#opened = true;
    this.#heart = new Heart(this.#options.maxAge, {
      send: (text) => { if (this.#isOpen()) this.#socket.send(text); },
      onSilence: () => this.#again({ why: 'silent' }),
      env: this.#env,
    });
    if (this.#sorter.solo) this.#awaitFirst();
    else this.#arm(null);
    this.#turn({ state: 'live' }, (hooks) => hooks.opened());
  }

  /** A browser goes on to `close`. Node 20 does not, after a handshake that failed. */
  #onError() {
    if (!this.#opened) this.#arm(CLOSE_AFTER_ERROR, () => this.#onClose({ code: LOST, reason: '' }));
  }

  #onClose({ code, reason }) {
    this.#drop(DONE, 'lost');
    if (this.#sorter.solo?.hooks.isAway()) return this.#idle();
    // Not fought over: the other tab keeps it, and this one comes back as another presence.
    if (code === SUPERSEDED && this.#token) this.#token.renew();
    const isOver = isFinal(code) || (code === SUPERSEDED && !this.#token);
    if (isOver) this.#end({ state: 'closed', code, reason });
    else this.#again({ why: 'lost', code, reason });
  }

  /** Gives the connection up and dials again after a while, the next URL if there are several. */
  #again(detail) {
    this.#setAside(detail.why);
    const loss = { code: detail.code, why: detail.why, opened: this.#opened, online: this.#env.online() };
    const { attempt, delay, refused } = this.#retry.lost(loss, this.#env.now(), this.#env.random());
    try {
      this.#addresses.advance();
    } catch (error) { // the function that names the URLs has none
      return this.#end({ state: 'closed', reason: error.message });
    }
    const status = { state: 'reconnecting', ...detail, ...(refused && { why: 'refused' }), attempt };
    this.#arm(delay, () => this.#dial({ ...status, delay: 0 }));
    this.#turn({ ...status, delay }, (hooks) => hooks.lost({ ...status, delay }));
  }

  /** For good, until `open`. */
  #end(status) {
    if (this.#status.state === 'closed') return;
    this.#drop(DONE, 'closed');
    this.#closeAside(DONE, 'closed');
    this.#token?.letGo();
    this.#stopWatching?.();
    this.#stopWatching = null;
    this.#turn(status, (hooks) => hooks.ended(status));
  }

  /** The one room was left, and there is no socket: none is needed until it is joined again. */
  #idle() {
    this.#drop(DONE, 'left');
    this.#closeAside(DONE, 'left');
    this.#turn({ state: 'left' }, () => {});
  }

  /** A room has its state: with the token it has its presence again, and nobody needs the sockets of before. */
  #onArrived() {
    if (this.#sorter.solo) this.#arm(null);
    // Another room of the socket may not have its presence again yet, so this must not count as a leave of it.
    this.#closeAside(ASIDE, 'resumed');
  }

  /** Closes the socket; by `DONE` it leaves its rooms, by `ASIDE` its presences are held. */
  #drop(code, reason) { this.#detach()?.close(code, reason); }

  /** Lets go of the socket without a leave: with the token, the next one takes its presence over. */
  #setAside(reason) {
    const socket = this.#detach();
    if (socket?.readyState === 1 && this.#token) this.#aside.push(socket);
    else socket?.close(DONE, reason);
  }

  #closeAside(code, reason) {
    for (const socket of this.#aside.splice(0)) socket.close(code, reason);
  }

  #detach() {
    this.#arm(null);
    this.#heart?.stop();
    this.#heart = null;
    this.#sorter.clear();
    const socket = this.#socket;
    this.#socket = null;
    if (socket) socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    return socket;
  }

  #isOpen() { return this.#socket?.readyState === 1; }
  #isOver() { return this.#status.state === 'closed' || this.#status.state === 'left'; }

  /** The one timer of whatever state the connection is in: patience for a first frame, or a retry. */
  #arm(delay, alarm) {
    if (this.#alarm !== null) this.#env.clearTimeout(this.#alarm);
    this.#isAwaiting = false;
    this.#alarm = delay === null ? null : this.#env.setTimeout(() => { this.#alarm = null; alarm(); }, delay);
  }

  /** A new status, which the rooms learn first. One of their listeners may bring about the next, which then counts. */
  #turn(status, tellRoom) {
    const turned = Object.freeze({ ...status });
    this.#status = turned;
    for (const hooks of this.#sorter.hooks) {
      tellRoom(hooks);
      if (this.#status !== turned) return;
    }
    this.#events.emit('status', turned);
  }

  // The page.

  /** Dials now if a retry is waiting; else a heartbeat shows whether the socket still lives. */
  #wake() {
    if (this.#status.state === 'reconnecting' && !this.#socket) this.#dial({ ...this.#status, delay: 0 });
    else if (this.#isOpen()) this.#heart.beat();
  }

  /**
   * Into the browser's cache, where a page is kept for a step back: its socket would stay open, and its user be shown in
   * the room, for nobody. The next page of the site may be in the same room, so the server holds the presence for it.
   */
  #shelve() {
    if (this.#isOver()) return;
    this.#drop(ASIDE, 'the page is in the cache');
    this.#closeAside(ASIDE, 'the page is in the cache');
  }

  #restore() {
    if (this.#isOver()) return;
    if (this.#sorter.solo?.hooks.isAway()) return this.#idle();
    this.#dial({ state: 'reconnecting', why: 'restored', attempt: this.#retry.attempts, delay: 0 });
  }

  // Frames.

  #receive(data) {
    this.#heart?.heard();
    if (!this.#served) {
      this.#served = true;
      this.#retry.live(this.#env.now());
      this.#heart?.beat(); // the answer shows whether this server answers at all
    }
    if (this.#sorter.take(data)) this.#heart?.answered();
  }

  get #ownName() { return this.#addresses.room ?? this.#addresses.lastSegment; }
}
