// Values that a listener may keep and cannot change, since the roster is made of them.

/** A Map that refuses `set`, `delete` and `clear`. Its owner changes it with `put` and `take`. */
export class ReadonlyMap extends Map {
  constructor(entries = []) {
    super();
    for (const [key, value] of entries) put(this, key, value);
  }

  set() { throw new TypeError('this Map is read-only: copy it with new Map(…)'); }
  delete() { throw new TypeError('this Map is read-only: copy it with new Map(…)'); }
  clear() { throw new TypeError('this Map is read-only: copy it with new Map(…)'); }
}

export function put(map, key, value) { Map.prototype.set.call(map, key, value); }

export function take(map, key) { return Map.prototype.delete.call(map, key); }

/** Freezes what JSON.parse made, with all that is in it. Without recursion: it parses deeper than the stack reaches. */
export function deepFreeze(value) {
  const pending = [value];
  while (pending.length > 0) {
    const one = pending.pop();
    if (typeof one !== 'object' || one === null || Object.isFrozen(one)) continue;
    Object.freeze(one);
    for (const part of Object.values(one)) pending.push(part);
  }
  return value;
}
