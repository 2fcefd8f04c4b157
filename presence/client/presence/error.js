/**
 * Why a call was refused, or what the server complained of.
 *
 * Codes of the client: `bad_name`, `bad_meta`, `too_large`, `reserved_text`, `not_live`, `malformed`. Codes of the
 * server: `bad_command`, `too_large`, `not_joined`, `unavailable`, `removed`, `too_fast`.
 */
export class PresenceError extends Error {
  constructor(code, message) {
    super(message);
    this.name = 'PresenceError';
    this.code = code;
  }
}
