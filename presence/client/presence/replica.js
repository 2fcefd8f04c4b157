// A room's roster while its frames arrive. A diff may come before the state that it belongs to, so it waits for it.

import { Parts } from './parts.js';
import { Roster } from './roster.js';

/** How many diffs may wait for their state. More of them than that, and the state is taken for lost. */
const MAX_EARLY = 1000;

export class Replica {
  roster = new Roster();
  #parts = new Parts();
  #early = [];
  /** The length of the texts of the diffs that wait. */
  #earlyLength = 0;

  /** Whether the first frame of this stay has still to come. */
  get isWaiting() { return this.#early !== null; }
  /** How long the texts of all frames are that wait for another one. */
  get kept() { return this.#parts.kept + this.#earlyLength; }

  /** A new stay in the room, or a new connection: diffs of before do not count any more. */
  await() {
    this.#early = [];
    this.#earlyLength = 0;
    this.#parts.clear();
  }

  /**
   * A frame of the roster, whose text was so long, before anything else is done with it: the whole one if it was the last part or
   * the only one; undefined while parts are missing, which change nothing; null after a gap, as with `apply`.
   */
  assemble(frame, length) { return this.#parts.take(frame, length); }

  /** Takes a whole state. `late` are the diffs that waited for it and are newer, to be applied one after the other. */
  replace(state) {
    const early = this.#early ?? [];
    const change = this.roster.replace(state);
    this.#early = null;
    this.#earlyLength = 0;
    return { change, late: early.filter(({ epoch, version }) => epoch === state.epoch && version > state.version) };
  }

  /** What the diff changed that `assemble` gave last; undefined while it waits for the state; null after a gap: only a new state helps. */
  apply(diff) {
    if (this.#early === null) return this.roster.apply(diff);
    if (this.#early.length === MAX_EARLY) return null;
    this.#early.push(diff);
    this.#earlyLength += this.#parts.length;
    return undefined;
  }
}
