/** What the client takes from its surroundings. Wrapped, since a browser's timers refuse any other `this`. */
export const browser = () => ({
  WebSocket: globalThis.WebSocket,
  Worker: globalThis.Worker,
  setTimeout: (call, delay) => setTimeout(call, delay),
  clearTimeout: (timer) => clearTimeout(timer),
  setInterval: (call, delay) => setInterval(call, delay),
  clearInterval: (timer) => clearInterval(timer),
  now: () => performance.now(),
  random: () => Math.random(),
  bytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
  storage: storage(),
  report: (error) => (globalThis.reportError ?? console.error)(error),
  online: () => globalThis.navigator?.onLine !== false,
  location: globalThis.location?.href,
  window: globalThis.window,
  document: globalThis.document,
});

/** What this tab remembers; null where the page may not look at it. */
function storage() {
  try { return globalThis.sessionStorage ?? null; } catch { return null; }
}
