// The matrix of nodes and models. One cell is in the tab order; the arrow keys move to the others.

import { h } from "./vendor/preact.mjs";
import { Ago, Button, More, perform } from "./page.js";
import { age, count, short } from "./words.js";

let current = "0,0";

export function Matrix({ matrix, rows, loads, now, state, look }) {
  if (!rows.length) {
    const none = state.query ? "No node and no model matches." : state.show === "problems" ? "No node has a problem." : "No node has anything to see.";
    return h(
      "section",
      { "aria-label": "Nodes and models" },
      h("p", { class: "none" }, matrix.hiddenRows || state.query || state.show === "problems" ? none : "There are no nodes."),
      matrix.hiddenRows ? h(More, { hidden: matrix.hiddenRows, noun: "node" }) : null,
    );
  }
  const loading = Object.fromEntries(loads.filter((load) => load.node).map((load) => [`${load.node}\n${load.model}`, load]));
  return h(
    "section",
    { "aria-label": "Nodes and models" },
    h(
      "div",
      { class: "scroll", tabIndex: -1 },
      h(
        "table",
        { class: "matrix", role: "grid", "aria-label": "Nodes and models", "aria-rowcount": rows.length + 1 },
        h(
          "thead",
          null,
          h(
            "tr",
            { role: "row" },
            h("th", { role: "columnheader", class: "corner" }, "Node"),
            matrix.columns.map((model, x) =>
              h("th", { role: "columnheader", key: model, scope: "col" }, h(Stop, { x: x + 1, y: 0, href: `#model=${encodeURIComponent(model)}` }, model)),
            ),
          ),
        ),
        h("tbody", null, rows.map((row, y) => h(Row, { key: row.name, row, y: y + 1, columns: matrix.columns, loading, now }))),
      ),
    ),
    h(
      "div",
      { class: "folded" },
      matrix.hiddenRows ? h(More, { hidden: matrix.hiddenRows, noun: "more node" }) : null,
      matrix.hiddenColumns
        ? h(
            "p",
            { class: "more" },
            `${count(matrix.hiddenColumns, "more model")} on these nodes: search for them, or `,
            h(Button, { label: "show more columns", onClick: () => look({ columns: state.columns + 16 }) }),
          )
        : null,
    ),
  );
}

function Row({ row, y, columns, loading, now }) {
  const facts = [
    `${row.held} of ${row.slots}`,
    row.calls ? count(row.calls, "call") : "",
    row.lastHeard ? `heard ${age(now - row.lastHeard)} ago` : "never heard",
  ].filter(Boolean);
  const drained = Boolean(row.draining);
  return h(
    "tr",
    { role: "row", class: `node ${row.state}` },
    h(
      "th",
      { role: "rowheader", scope: "row" },
      h(
        "div",
        null,
        h(Stop, { x: 0, y, href: `#node=${encodeURIComponent(row.name)}` }, row.name),
        h("span", { class: `state ${row.state}`, title: row.why }, row.state),
        h("small", null, row.backend, " · ", facts.join(" · ")),
        h(Button, {
          label: drained ? "End drain" : "Drain",
          title: drained ? `End drain of ${row.name}` : `Drain ${row.name}: send it no new requests and no loads`,
          onClick: () => perform("drain", { node: row.name, off: drained }),
        }),
      ),
    ),
    columns.map((model, x) => {
      const cell = row.cells[model];
      const load = loading[`${row.name}\n${model}`];
      return h(
        "td",
        { role: "gridcell", key: model, "data-model": model, class: cell || load ? "" : "empty" },
        cell || load ? h(Cell, { cell, load, node: row.name, model, now, x: x + 1, y }) : null,
      );
    }),
  );
}

function Cell({ cell, load, node, model, now, x, y }) {
  const name = `${model} on ${node}`;
  const href = `#model=${encodeURIComponent(model)}`;
  if (!cell) {
    const waiting = load.waiting ? `${load.waiting} waiting` : "";
    return h(Stop, { x, y, href, model, label: `${name}: loading`, state: "loading" }, h("b", null, "loading"), h("small", null, age(now - load.since), waiting ? ` · ${waiting}` : ""));
  }
  const calls = cell.calls ?? 0;
  return h(
    Stop,
    { x, y, href, model, state: cell.state, label: `${name}: ${cell.state}, generation ${cell.generation}, ${count(calls, "call")} in flight, last proof: ${cell.proof ?? "none"}` },
    h("b", null, cell.state, h("i", null, ` ${short(cell.generation)}`)),
    h("small", null, calls ? `${count(calls, "call")} · ` : "", cell.provedAt ? h(Ago, { at: cell.provedAt, now }) : "no proof"),
  );
}

/** A link in the matrix. */
function Stop({ x, y, href, label, model, state = "", children }) {
  const place = `${x},${y}`;
  return h(
    "a",
    {
      href,
      class: `stop ${state}`,
      "aria-label": label,
      "data-place": place,
      "data-model": model,
      tabIndex: place === current || (current === "0,0" && place === "0,1") ? 0 : -1,
      onFocus: () => (current = place),
    },
    children,
  );
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Move the focus if an arrow key was pressed in the matrix; return whether it was. */
export function moveInMatrix(event) {
  const move = MOVES[event.key];
  const place = event.target.dataset?.place;
  if (!move || !place) return false;
  event.preventDefault();
  let [x, y] = place.split(",").map(Number);
  // Empty cells are passed over.
  for (let step = 0; step < 300; step++) {
    x += move[0];
    y += move[1];
    const next = document.querySelector(`[data-place="${x},${y}"]`);
    if (next) {
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      break;
    }
  }
  return true;
}
