// What opens above the page: one model with its history, one node, the keys, and questions.

import { Component, h } from "./vendor/preact.mjs";
import { Ago, Button, ModelLink, NodeLink, draw, leave, perform, set } from "./page.js";
import { history } from "./stream.js";
import { age, clock, count, happened } from "./words.js";

export function Dialogs({ state, now, Notice }) {
  const { open, confirm, parts } = state;
  return [
    open
      ? h(
          Dialog,
          { key: "open", label: open.kind, onClose: leave },
          open.kind === "help" ? h(Help) : null,
          open.kind === "model" ? h(Model, { key: open.name, name: open.name, model: parts.model, heals: parts.heals, now }) : null,
          open.kind === "node" ? h(Node, { name: open.name, node: parts.node, now }) : null,
          confirm ? null : h(Notice),
        )
      : null,
    confirm
      ? h(
          Dialog,
          { key: "confirm", label: "question", onClose: () => set({ confirm: null }) },
          h("p", { class: "question" }, confirm.text),
          h(
            "p",
            { class: "deeds" },
            h(Button, {
              label: confirm.label,
              main: true,
              onClick: () => {
                set({ confirm: null });
                confirm.then();
              },
            }),
            h(Button, { label: "Cancel", autofocus: true, onClick: () => set({ confirm: null }) }),
          ),
        )
      : null,
  ];
}

class Dialog extends Component {
  componentDidMount() {
    this.before = document.activeElement;
    this.dialog.showModal();
  }

  componentWillUnmount() {
    this.dialog.close();
    if (this.before?.isConnected) this.before.focus();
  }

  render({ label, onClose, children }) {
    return h(
      "dialog",
      {
        ref: (dialog) => (this.dialog = dialog ?? this.dialog),
        "aria-label": label,
        onCancel: (event) => {
          event.preventDefault(); // the page closes it
          onClose();
        },
      },
      h("button", { type: "button", class: "close", "aria-label": "Close", onClick: onClose }, "×"),
      children,
    );
  }
}

class Model extends Component {
  componentDidMount() {
    this.refresh();
    this.timer = setInterval(() => this.refresh(), 2000);
  }

  componentWillUnmount() {
    clearInterval(this.timer);
  }

  async refresh() {
    try {
      this.history = await history(this.props.name);
      this.error = "";
    } catch (error) {
      this.error = error.message;
    }
    draw();
  }

  render({ name, model, now }) {
    const { state = {}, replicas = [], hidden = 0 } = model ?? {};
    const entries = this.history?.entries ?? [];
    const calls = state.calls ?? 0;
    return [
      h("h2", null, name, " ", h("small", null, state.backend ?? "")),
      h("p", null, `${count(state.present ?? 0, "replica")} of ${state.wanted ?? 0} wanted, ${count(calls, "call")} in flight, ${state.waiting ?? 0} waiting. ${state.why ?? ""}`),
      h(
        "p",
        { class: "deeds" },
        h(Button, { label: "Load", onClick: () => perform("load", { model: name }) }),
        h(Button, { label: "Unload everywhere", onClick: () => perform("unload", { model: name }, calls) }),
        h(Button, { label: "Forgive", title: "End quarantines and back-offs of this model", onClick: () => perform("forgive", { model: name }) }),
      ),
      replicas.length ? h(Replicas, { replicas, now, by: "node", model: name }) : null,
      hidden ? h("p", { class: "more" }, `${count(hidden, "more node")} hold it.`) : null,
      h("h3", null, "Why did it move?"),
      this.error ? h("p", { role: "alert" }, this.error) : null,
      entries.length || !this.history
        ? h(
            "ol",
            { class: "feed history" },
            entries.map((entry) => h("li", { key: `${entry.at} ${entry.kind} ${entry.node}` }, h("time", null, clock(entry.at)), h("span", null, happened(entry)))),
          )
        : h("p", { class: "none" }, "Nothing has happened to it that this router remembers."),
    ];
  }
}

function Node({ name, node, now }) {
  if (node === null) return [h("h2", null, name), h("p", { role: "alert" }, "There is no such node.")];
  if (!node) return h("h2", null, name);
  const drained = Boolean(node.draining);
  return [
    h("h2", null, name, " ", h("span", { class: `state ${node.state}` }, node.state)),
    h(
      "p",
      null,
      `${node.address}, backend ${node.backend}, ${node.held} of ${count(node.slots, "slot")} in use, ${count(node.calls ?? 0, "call")} in flight, `,
      `${node.tls ? "TLS" : "no TLS"}, ${node.foreign ? "added by hand" : "registered by itself"}. `,
      node.lastHeard ? `Last heard ${age(now - node.lastHeard)} ago. ` : "Never heard. ",
      node.why ? `${node.why}.` : "",
    ),
    h(
      "p",
      { class: "deeds" },
      h(Button, { label: drained ? "End drain" : "Drain", onClick: () => perform("drain", { node: name, off: drained }) }),
      h(Button, { label: "Forgive", title: "End quarantines and back-offs on this node", onClick: () => perform("forgive", { node: name }) }),
    ),
    node.replicas?.length ? h(Replicas, { replicas: node.replicas, now, by: "model", node: name }) : h("p", { class: "none" }, "It holds no model."),
  ];
}

function Replicas({ replicas, now, by, model, node }) {
  return h(
    "table",
    { class: "list" },
    h("thead", null, h("tr", null, [by === "node" ? "Node" : "Model", "State", "Generation", "Calls", "Loaded", "Last used", "Last proof", ""].map((name) => h("th", { scope: "col", key: name }, name)))),
    h(
      "tbody",
      null,
      replicas.map((each) => {
        const calls = each.calls ?? 0;
        const where = { model: model ?? each.model, node: node ?? each.node };
        return h(
          "tr",
          { key: each[by] },
          h("th", { scope: "row" }, h(by === "node" ? NodeLink : ModelLink, { name: each[by] })),
          h("td", { "data-label": "state" }, each.state),
          h("td", { "data-label": "generation" }, each.generation),
          h("td", { "data-label": "calls" }, calls),
          h("td", { "data-label": "loaded" }, clock(each.loadedAt)),
          h("td", { "data-label": "last used" }, each.lastUsed ? [h(Ago, { at: each.lastUsed, now }), " ago"] : "never"),
          h("td", { "data-label": "last proof" }, each.provedAt ? [h(Ago, { at: each.provedAt, now }), ` ago, ${each.proof ?? ""}`] : "none"),
          h("td", null, h("div", { class: "deeds" }, h(Button, { label: "Unload", title: `Unload ${where.model} from ${where.node}`, onClick: () => perform("unload", where, calls) }))),
        );
      }),
    ),
  );
}

function Help() {
  const keys = [
    ["/", "search nodes, models, backends and addresses"],
    ["p", "show only problems"],
    ["a", "show everything"],
    ["u", "show what fits, and clear the search"],
    ["← → ↑ ↓", "move in the matrix; Enter opens a node or a model"],
    ["Esc", "close what is open"],
    ["?", "show these keys"],
  ];
  return [
    h("h2", null, "Keys"),
    h("dl", { class: "keys" }, keys.map(([key, what]) => [h("dt", { key }, h("kbd", null, key)), h("dd", null, what)])),
    h("p", { class: "hint" }, "A model’s history has an address of its own: #model=NAME. So has a node: #node=NAME."),
  ];
}
