/**
 * Calls `beat` every `interval` milliseconds until the returned function is called.
 *
 * From a Worker, because browsers slow the timers of a hidden page to one a minute, which would make it stale; from
 * the page's own timer where a Worker is missing or blocked by policy (which some browsers tell by an event only).
 */
export function every(interval, beat, env) {
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
