// Questions to the server of this page: JSON by ETag, so that what did not change costs nothing.

const tags = new Map();

/** An error that the server told, with its fields. */
export class Told extends Error {
  constructor(status, error) {
    super(error.message);
    Object.assign(this, error, { status });
  }
}

async function answered(response) {
  const body = await response.json();
  if (!body.success) throw new Told(response.status, body.error);
  return body;
}

/** The answer to a GET; null when it is the same as the last one asked under this `slot`. */
export async function get(path, parameters = {}, { slot = null, signal } = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined) query.set(name, value);
  }
  const url = query.size ? `${path}?${query}` : path;
  const known = slot && tags.get(slot);
  const headers = known && known.url === url ? { "If-None-Match": known.tag } : {};
  const response = await fetch(url, { headers, signal, cache: "no-store" });
  if (response.status === 304) return null;
  const body = await answered(response);
  if (slot) tags.set(slot, { url, tag: response.headers.get("ETag") });
  return body;
}

/** The answer to a POST of JSON. */
export async function post(path, asked, { signal } = {}) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(asked);
  return answered(await fetch(path, { method: "POST", headers, body, signal, cache: "no-store" }));
}

/** Run `work` again and again, `pace()` milliseconds apart.
 *
 * Never twice at once, and never in a hidden tab.
 * `trouble` is called with the error, or with null once it is over. Returns a function that runs
 * it now.
 */
export function again(pace, work, trouble) {
  let timer = null;
  let failures = 0;
  let running = false;
  async function turn() {
    clearTimeout(timer);
    if (document.hidden || running) return;
    running = true;
    try {
      await work();
      failures = 0;
      trouble(null);
    } catch (error) {
      if (error.name !== "AbortError") {
        failures += 1;
        trouble(error);
      }
    } finally {
      running = false;
      timer = setTimeout(turn, pace() * Math.min(2 ** failures, 16));
    }
  }
  document.addEventListener("visibilitychange", turn);
  turn();
  return turn;
}
