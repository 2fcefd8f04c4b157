/** Listeners, by event. One that throws is reported like any uncaught error, and the others are called all the same. */
export class Events {
  #listeners = new Map();
  #report;

  constructor(report) { this.#report = report; }

  /** Calls `listener` on each event of this name until the returned function is called. */
  on(event, listener) {
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    const entry = { listener };
    this.#listeners.get(event).add(entry);
    return () => void this.#listeners.get(event).delete(entry);
  }

  emit(event, ...details) {
    for (const { listener } of [...(this.#listeners.get(event) ?? [])]) {
      try { listener(...details); } catch (error) { this.#report(error); }
    }
  }
}
