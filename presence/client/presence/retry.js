// When to try again: by the close code, by how long the connection has been lost, and by chance. No sockets, no timers.

/** This page goes into the browser's back/forward cache: the server holds its presence, as if the page were reloaded. */
export const ASIDE = 4300;
export const DONE = 1000;
/** What a socket reports that ended without a Close, or never opened. */
export const LOST = 1006;
/** Another tab came with our token: the copy of this one, since a browser copies what a tab remembers. */
export const SUPERSEDED = 4409;
const LIMIT_EXCEEDED = 1008;
const RESTARTING = 1012;

const isBetween = (code, low, high) => code >= low && code <= high;
/** Coming back by itself would be wrong. */
export const isFinal = (code) => code === DONE || code === LIMIT_EXCEEDED || isBetween(code, 4000, 4099);
const isLater = (code) => isBetween(code, 4100, 4199);
const isNow = (code) => isBetween(code, 4200, 4299);

/** A connection that lived this long counts as a success, so that one which dies at once is not retried hotly. */
const SETTLED = 10000;
/** Pages come back to a restarting server spread over this time at most, well within its grace. */
const RESTART_SPREAD = 2000;
/** The random delay before coming back where the server wants it now. */
const NOW_SPREAD = 250;
/** "Come back later" is no sooner than this. */
const LATER = 1000;
/** While a lost presence is held, a try is made at least this many times per grace. */
const TRIES_PER_GRACE = 5;
/** For so many graces after a loss the tries stay that close together, since the grace may begin after a slow restart. */
const GRACES = 3;
/** So many handshakes in a row that failed before the socket opened look like a refusal. */
const REFUSALS = 3;
/**
 * How long a connection may make no progress until it has its roster. It doubles with each try, for lines so slow that one
 * frame takes longer: a page sees whole frames only.
 */
const PATIENCE = 15000;
const MAX_PATIENCE = 120000;
/** However short the grace is, a handshake may take this long. */
const SHORTEST_HANDSHAKE = 2000;

export class Retry {
  #minDelay;
  #maxDelay;
  #grace;
  #attempts = 0;
  #exponent = 0;
  #refusals = 0;
  #timeouts = 0;
  #isLater = false;
  #liveSince = null;
  #lostAt = null;

  constructor({ minDelay, maxDelay, grace }) {
    this.#minDelay = minDelay;
    this.#maxDelay = maxDelay;
    this.#grace = grace;
  }

  get attempts() { return this.#attempts; }

  /** How long a connection that waits for its roster may make no progress. */
  get patience() { return Math.min(MAX_PATIENCE, PATIENCE * 2 ** this.#timeouts); }

  /**
   * How long the handshake may take. After a loss less than the grace, doubling with each try: a server that hangs, or a packet that
   * was lost at a restart, must not use the grace up.
   */
  handshake(now) {
    if (!this.#mayBeHeld(now)) return this.patience;
    return Math.min(this.patience, Math.max(SHORTEST_HANDSHAKE, this.#grace / 2) * 2 ** this.#timeouts);
  }

  /** The connection serves: its first frame came. */
  live(now) {
    this.#liveSince ??= now;
    this.#refusals = 0;
  }

  /** All that went before is forgotten. */
  reset() {
    this.#attempts = this.#exponent = this.#refusals = this.#timeouts = 0;
    this.#isLater = false;
    this.#liveSince = this.#lostAt = null;
  }

  /**
   * The connection ended, or was given up. `opened`: the handshake was answered by 101. `online`: as far as the page
   * knows there is a network. `chance` is from 0 to 1.
   *
   * @returns {{attempt: number, delay: number, refused: boolean}}
   */
  lost({ code, why, opened, online }, now, chance) {
    if (this.#liveSince !== null) {
      if (now - this.#liveSince >= SETTLED) this.reset();
      this.#lostAt ??= now;
      this.#liveSince = null;
    }
    this.#timeouts += why === 'timeout' ? 1 : 0;
    this.#isLater ||= isLater(code);
    if (opened) this.#refusals = 0;
    else if (online && why === 'lost') this.#refusals += 1;
    const mayBeHeld = this.#mayBeHeld(now);
    const delay = this.#delay(code, mayBeHeld, chance);
    this.#attempts += 1;
    return { attempt: this.#attempts, delay, refused: this.#refusals >= REFUSALS && !mayBeHeld };
  }

  /** The presence that was lost may still be held, or be held again once the server has restarted. */
  #mayBeHeld(now) {
    return this.#lostAt !== null && !this.#isLater && now - this.#lostAt < GRACES * this.#grace;
  }

  #delay(code, mayBeHeld, chance) {
    const first = this.#attempts === 0;
    const hurried = Math.min(this.#maxDelay, Math.max(this.#minDelay, this.#grace / TRIES_PER_GRACE));
    const limit = mayBeHeld ? hurried : this.#maxDelay;
    const ceiling = Math.min(limit, this.#minDelay * 2 ** this.#exponent);
    // The exponent stands still at the limit, so that the back-off grows from there once the grace is over.
    if (ceiling < limit) this.#exponent += 1;
    // From half to full: never two tries at once, and crowds spread out all the same.
    const jittered = Math.round(ceiling * (0.5 + chance / 2));
    if (isLater(code)) return Math.max(LATER + Math.round(chance * LATER), jittered);
    if (isNow(code) && first) return Math.round(chance * NOW_SPREAD);
    if (code === RESTARTING) return Math.round(chance * Math.max(ceiling, this.#restartSpread(hurried)));
    return jittered;
  }

  #restartSpread(hurried) { return this.#grace > 0 ? Math.min(RESTART_SPREAD, hurried) : RESTART_SPREAD; }
}
