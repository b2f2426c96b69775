// The connection to the router: it delivers updates, and connects again when it is lost.

const STALLED = 15000; // milliseconds without an update after which the connection is given up
const PAUSE = 1000;

/**
 * Follow the fleet until `stop` is called.
 *
 * `onUpdate(update, first)` gets what changed; the `first` update of a connection is complete.
 * `onLost(text)` is called when the connection is lost, or was refused for a reason.
 */
export function follow(parameters, onUpdate, onLost) {
  const stopped = new AbortController();
  void keepReading(parameters, onUpdate, onLost, stopped.signal);
  return () => stopped.abort();
}

async function keepReading(parameters, onUpdate, onLost, stopped) {
  while (!stopped.aborted) {
    try {
      await read(parameters, onUpdate, stopped);
      onLost("");
    } catch (error) {
      if (stopped.aborted) return;
      onLost(error instanceof Refused ? error.message : "");
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

class Refused extends Error {}

async function read(parameters, onUpdate, stopped) {
  const stalled = new AbortController();
  let watchdog = setTimeout(() => stalled.abort(), STALLED);
  try {
    const signal = AbortSignal.any([stopped, stalled.signal]);
    const response = await fetch(`/events?${parameters}`, { signal });
    if (response.status === 401) return void location.assign("/login");
    if (!response.ok) throw new Refused((await response.json()).error);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let first = true;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const event of events) {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => stalled.abort(), STALLED);
        onUpdate(JSON.parse(event.slice("data: ".length)), first);
        first = false;
      }
    }
  } finally {
    clearTimeout(watchdog);
  }
}

/** Ask the router to act; return what it says. Throws an error with its `reason`. */
export async function act(action, argument) {
  return answer(
    await fetch(`/actions/${action}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(argument),
    }),
  );
}

/** Return the history of a model. */
export async function history(model) {
  return answer(await fetch(`/history?model=${encodeURIComponent(model)}`));
}

async function answer(response) {
  if (response.status === 401) location.assign("/login");
  const said = await response.json();
  if (!response.ok) throw Object.assign(new Error(said.error), { reason: said.reason });
  return said;
}
