// Heartbeats, by which the server knows that the page lives, and their answers, by which the page knows that the
// server does: it cannot see pings.

import { HEARTBEAT } from './frames.js';

/** A beat at least this often, whatever the server's `max_age`, so that silence is found within 30 s. */
const MAX_INTERVAL = 20000;
/** The server is silent if nothing comes for this long after a beat: a first look, and a second soon after it. */
const FIRST_LOOK = 7000;
const SECOND_LOOK = 1000;
/** A look that is later than this shows that the page stood still, and proves nothing of the server. */
const LATE = 2500;

/** Beats on one socket, and calls `onSilence` once if the server answered before and does not any more. */
export class Heart {
  #send;
  #onSilence;
  #env;
  #stop;
  #answers = false;
  #look = null;

  constructor(maxAge, { send, onSilence, env }) {
    this.#send = send;
    this.#onSilence = onSilence;
    this.#env = env;
    this.#stop = every(Math.max(1, Math.min(MAX_INTERVAL, Math.floor(maxAge / 3))), () => this.beat(), env);
  }

  beat() {
    this.#send(HEARTBEAT);
    if (this.#answers && this.#look === null) this.#watch();
  }

  /** A frame came, whatever it was. */
  heard() { this.#forget(); }

  /** The server answered a beat, so it is one that answers them. */
  answered() { this.#answers = true; }

  stop() {
    this.#stop();
    this.#forget();
  }

  #watch() { this.#lookIn(FIRST_LOOK, () => this.#lookIn(SECOND_LOOK, () => this.#onSilence())); }

  /** Frames that came while the page stood still are read after its timers, so a late look begins again. */
  #lookIn(delay, then) {
    const due = this.#env.now() + delay;
    this.#look = this.#env.setTimeout(() => {
      this.#look = null;
      if (this.#env.now() - due <= LATE) then();
      else this.beat();
    }, delay);
  }

  #forget() {
    if (this.#look !== null) this.#env.clearTimeout(this.#look);
    this.#look = null;
  }
}

/**
 * Calls `beat` every `interval` milliseconds until the returned function is called.
 *
 * From a Worker, because browsers slow the timers of a hidden page to one a minute, which would make it stale; from
 * the page's own timer where a Worker is missing or blocked by policy (which some browsers report by an event only).
 */
function every(interval, beat, env) {
  let stop;
  const onPage = () => {
    const timer = env.setInterval(beat, interval);
    stop = () => env.clearInterval(timer);
  };
  try {
    const source = new Blob([`setInterval(() => postMessage(0), ${interval})`], { type: 'text/javascript' });
    const url = URL.createObjectURL(source);
    const worker = new env.Worker(url);
    stop = () => {
      worker.onmessage = worker.onerror = null;
      worker.terminate();
      URL.revokeObjectURL(url);
    };
    worker.onmessage = () => beat();
    worker.onerror = () => { stop(); onPage(); };
  } catch {
    onPage();
  }
  return () => stop();
}
