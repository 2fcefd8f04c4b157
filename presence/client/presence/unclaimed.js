// The rooms that a server speaks of before the page has asked for them. Their rosters are kept up to date, so that a
// room object that is made later has its members at once, without another request.

import { isDiff, isState } from './frames.js';
import { Replica } from './replica.js';

/** As many rooms as a socket may be in by the server's default. Beyond it the one kept for longest is forgotten. */
const MAX_ROOMS = 100;

export class Unclaimed {
  /** Room -> its replica, or null if a frame of it was missed. */
  #replicas = new Map();
  #forgot = false;

  /** How long the texts of all frames are that wait for another one. */
  get kept() {
    let kept = 0;
    for (const replica of this.#replicas.values()) kept += replica?.kept ?? 0;
    return kept;
  }

  /** Takes a frame of such a room, whose text was so long. True: the room is new, and its roster complete. */
  take(part, length) {
    const { room, type } = part;
    const isForState = type === 'presence.state';
    if (!isForState && this.#replicas.get(room) === null) return false; // broken already
    if (!(isForState ? isState(part) : isDiff(part))) return this.#keep(room, null);
    const replica = this.#replicas.get(room) ?? new Replica();
    const frame = replica.assemble(part, length);
    if (frame === undefined) return this.#keep(room, replica);
    if (frame?.type !== 'presence.state') return this.#keep(room, frame && replica.apply(frame) !== null ? replica : null);
    const isNew = replica.isWaiting;
    const { late } = replica.replace(frame);
    const isWhole = late.every((diff) => replica.apply(diff));
    this.#keep(room, isWhole ? replica : null);
    return isNew && isWhole;
  }

  /** Hands a room over: `replica`, if there is one, and whether frames of it were lost. */
  claim(room) {
    const replica = this.#replicas.get(room);
    const isBroken = replica === null || (replica === undefined && this.#forgot);
    this.#replicas.delete(room);
    return { replica: replica ?? undefined, isBroken };
  }

  /** Another connection: the server sends every room anew. */
  clear() {
    this.#replicas.clear();
    this.#forgot = false;
  }

  #keep(room, replica) {
    this.#replicas.set(room, replica);
    if (this.#replicas.size > MAX_ROOMS) {
      this.#replicas.delete(this.#replicas.keys().next().value);
      this.#forgot = true;
    }
    return false;
  }
}
