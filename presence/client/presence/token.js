/**
 * The secret by which this tab has its presence again. The browser remembers it as long as the tab, through reloads;
 * who comes from a copy of the tab has the same one, until the server says so by 4409.
 */
export class Token {
  /** Those in use by connections of this page, by what the tab remembers. */
  static #held = new WeakMap();
  #key;
  #env;
  #text = null;
  #holds = false;

  /** @param {string} name  of what it is: connections of one name have the same token, one after the other */
  constructor(name, env) {
    this.#key = `presence.session ${name}`;
    this.#env = env;
  }

  /** Takes the tab's token, or a fresh one if another connection of this page uses it just now. */
  hold() {
    if (this.#text !== null) return;
    this.#holds = !this.#inUse.has(this.#key);
    if (this.#holds) this.#inUse.add(this.#key);
    const known = this.#holds ? this.#recall() : null;
    if (known !== null) this.#text = known;
    else this.renew();
  }

  letGo() {
    if (this.#holds) this.#inUse.delete(this.#key);
    this.#holds = false;
    this.#text = null;
  }

  renew() {
    this.#text = Array.from(this.#env.bytes(16), (byte) => byte.toString(16).padStart(2, '0')).join('');
    if (!this.#holds) return;
    try { this.#env.storage?.setItem(this.#key, this.#text); } catch { /* full or forbidden: lost with the page */ }
  }

  addTo(url) {
    // Not by `searchParams`, which would spell the rest of the query anew.
    return `${url.href}${url.search ? '&' : '?'}session=${this.#text}`;
  }

  get #inUse() {
    const memory = this.#env.storage ?? Token;
    if (!Token.#held.has(memory)) Token.#held.set(memory, new Set());
    return Token.#held.get(memory);
  }

  #recall() {
    try {
      const text = this.#env.storage?.getItem(this.#key) ?? null;
      return text !== null && /^[\w-]{16,128}$/.test(text) ? text : null;
    } catch { return null; }
  }
}
