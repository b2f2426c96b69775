// The page: it renders what the router sends, and sends what the buttons do.

import { h, render } from "./vendor/preact.mjs";
import { Dialogs } from "./dialogs.js";
import { Matrix, moveInMatrix } from "./matrix.js";
import { act, follow } from "./stream.js";
import { age, clock, count, duration, healed } from "./words.js";

const SHOWN_AT_FIRST = { rows: 40, columns: 16 };

const state = {
  parts: {}, // what the router sent, by key
  now: 0, // the registry's time of the last update
  receivedAt: 0, // when it came, on the browser's clock
  lost: null, // null while connected, else why the connection was lost, "" if unknown
  query: "",
  show: "usual",
  ...SHOWN_AT_FIRST,
  open: null, // {kind: "model" | "node" | "help", name}
  confirm: null, // {text, label, then}
  notice: null, // {text, failed}
};

let stop = () => {};
let scheduled = false;

export function draw() {
  if (scheduled) return;
  scheduled = true;
  setTimeout(() => {
    scheduled = false;
    render(h(Page), document.getElementById("root"));
  });
}

export function set(changes) {
  Object.assign(state, changes);
  draw();
}

/** Return the registry's time now. */
function now() {
  return state.now + (performance.now() - state.receivedAt) / 1000;
}

function connect() {
  stop();
  const { query, show, rows, columns, open } = state;
  const asked = { q: query, show, rows, columns };
  if (open?.kind === "model" || open?.kind === "node") asked[open.kind] = open.name;
  stop = follow(
    new URLSearchParams(asked),
    (update, first) => {
      if (first) state.parts = {};
      Object.assign(state.parts, update.set);
      for (const key of update.unset) delete state.parts[key];
      set({ now: update.now, receivedAt: performance.now(), lost: null });
    },
    (why) => set({ lost: why }),
  );
}

function look(changes) {
  set(changes);
  connect();
}

// Acting

const NOTICE_SECONDS = 8;
let noticeEnds = 0;

function notify(text, failed) {
  set({ notice: { text, failed } });
  clearTimeout(noticeEnds);
  if (!failed) noticeEnds = setTimeout(() => set({ notice: null }), NOTICE_SECONDS * 1000);
}

/** Act, and show what the router says. Unloading is confirmed if it would cut calls off. */
export async function perform(action, argument, calls = 0) {
  if (action === "unload" && calls && !argument.force) {
    const where = argument.node ? `${argument.model} on ${argument.node}` : argument.model;
    return ask(`${where} has ${count(calls, "call")} in flight.`, argument);
  }
  try {
    notify((await act(action, argument)).text, false);
  } catch (error) {
    if (error.reason === "IN_USE" && !argument.force) return ask(error.message, argument);
    notify(`${error.message}`, true);
  }
}

function ask(why, argument) {
  set({
    confirm: {
      text: `${why} Unloading it now cuts the calls off, and their callers get an error.`,
      label: "Unload anyway",
      then: () => perform("unload", { ...argument, force: true }),
    },
  });
}

// Parts of the page

export function Button({ label, onClick, title, main, autofocus }) {
  // What can be seen must begin what is read out.
  const name = title?.startsWith(label) ? title : undefined;
  return h("button", { type: "button", class: main ? "main" : "", onClick, title, autofocus, "aria-label": name }, label);
}

export function ModelLink({ name }) {
  return h("a", { href: `#model=${encodeURIComponent(name)}` }, name);
}

export function NodeLink({ name }) {
  return h("a", { href: `#node=${encodeURIComponent(name)}` }, name);
}

export function Ago({ at, now }) {
  return h("time", { title: clock(at), datetime: new Date(at * 1000).toISOString() }, age(now - at));
}

const LABELS = {
  forgive: () => "Forgive",
  drain: (problem) => `Drain ${problem.node}`,
  undrain: (problem) => `End the drain of ${problem.node}`,
};

const DEEDS = {
  forgive: ({ model, node }) => perform("forgive", { model, node }),
  drain: ({ node }) => perform("drain", { node }),
  undrain: ({ node }) => perform("drain", { node, off: true }),
};

