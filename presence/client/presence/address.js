// Where the sockets are: one URL or several, given as such or by the names of the room and of the user.

import { PresenceError } from './error.js';
import { bytes } from './frames.js';

const MAX_NAME = 255;
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
/** They change the direction of text, and so could make a name look like another. */
const DIRECTION = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;
/** Nothing of it can be seen. */
const BLANK = /^[\s\p{Default_Ignorable_Code_Point}\u2800]*$/u;

/** The URLs to dial, one after the other: one, a list that is gone round, or what a function returns for each try. */
export class Addresses {
  #page;
  #next;
  #url;
  #room;
  #key;

  constructor(target, page) {
    this.#page = page;
    if (Array.isArray(target) && target.length === 0) throw new TypeError('a list of targets has at least one');
    let tries = 0;
    if (typeof target === 'function') this.#next = () => { tries += 1; return target(tries); };
    else if (Array.isArray(target)) this.#next = () => { tries += 1; return target[(tries - 1) % target.length]; };
    else this.#next = () => target;
    this.advance();
    // Several nodes of one service know the same tokens, so the host is no part of what a token is remembered by.
    const one = typeof target !== 'function' && !Array.isArray(target);
    this.#key = one ? this.#url.href : `${this.#url.pathname}${this.#url.search}`;
  }

  get url() { return this.#url; }
  /** The room that the first target gave by name; null if it was a URL. */
  get room() { return this.#room; }
  /** What a tab remembers its token by. */
  get key() { return this.#key; }

  /** The room that the URL names by the last segment of its path. */
  get lastSegment() {
    try { return decodeURIComponent(this.#url.pathname.split('/').at(-1)); } catch { return ''; }
  }

  /** On to the URL of the next try. */
  advance() {
    const target = this.#next();
    this.#url = resolve(target, this.#page);
    this.#room ??= target?.room ?? null;
  }
}

function resolve(target, page) {
  const isName = typeof target === 'object' && target !== null && !(target instanceof URL);
  const url = new URL(isName ? pathTo(target) : target, page);
  url.protocol = url.protocol.replace(/^http/, 'ws');
  url.hash = '';
  return url;
}

function pathTo({ path = '/ws', room, user }) {
  checkName('room', room);
  if (room === '.' || room === '..') throw new PresenceError('bad_name', 'a URL cannot carry the rooms "." and ".."');
  if (user !== undefined && user !== null) checkName('user', user);
  return `${path}/${encodeURIComponent(room)}${user == null ? '' : `?user=${encodeURIComponent(user)}`}`;
}

function checkName(kind, name) {
  const refuse = (why) => { throw new PresenceError('bad_name', `a ${kind} ${why}`); };
  if (typeof name !== 'string' || name === '' || bytes(name) > MAX_NAME) refuse(`is a text of 1 to ${MAX_NAME} bytes`);
  if (CONTROL.test(name) || /[\ud800-\udfff]/u.test(name)) refuse('has no control characters');
  if (DIRECTION.test(name)) refuse('has no characters that change the direction of text');
  if (BLANK.test(name)) refuse('has something that can be seen');
}
