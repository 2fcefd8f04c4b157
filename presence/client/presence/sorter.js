// Which frame is for whom: states and diffs for the room that they name, the application's own for who listens to them, and
// what names no room for the connection's own.

import { PresenceError } from './error.js';
import { isObject, isPart, isState, parse } from './frames.js';
import { deepFreeze } from './frozen.js';
import { Unclaimed } from './unclaimed.js';

/** So many of them are named where the one room does not come. */
const STRANGERS = 3;
/**
 * So many characters of states and diffs may wait for their end, of all rooms together: parts for the last one, and diffs for their
 * state. A room of 100,000 users with names of 255 bytes has a state of 34 million. A server that goes beyond it never ends one.
 */
export const MAX_KEPT = 128 * 1024 * 1024;

export class Sorter {
  /** Name -> `{ room, hooks }`: the object, and what it is called for. */
  rooms = new Map();
  /** The one room of `joinRoom`: `{ hooks, name }`. */
  solo = null;
  #events;
  #ownName;
  #onProgress;
  #onExcess;
  #unclaimed = new Unclaimed();
  /** Rooms that the server speaks of while the one room is waited for. */
  #strangers = new Set();

  /**
   * @param {Events} events  of the connection
   * @param {{ownName: () => string, onProgress: () => void, onExcess: (reason: string) => void}} connection  `ownName` is the room
   *   that its target names; `onProgress` is called when a state arrives, or a part of something larger, of whatever room;
   *   `onExcess` when more waits for its end than may
   */
  constructor(events, { ownName, onProgress, onExcess }) {
    this.#events = events;
    this.#ownName = ownName;
    this.#onProgress = onProgress;
    this.#onExcess = onExcess;
  }

  get hooks() { return this.solo ? [this.solo.hooks] : [...this.rooms.values()].map(({ hooks }) => hooks); }
  get strangers() { return [...this.#strangers]; }

  /** What is known of a room that has an object from now on; see `Unclaimed`. */
  claim(name) { return this.#unclaimed.claim(name); }

  /** Another socket: the server sends everything anew. */
  clear() {
    this.#unclaimed.clear();
    this.#strangers.clear();
  }

  /** Hands a frame to whom it is for. True: it is the answer to a heartbeat. */
  take(data) {
    const frame = typeof data === 'string' ? parse(data) : undefined;
    if (typeof data !== 'string') this.#give('binary', data);
    else if (!isObject(frame) || typeof frame.type !== 'string') this.#give('text', data);
    else if (frame.type === 'heartbeat') return true;
    else if (frame.type === 'presence.state' || frame.type === 'presence.diff') this.#onRoster(frame, data.length);
    else if (frame.type === 'presence') this.#onList(frame);
    else this.#deliver(deepFreeze(frame));
    return false;
  }

  #onRoster(frame, length) {
    this.#sort(frame, length);
    const kept = this.hooks.reduce((sum, hooks) => sum + hooks.kept(), this.#unclaimed.kept);
    if (kept > MAX_KEPT) this.#onExcess(`states and diffs of more than ${MAX_KEPT} characters wait for their end`);
  }

  /** A state or a diff belongs to the room that it names, and to no other. */
  #sort(frame, length) {
    const { room } = frame;
    if (frame.type === 'presence.state' || isPart(frame)) this.#onProgress();
    if (this.solo) return this.#sortSolo(frame, length);
    if (typeof room !== 'string') return this.#malformed(`a ${frame.type} without its room`);
    const known = this.rooms.get(room);
    if (known) return known.hooks.frame(frame, length);
    if (this.#unclaimed.take(frame, length)) this.#events.emit('room', room);
    return undefined;
  }

  /** The room of `joinRoom` is the one that was named, or else that of the first state. */
  #sortSolo(frame, length) {
    const { hooks, name } = this.solo;
    const { room, type } = frame;
    if (room === undefined || room === name) return hooks.frame(frame, length);
    if (name !== null) return void (this.#strangers.size < STRANGERS && this.#strangers.add(room));
    if (type === 'presence.diff') return void this.#unclaimed.take(frame, length); // before its state, which will say whose room it is
    if (!isState(frame)) return hooks.frame(frame, length);
    const { replica } = this.#unclaimed.claim(room);
    this.solo.name = room;
    this.#unclaimed.clear();
    if (replica) hooks.adopt(replica);
    return hooks.frame(frame, length);
  }

  /** A server in the mode `list` cannot be followed; of a room that nobody has asked for it is a frame like others. */
  #onList(frame) {
    const room = frame.payload?.channel_name;
    const isSolo = this.solo && (this.solo.name === null || room === this.solo.name);
    const hooks = isSolo ? this.solo.hooks : this.rooms.get(room)?.hooks;
    return hooks ? hooks.frame(frame) : this.#deliver(deepFreeze(frame));
  }

  /** A frame of the application's own, to the connection and to the room that it names, or else to the connection's own. */
  #deliver(frame) {
    const { room, type } = frame;
    this.#events.emit('frame', frame);
    if (this.solo) {
      const isOthers = typeof room === 'string' && this.solo.name !== null && room !== this.solo.name;
      return isOthers ? this.solo.hooks.emit('frame', frame) : this.solo.hooks.frame(frame);
    }
    const hooks = this.rooms.get(typeof room === 'string' ? room : this.#ownName())?.hooks;
    if (hooks) hooks.frame(frame);
    else if (type === 'error') this.#events.emit('error', new PresenceError(String(frame.code), String(frame.message)));
    return undefined;
  }

  /** What names no room: to the connection, and to its own room. */
  #give(event, data) {
    this.#events.emit(event, data);
    (this.solo ?? this.rooms.get(this.#ownName()))?.hooks.emit(event, data);
  }

  #malformed(what) { this.#events.emit('error', new PresenceError('malformed', `the server sent ${what}`)); }
}