function Problem({ problem, now }) {
  const { severity, what, cure, since, until, model, node, actions = [] } = problem;
  return h(
    "li",
    { class: `problem ${severity}` },
    h("span", { class: "tag" }, severity),
    h(
      "div",
      null,
      h("p", { class: "what" }, what, since ? h("span", { class: "since" }, ` Since ${clock(since)}.`) : null),
      h("p", { class: "cure" }, h("b", null, "What to do: "), cure),
    ),
    h(
      "div",
      { class: "deeds" },
      actions.map((action) =>
        h(Button, { key: action, label: LABELS[action](problem), onClick: () => DEEDS[action](problem) }),
      ),
      model ? h("a", { href: `#model=${encodeURIComponent(model)}` }, "History") : null,
      node && !model ? h("a", { href: `#node=${encodeURIComponent(node)}` }, "Details") : null,
      until ? h("span", { class: "countdown", "aria-hidden": "true" }, `tries again in ${age(until - now)}`) : null,
    ),
  );
}

function Status({ fleet, problems, now }) {
  const wrong = problems.some((problem) => problem.severity !== "note");
  return h(
    "section",
    { "aria-label": "Problems" },
    h("h2", { class: `status ${wrong ? "bad" : "good"}`, id: "status", role: "status" }, fleet.summary),
    h(
      "ul",
      { class: "problems", id: "problems", "aria-live": "polite", "aria-relevant": "additions" },
      problems.map((problem) =>
        h(Problem, { key: `${problem.kind} ${problem.node} ${problem.model} ${problem.count}`, problem, now }),
      ),
    ),
  );
}

function Connection({ now }) {
  if (state.lost === null) return h("span", { class: "live" }, "live");
  const old = age(now - state.now);
  return h(
    "span",
    { class: "lost", role: "alert" },
    state.lost || "connection lost",
    h("span", { "aria-hidden": "true" }, `, ${old} old`),
  );
}

function Heals({ heals }) {
  return h(
    "section",
    { "aria-labelledby": "heals" },
    h("h2", { id: "heals" }, "Heals"),
    heals.length
      ? h(
          "ol",
          { class: "feed" },
          heals.map((heal) =>
            h(
              "li",
              { key: `${heal.at} ${heal.node} ${heal.model}` },
              h("time", null, clock(heal.at)),
              h("span", null, healed(heal), " ", h("a", { href: `#model=${encodeURIComponent(heal.model)}` }, "history")),
            ),
          ),
        )
      : h("p", { class: "none" }, "No replica has been stale."),
  );
}

function Loads({ loads, now }) {
  return h(
    "section",
    { "aria-labelledby": "loads" },
    h("h2", { id: "loads" }, "Loads in progress"),
    loads.length
      ? h(
          "ul",
          { class: "feed" },
          loads.map((load) =>
            h(
              "li",
              { key: `${load.model} ${load.node}` },
              h("time", null, age(now - load.since)),
              h("span", null, h(ModelLink, { name: load.model }), ` ${loading(load, now)}`),
            ),
          ),
        )
      : h("p", { class: "none" }, "None."),
  );
}

function loading(load, now) {
  const said = [load.node ? `on ${load.node}` : `has no node yet: ${load.why}`];
  if (load.usualSeconds) said.push(`the last one took ${duration(load.usualSeconds)}`);
  if (load.victim) said.push(`takes the place of ${load.victim}`);
  if (load.hedge) said.push("since another load takes long");
  if (!load.owner) said.push("for another client than a router");
  if (load.waiting) {
    said.push(`${count(load.waiting, "request")} waiting, the oldest for ${age(now - load.waitingSince)}`);
  } else {
    said.push("nobody waits");
  }
  return said.join("; ");
}

const KINDS = { quarantine: "quarantined on", "back-off": "not loaded again on", doubt: "not believed from", retry: "gets no further replica" };

function Pauses({ pauses, now }) {
  return h(
    "section",
    { "aria-labelledby": "pauses" },
    h("h2", { id: "pauses" }, "Quarantines and pauses"),
    pauses.length
      ? h(
          "ul",
          { class: "feed" },
          pauses.map((pause) =>
            h(
              "li",
              { key: `${pause.kind} ${pause.node} ${pause.model}` },
              h("time", { class: "countdown" }, age(pause.until - now)),
              h("span", null, h(ModelLink, { name: pause.model }), ` ${[KINDS[pause.kind], pause.node].filter(Boolean).join(" ")}: ${pause.why}`),
              h(Button, {
                label: "Forgive",
                title: `Try ${pause.model} again now`,
                onClick: () => perform("forgive", { model: pause.model, node: pause.node ?? "" }),
              }),
            ),
          ),
        )
      : h("p", { class: "none" }, "None."),
  );
}

