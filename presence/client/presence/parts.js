// Large states and diffs come in parts, so that no frame is larger than what every client takes. This puts them together again.

/** The parts of one frame, until the last of them is here. Takes frames that `isState` or `isDiff` has checked. */
export class Parts {
  /** What the parts so far make together; null between two whole frames. */
  #whole = null;
  /** The length of their texts, or of those of the last whole frame. */
  #length = 0;

  /** Begins again with the next frame; what had come is forgotten. */
  clear() { this.#whole = null; }

  /** How long the texts of the parts are that wait for the last one. */
  get kept() { return this.#whole === null ? 0 : this.#length; }
  /** How long the texts of the frame were that `take` gave last. */
  get length() { return this.#length; }

  /** The whole frame; undefined while parts of it are missing; null if this is not the part that had to come. */
  take(frame, length) {
    // A state replaces everything, and so also the parts of whatever was on its way before it.
    const isFirst = frame.type === 'presence.state' || this.#whole === null;
    const whole = isFirst ? frame : this.#add(frame);
    const isDone = whole === null || frame.more !== true;
    this.#length = (isFirst ? 0 : this.#length) + length;
    this.#whole = isDone ? null : whole;
    return isDone ? whole : undefined;
  }

  #add(part) {
    const whole = this.#whole;
    const isState = whole.type === 'presence.state';
    const from = isState ? whole.version : whole.from;
    const isNext = part.epoch === whole.epoch && part.from === from;
    // Only the last part of a diff leads to another version.
    const staysThere = part.version === from && part.updates.length + part.leaves.length === 0;
    if (!isNext || (isState ? !staysThere : part.more === true && part.version !== from)) return null;
    if (isState) {
      for (const { user, id, meta } of part.joins) whole.members.push({ user, presences: [{ id, meta }] });
    } else {
      for (const list of ['joins', 'updates', 'leaves']) for (const entry of part[list]) whole[list].push(entry);
    }
    whole.version = part.version;
    whole.anonymous = part.anonymous;
    return whole;
  }
}
