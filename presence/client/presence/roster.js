/** The room's members as the server told them. No sockets, no clock, no events: frames in, changes out. */
export class Roster {
  members = new Map();
  anonymous = 0;
  me = null;
  #epoch = null;
  #version = null;

  /** The whole truth; the change is the net difference to what was known, without joins if nothing was. */
  replace(state) {
    const first = this.#epoch === null;
    const before = new Map();
    for (const user of this.members.keys()) this.#touch(user, before).clear();
    for (const { user, presences } of state.members) {
      for (const { id, meta } of presences) this.#touch(user, before).set(id, meta);
    }
    this.me = state.me;
    const change = this.#settle(before, state);
    return first ? { ...change, joined: [] } : change;
  }

  /** What changed; null if the diff does not start where we are, or contradicts itself: the caller needs a state. */
  apply(diff) {
    if (diff.epoch !== this.#epoch || diff.from !== this.#version) return null;
    const gone = new Set(diff.leaves.map(({ id }) => id));
    if (diff.joins.some(({ id }) => gone.has(id))) return null;
    const before = new Map();
    for (const { user, id, meta } of [...diff.joins, ...diff.updates]) this.#touch(user, before).set(id, meta);
    for (const { user, id } of diff.leaves) this.#touch(user, before).delete(id);
    return this.#settle(before, diff);
  }

  /** A user's presences, to be changed; the member that others may hold is put aside in `before`, untouched. */
  #touch(user, before) {
    if (!before.has(user)) {
      const old = this.members.get(user);
      before.set(user, old);
      this.members.set(user, Object.freeze({ user, presences: new Map(old?.presences) }));
    }
    return this.members.get(user).presences;
  }

  /** Compares each touched user with before, so that one frame tells at most one thing of a user. */
  #settle(before, { epoch, version, anonymous }) {
    const change = { joined: [], updated: [], left: [], counted: anonymous !== this.anonymous };
    for (const [user, old] of before) {
      const now = this.members.get(user);
      if (now.presences.size === 0) {
        this.members.delete(user);
        if (old) change.left.push(old);
      } else if (!old) change.joined.push(now);
      else if (same(old.presences, now.presences)) this.members.set(user, old);
      else change.updated.push([now, old]);
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