function Refusals({ refusals, now }) {
  return h(
    "section",
    { "aria-labelledby": "refusals" },
    h("h2", { id: "refusals" }, "Refusals of the last five minutes"),
    refusals.length
      ? h(
          "ul",
          { class: "feed" },
          refusals.map((refusal) =>
            h(
              "li",
              { key: `${refusal.reason} ${refusal.model} ${refusal.node}` },
              h("b", { class: "number" }, `${refusal.count}×`),
              h(
                "span",
                null,
                h("code", null, refusal.reason),
                " ",
                refusal.model ? h(ModelLink, { name: refusal.model }) : null,
                ` ${refusal.text} `,
                h("small", null, "last ", h(Ago, { at: refusal.last, now }), " ago"),
              ),
            ),
          ),
        )
      : h("p", { class: "none" }, "None."),
  );
}

function Models({ models }) {
  return h(
    "section",
    { "aria-labelledby": "models" },
    h("h2", { id: "models" }, "Models"),
    h(
      "table",
      { class: "list" },
      h("thead", null, h("tr", null, ["Model", "Backend", "Replicas", "Calls", "Waiting", "Why", ""].map((name) => h("th", { scope: "col", key: name }, name)))),
      h(
        "tbody",
        null,
        models.list.map((model) =>
          h(
            "tr",
            { key: model.model },
            h("th", { scope: "row" }, h(ModelLink, { name: model.model })),
            h("td", { "data-label": "backend" }, model.backend),
            h("td", { "data-label": "replicas" }, `${model.present ?? 0} of ${model.wanted ?? 0}`, model.loading ? `, ${model.loading} loading` : ""),
            h("td", { "data-label": "calls" }, model.calls ?? 0),
            h("td", { "data-label": "waiting" }, model.waiting ?? 0),
            h("td", { class: "why" }, model.why ?? ""),
            h(
              "td",
              null,
              h(
                "div",
                { class: "deeds" },
                h(Button, { label: "Load", title: `Load ${model.model}`, onClick: () => perform("load", { model: model.model }) }),
                h(Button, { label: "Unload", title: `Unload ${model.model} from all nodes`, onClick: () => perform("unload", { model: model.model }, model.calls) }),
              ),
            ),
          ),
        ),
      ),
    ),
    models.hidden ? h(More, { hidden: models.hidden, noun: "more model" }) : null,
  );
}

export function More({ hidden, noun }) {
  return h(
    "p",
    { class: "more" },
    `${count(hidden, noun)} not shown: ${state.show === "all" || state.query ? "search for them" : "nothing to report there; search for them"}, or `,
    h(Button, { label: "show more", onClick: () => look({ show: "all", rows: state.show === "all" ? state.rows + 40 : state.rows, columns: state.columns }) }),
  );
}

function Registry({ fleet, now }) {
  const { registry, routers } = fleet;
  const parts = [
    `Registry: ${registry.kind}, ${registry.up ? "up" : "down"}${registry.since ? ` since ${clock(registry.since)}` : ""}`,
    `revision ${registry.revision ?? 0}`,
  ];
  if (registry.error) parts.push(registry.error);
  if (registry.waitingChanges) parts.push(`${count(registry.waitingChanges, "change")} waiting to be written`);
  if (registry.readAt) parts.push(`last read ${age(now - registry.readAt)} ago`);
  const behind = (router) => Number(registry.revision ?? 0) - Number(router.seenRevision ?? 0);
  return h(
    "section",
    { "aria-labelledby": "registry" },
    h("h2", { id: "registry" }, "Registry and routers"),
    h("p", null, `${parts.join("; ")}.`),
    h(
      "ul",
      { class: "plain" },
      routers.map((router) =>
        h(
          "li",
          { key: router.name },
          `${router.name}${router.name === fleet.router ? " (this router)" : ""}: alive`,
          behind(router) > 0 ? `, ${count(behind(router), "revision")} behind` : "",
        ),
      ),
    ),
  );
}

