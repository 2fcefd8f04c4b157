// What the server's frames look like, and which texts it takes for something else than a message.

/** The server answers this one, so that a page learns whether it is still there. */
export const HEARTBEAT = '{"type":"heartbeat"}';
/** The server swallows this one without an answer. */
const PLAIN_HEARTBEAT = '"heartbeat"';
const COMMANDS = new Set(['update', 'leave', 'join']);
/** The server's default limit of a frame. */
const MAX_TEXT = 64 * 1024;

/** A repeated `type` counts as its last, for JSON.parse and for the server alike. */
export function isReserved(text) {
  if (text === PLAIN_HEARTBEAT) return true;
  const value = parse(text);
  if (!isObject(value)) return false;
  return COMMANDS.has(value.type) || (value.type === 'heartbeat' && Object.keys(value).length === 1);
}

export function parse(text) {
  try { return JSON.parse(text); } catch { return undefined; }
}

export const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isList = (value, isItem) => Array.isArray(value) && value.every((item) => isObject(item) && isItem(item));
const isPresence = ({ id, meta }) => typeof id === 'string' && isObject(meta);
const isEntry = (entry) => typeof entry.user === 'string' && isPresence(entry);
const isPosition = ({ version, anonymous }) => Number.isInteger(version) && Number.isInteger(anonymous);
export const isState = (frame) => isPosition(frame) && frame.epoch != null && typeof frame.me === 'string'
  && isList(frame.members, ({ user, presences }) => typeof user === 'string' && isList(presences, isPresence));
export const isDiff = (frame) => isPosition(frame) && Number.isInteger(frame.from)
  && isList(frame.joins, isEntry) && isList(frame.updates, isEntry)
  && isList(frame.leaves, ({ user, id }) => typeof user === 'string' && typeof id === 'string');

/** A part of a large diff, or a further page of a large state: also the last of these, which leads to no other version. */
export const isPart = ({ more, from, version }) => more === true || from === version;

export const bytes = (text) => new TextEncoder().encode(text).length;

export const isTooLarge = (text) => bytes(text) > MAX_TEXT;
