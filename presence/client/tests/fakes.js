// A browser in which nothing happens by itself: sockets, timers, chance and the page are moved by the test.

/** A clock that stands still until it is told to go on; timers run in order, each at its own time. */
export class Clock {
  now = 0;
  #timers = new Map();
  #ids = 0;

  set(call, delay, every) {
    this.#ids += 1;
    this.#timers.set(this.#ids, { at: this.now + delay, call, every });
    return this.#ids;
  }

  clear(id) { this.#timers.delete(id); }

  get pending() { return this.#timers.size; }

  /** The page stands still for so long, as one whose thread is busy or frozen does: timers fire late, each once. */
  stall(milliseconds) {
    this.now += milliseconds;
    const due = [...this.#timers].filter(([, { at }]) => at <= this.now).sort(([, a], [, b]) => a.at - b.at);
    for (const [id, timer] of due) {
      if (!this.#timers.has(id)) continue;
      if (timer.every) timer.at = this.now + timer.every;
      else this.#timers.delete(id);
      timer.call();
    }
  }

  pass(milliseconds) {
    const end = this.now + milliseconds;
    for (;;) {
      const [next] = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at);
      if (!next) break;
      const [id, timer] = next;
      this.now = timer.at;
      if (timer.every) timer.at += timer.every;
      else this.#timers.delete(id);
      timer.call();
    }
    this.now = end;
  }
}

/** Tokens are no two alike, and the same in every run. */
let token = 0;

/** Everything a room takes from a browser; `memory` is what the tab remembers; `sockets` and `workers` are those it opened, oldest first. */
export function fakeBrowser({ random = () => 0.5, worker = 'works', memory = new Map(), online = () => true } = {}) {
  const clock = new Clock();
  const sockets = [];
  const workers = [];
  const reports = [];

  class FakeSocket {
    readyState = 0;
    /** What was sent but for heartbeats, which are counted in `beats`. */
    sent = [];
    beats = 0;
    closedWith = null;

    constructor(url) {
      this.url = url;
      sockets.push(this);
    }

    send(text) {
      if (this.readyState !== 1) throw new Error('send on a socket that is not open');
      if (text === '{"type":"heartbeat"}') this.beats += 1;
      else this.sent.push(text);
    }

    close(code, reason) {
      if (this.readyState > 1) return;
      this.readyState = 2;
      this.closedWith = { code, reason };
    }

    // The server's side.
    open() {
      this.readyState = 1;
      this.onopen?.({});
    }

    says(frame) { this.onmessage?.({ data: typeof frame === 'string' ? frame : JSON.stringify(frame) }); }

    drops(code = 1006, reason = '') {
      this.readyState = 3;
      this.onclose?.({ code, reason });
    }
  }

  class FakeWorker {
    constructor() {
      if (worker === 'throws') throw new Error('no workers here');
      workers.push(this);
      this.stopped = false;
    }

    ticks() { this.onmessage?.({ data: 0 }); }
    fails() { this.onerror?.({}); }
    terminate() { this.stopped = true; }
  }

  const env = {
    WebSocket: FakeSocket,
    Worker: worker === 'missing' ? undefined : FakeWorker,
    setTimeout: (call, delay) => clock.set(call, delay),
    clearTimeout: (id) => clock.clear(id),
    setInterval: (call, delay) => clock.set(call, delay, delay),
    clearInterval: (id) => clock.clear(id),
    now: () => clock.now,
    random,
    bytes: (count) => new Uint8Array(count).map(() => { token += 1; return token; }),
    storage: { getItem: (key) => memory.get(key) ?? null, setItem: (key, value) => memory.set(key, value) },
    online,
    report: (error) => reports.push(error),
    location: 'http://chat.example/page?x=1#top',
    window: new EventTarget(),
    document: Object.assign(new EventTarget(), { hidden: false }),
  };
  return { env, clock, memory, sockets, workers, reports, get socket() { return sockets.at(-1); } };
}
