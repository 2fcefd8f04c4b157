/**
 * What the page goes through and a connection must know: a network that is back, eyes that are back (`wake`), and the way
 * into the browser's back/forward cache and out of it (`shelve`, `restore`).
 *
 * @returns {() => void} lets go of the page's events
 */
export function watchPage({ window, document }, { wake, shelve, restore }) {
  const watching = new AbortController();
  const until = { signal: watching.signal };
  window?.addEventListener('online', () => wake(), until);
  window?.addEventListener('pagehide', ({ persisted }) => { if (persisted) shelve(); }, until);
  window?.addEventListener('pageshow', ({ persisted }) => { if (persisted) restore(); }, until);
  document?.addEventListener('visibilitychange', () => { if (!document.hidden) wake(); }, until);
  return () => watching.abort();
}