function Toolbar() {
  return h(
    "form",
    { class: "toolbar", role: "search", onSubmit: (event) => event.preventDefault() },
    h("label", { for: "search" }, "Search"),
    h("input", {
      id: "search",
      type: "search",
      placeholder: "node, model, backend or address",
      value: state.query,
      onInput: (event) => searched(event.target.value),
    }),
    h("label", { for: "show" }, "Show"),
    h(
      "select",
      { id: "show", value: state.show, onChange: (event) => look({ show: event.target.value, ...SHOWN_AT_FIRST }) },
      h("option", { value: "usual" }, "what fits"),
      h("option", { value: "problems" }, "only problems"),
      h("option", { value: "all" }, "everything"),
    ),
  );
}

let typing = 0;

function searched(query) {
  set({ query });
  clearTimeout(typing);
  typing = setTimeout(() => look(SHOWN_AT_FIRST), 200);
}

function Notice() {
  const { notice } = state;
  return h(
    "div",
    { class: `notice ${notice ? "" : "empty"} ${notice?.failed ? "failed" : ""}`, role: "status", "aria-live": "assertive" },
    notice ? [h("span", null, notice.text), h(Button, { label: "Close", onClick: () => set({ notice: null }) })] : null,
  );
}

function Page() {
  const { parts } = state;
  const { fleet, problems } = parts;
  if (!fleet) return h("p", { class: "waiting" }, state.lost || "Connecting to the router…");
  const time = now();
  const wrong = problems.filter((problem) => problem.severity !== "note").length;
  document.title = `${wrong ? `(${wrong}) ` : ""}grpcerrors-router ${fleet.router}`;
  const rows = parts.matrix.rows.map((name) => parts[`row:${name}`]);
  return [
    h(
      "header",
      { key: "header" },
      h("h1", null, "grpcerrors-router ", h("small", null, fleet.router)),
      h(Connection, { now: time }),
      h(Button, { label: "Keys", title: "Keyboard shortcuts (?)", onClick: () => (location.hash = "help") }),
      document.body.dataset.login === undefined
        ? null
        : h("form", { method: "post", action: "/logout" }, h("button", { type: "submit" }, "Log out")),
    ),
    h(
      "main",
      { key: "main", class: state.lost === null ? "" : "stale" },
      h(Status, { fleet, problems, now: time }),
      h(Toolbar),
      h(Matrix, { matrix: parts.matrix, rows, loads: parts.loads, now: time, state, look }),
      h(
        "div",
        { class: "columns" },
        h("div", null, h(Heals, { heals: parts.heals })),
        h("div", null, h(Loads, { loads: parts.loads, now: time }), h(Pauses, { pauses: parts.pauses, now: time }), h(Refusals, { refusals: parts.refusals, now: time })),
      ),
      h(Models, { models: parts.models }),
      h(Registry, { fleet, now: time }),
    ),
    h(Dialogs, { key: "dialogs", state, now: time, Notice }),
    state.open || state.confirm ? null : h(Notice, { key: "notice" }),
  ];
}

// Keys and addresses

/** Close what is open. */
export function leave() {
  window.history.pushState(null, "", location.pathname);
  onHash();
}

function onHash() {
  const [kind, name] = location.hash.slice(1).split("=", 2);
  const known = kind === "help" || ((kind === "model" || kind === "node") && name);
  const before = state.open?.kind;
  set({ open: known ? { kind, name: decodeURIComponent(name ?? "") } : null });
  const helpOnly = (kind) => kind === undefined || kind === "help";
  if (!helpOnly(before) || !helpOnly(state.open?.kind)) connect();
}

const KEYS = {
  "/": () => document.getElementById("search").focus(),
  p: () => look({ show: "problems", ...SHOWN_AT_FIRST }),
  a: () => look({ show: "all", ...SHOWN_AT_FIRST }),
  u: () => look({ show: "usual", query: "", ...SHOWN_AT_FIRST }),
  "?": () => (location.hash = "help"),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || state.open || state.confirm) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (moveInMatrix(event)) return;
  const key = KEYS[event.key];
  if (key) {
    event.preventDefault();
    key();
  }
}

addEventListener("hashchange", onHash);
addEventListener("popstate", onHash);
addEventListener("keydown", onKey);
setInterval(draw, 1000); // ages and countdowns
onHash();
if (!state.open || state.open.kind === "help") connect();
