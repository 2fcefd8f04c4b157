import { ReadonlyMap, deepFreeze, put, take } from './frozen.js';

/** The room's members as the server sent them. No sockets, no clock, no events: frames in, changes out. */
export class Roster {
  members = new ReadonlyMap();
  anonymous = 0;
  me = null;
  #epoch = null;
  #version = null;

  /** The whole truth; the change is the net difference to what was known, without joins if nothing was. */
  replace(state) {
    const first = this.#epoch === null;
    const before = new Map();
    const after = new Map();
    for (const user of this.members.keys()) this.#change(user, before, after).clear();
    for (const { user, presences } of state.members) {
      for (const { id, meta } of presences) this.#change(user, before, after).set(id, deepFreeze(meta));
    }
    this.me = state.me;
    const change = this.#settle(before, after, state);
    return first ? { ...change, joined: [] } : change;
  }

  /** What changed; null if the diff does not start where we are, or contradicts itself: the caller needs a state. */
  apply(diff) {
    if (diff.epoch !== this.#epoch || diff.from !== this.#version) return null;
    const gone = new Set(diff.leaves.map(({ id }) => id));
    if (diff.joins.some(({ id }) => gone.has(id))) return null;
    const before = new Map();
    const after = new Map();
    for (const { user, id, meta } of [...diff.joins, ...diff.updates]) {
      this.#change(user, before, after).set(id, deepFreeze(meta));
    }
    for (const { user, id } of diff.leaves) this.#change(user, before, after).delete(id);
    return this.#settle(before, after, diff);
  }

  /** A copy of a user's presences, to be changed; the member that others may hold is kept in `before`. */
  #change(user, before, after) {
    if (!after.has(user)) {
      const old = this.members.get(user);
      before.set(user, old);
      after.set(user, new Map(old?.presences));
    }
    return after.get(user);
  }

  /** Compares each changed user with before, so that one frame reports at most one change of a user. */
  #settle(before, after, { epoch, version, anonymous }) {
    const change = { joined: [], updated: [], left: [], counted: anonymous !== this.anonymous };
    for (const [user, presences] of after) {
      const old = before.get(user);
      if (presences.size === 0) {
        take(this.members, user);
        if (old) change.left.push(old);
        continue;
      }
      if (old && same(old.presences, presences)) continue;
      const now = Object.freeze({ user, presences: new ReadonlyMap(presences) });
      put(this.members, user, now);
      if (old) change.updated.push([now, old]);
      else change.joined.push(now);
    }
    change.counted ||= change.joined.length !== change.left.length;
    this.anonymous = anonymous;
    this.#epoch = epoch;
    this.#version = version;
    return change;
  }
}

/** Deep equality of metas, and of Maps of them; the order of keys is no difference. */
function same(a, b) {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const entries = (value) => new Map(value instanceof Map ? value : Object.entries(value));
  const [left, right] = [entries(a), entries(b)];
  return left.size === right.size && [...left].every(([key, value]) => right.has(key) && same(value, right.get(key)));
}
