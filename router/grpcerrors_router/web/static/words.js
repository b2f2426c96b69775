// Times, counts and sentences.

const EVIDENCE = {
  details: "typed error",
  trailer: "typed error",
  text: "words of an error",
  code: "code of an error",
  mismatch: "holds another model",
  heartbeat: "not in its heartbeat",
  reconnect: "connection lost",
};

const HAPPENED = {
  loaded: "loaded on",
  moved: "moved to",
  failed: "not loaded on",
  healed: "gone from",
  evicted: "unloaded from",
  restarted: "lost when its node restarted:",
};

/** Return the time of day of a Unix time, with the date if it is not of today. */
export function clock(at) {
  const date = new Date(at * 1000);
  const time = date.toTimeString().slice(0, 8);
  return date.toDateString() === new Date().toDateString()
    ? time
    : `${date.toLocaleDateString("en-CA")} ${time}`;
}

/** Return a duration in a few characters. */
export function duration(seconds) {
  const s = Math.max(0, seconds);
  if (s > 0 && s < 0.1) return `${Math.ceil(s * 1000)} ms`;
  if (s < 9.95 && s % 1 >= 0.05) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

/** Return an age in whole units, so that it changes at most once a second. */
export function age(seconds) {
  return duration(Math.floor(Math.max(0, seconds)));
}

/** Return the end of a generation, which tells two loads of a model apart. */
export function short(generation) {
  return generation.length > 5 ? `g…${generation.slice(-4)}` : `g${generation}`;
}

export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** Return one entry of the heal log as a sentence, without its time. */
export function healed(heal) {
  const seen = `${EVIDENCE[heal.evidence] ?? heal.evidence}, generation ${heal.generation}`;
  if (heal.action === "kept") {
    return `${heal.model} was kept on ${heal.node}: the same error (${seen}) came right after a reload, so it is no evidence for a while.`;
  }
  const gone = `${heal.model} was gone from ${heal.node} (${seen})`;
  if (heal.action === "reloaded") return `${gone}; the node loaded it again.`;
  if (!heal.newNode) return `${gone}; dropped.`;
  const request = heal.requestId ? `request ${heal.requestId}` : "a request";
  return `${gone}; ${request} was answered by ${heal.newNode} (generation ${heal.newGeneration}) ${duration(heal.seconds ?? 0)} later.`;
}

/** Return one entry of a model's history as a sentence, without its time. */
export function happened(entry) {
  const took = entry.seconds ? `, in ${duration(entry.seconds)}` : "";
  const generation = entry.generation ? ` (generation ${entry.generation}${took})` : "";
  const why = entry.kind === "healed" ? (EVIDENCE[entry.why] ?? entry.why) : entry.why;
  const what = `${HAPPENED[entry.kind] ?? entry.kind} ${entry.node ?? ""}`.trim();
  return `${what}${generation}${why ? `: ${why}` : ""}`;
}
