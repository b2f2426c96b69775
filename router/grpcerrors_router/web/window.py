"""What one viewer sees of the fleet: a few rows and columns, however large the fleet is.

A view consists of small parts with keys, so that a viewer is sent only those that changed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from grpcerrors_router.state.problems import summary
from grpcerrors_router.state.words import NOTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from google.protobuf.message import Message

    from grpcerrors_protocol.fleet_pb2 import FleetState, NodeState, ReplicaState
    from grpcerrors_router.state.picture import Picture

ROWS, MOST_ROWS = 40, 200
"""Nodes and models that are listed at first, and at most."""

COLUMNS, MOST_COLUMNS = 16, 48
"""The same for the columns of the matrix."""

QUERY_LIMIT = 200
"""Characters of a search that are looked at."""

SHOW = ("usual", "problems", "all")

LAG = 5.0
"""Seconds after which the last read of the registry is old."""

_DIGITS = 4
_NATURAL = re.compile(r"(\d+)")

View = dict[str, str]
"""The JSON of each part, by key."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of the fleet a viewer looks at.

    Attributes:
        query: only what contains this text, in any case.
        show: "problems": only nodes and models with something to see; "all": everything; "usual":
            everything if it fits, else as "problems".
        rows: at most so many nodes, and so many models.
        columns: at most so many models in the matrix.
        model: the model whose replicas are listed; "" for none.
        node: the node whose replicas are listed; "" for none.
    """

    query: str = ""
    show: str = "usual"
    rows: int = ROWS
    columns: int = COLUMNS
    model: str = ""
    node: str = ""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Window:
        """Return the window that a URL's query asks for; what makes no sense is ignored."""
        show = query.get("show", "")
        return cls(
            query.get("q", "")[:QUERY_LIMIT].strip().lower(),
            show if show in SHOW else "usual",
            _number(query.get("rows", ""), ROWS, MOST_ROWS),
            _number(query.get("columns", ""), COLUMNS, MOST_COLUMNS),
            query.get("model", ""),
            query.get("node", ""),
        )


def _number(text: str, least: int, most: int) -> int:
    known = text.isascii() and text.isdecimal() and len(text) <= _DIGITS
    return min(max(int(text), least), most) if known else least


def view(picture: Picture, window: Window) -> View:
    """Return what a viewer sees."""
    fleet = picture.fleet
    worried = {problem.model for problem in fleet.problems if problem.severity != NOTE}
    parts: dict[str, Any] = {
        "fleet": _overview(fleet),
        "problems": _dicts(fleet.problems),
        "loads": _dicts(fleet.loads),
        "pauses": _dicts(fleet.pauses),
        "refusals": _dicts(fleet.refusals),
        "heals": _dicts(fleet.heals),
    }
    models, hidden = _chosen(
        fleet.models,
        window,
        lambda model: model.model,
        lambda model: window.query in f"{model.model}\n{model.backend}".lower(),
        lambda model: bool(model.model in worried or model.loading or model.waiting),
    )
    parts["models"] = {"list": _dicts(models), "hidden": hidden}
    parts |= _matrix(picture, window, worried)
    if window.model:
        parts["model"] = _model(picture, window.model)
    if window.node:
        parts["node"] = _node(picture, window.node)
    return {key: json.dumps(part, separators=(",", ":")) for key, part in parts.items()}


def difference(before: View, after: View) -> tuple[View, list[str]]:
    """Return the parts that are new or have changed, and the keys of those that are gone."""
    changed = {key: part for key, part in after.items() if before.get(key) != part}
    return changed, [key for key in before if key not in after]


def message(now: float, changed: View, gone: Iterable[str]) -> str:
    """Return the JSON of an update."""
    parts = ",".join(f"{json.dumps(key)}:{part}" for key, part in changed.items())
    return f'{{"now":{now:.3f},"set":{{{parts}}},"unset":{json.dumps(list(gone))}}}'


def natural(text: str) -> list[tuple[int, str]]:
    """Return a key by which "gpu-2" comes before "gpu-10"."""
    parts = _NATURAL.split(text.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _overview(fleet: FleetState) -> dict[str, Any]:
    registry = MessageToDict(fleet.registry)
    if fleet.now - registry.pop("readAt", 0.0) > LAG:  # else it is no news
        registry["readAt"] = fleet.registry.read_at
    return {
        "router": fleet.router,
        "summary": summary(fleet),
        "nodes": len(fleet.nodes),
        "models": len(fleet.models),
        "registry": registry,
        "routers": _dicts(fleet.routers),
    }


def _chosen(
    items: Sequence[Any],
    window: Window,
    name: Callable[[Any], str],
    matches: Callable[[Any], bool],
    has_news: Callable[[Any], bool],
) -> tuple[list[Any], int]:
    """Return the items to list, those with news first, and how many are left out."""
    found = [each for each in items if matches(each)] if window.query else list(items)
    total = len(found)
    too_many = window.show == "usual" and not window.query and total > window.rows
    if too_many or window.show == "problems":
        found = [each for each in found if has_news(each)]
    found.sort(key=lambda each: (not has_news(each), natural(name(each))))
    shown = found[: window.rows]
    return shown, total - len(shown)


def _matrix(picture: Picture, window: Window, worried: set[str]) -> dict[str, Any]:
    """Return the rows of nodes, and which rows and columns there are."""
    fleet = picture.fleet
    troubled = {problem.node for problem in fleet.problems if problem.severity != NOTE}
    loading = {load.node for load in fleet.loads}
    matching = {each.model for each in fleet.models if window.query in each.model.lower()}
    holders: set[str] = set()
    if window.query:
        holders = set().union(*map(picture.holders, matching))
        holders |= {load.node for load in fleet.loads if load.model in matching}
    nodes, hidden = _chosen(
        fleet.nodes,
        window,
        lambda node: node.name,
        lambda node: (
            node.name in holders
            or window.query in f"{node.name}\n{node.backend}\n{node.address}".lower()
        ),
        lambda node: node.state != "up" or node.name in troubled or node.name in loading,
    )
    replicas = {node.name: list(node.replicas) or picture.replicas(node) for node in nodes}
    held = {replica.model for each in replicas.values() for replica in each}
    under_way = {load.model for load in fleet.loads if load.node in replicas}
    candidates = held | under_way
    if window.query and not candidates.isdisjoint(matching):
        candidates &= matching
    news = worried | under_way
    order = sorted(candidates, key=lambda model: (model not in news, natural(model)))
    columns = order[: window.columns]
    return {
        "matrix": {
            "rows": [node.name for node in nodes],
            "columns": columns,
            "hiddenRows": hidden,
            "hiddenColumns": len(order) - len(columns),
        },
        **{f"row:{node.name}": _row(node, replicas[node.name], set(columns)) for node in nodes},
    }


def _row(node: NodeState, replicas: Sequence[ReplicaState], columns: set[str]) -> dict[str, Any]:
    row = MessageToDict(node)
    row.pop("replicas", None)
    row["held"] = len(replicas)
    row["cells"] = {each.model: MessageToDict(each) for each in replicas if each.model in columns}
    return row


def _model(picture: Picture, name: str) -> dict[str, Any]:
    """Return a model and its replicas."""
    state = next((each for each in picture.fleet.models if each.model == name), None)
    found: list[dict[str, Any]] = []
    holders = picture.holders(name)
    for node in picture.fleet.nodes:
        if node.name in holders and len(found) < ROWS:
            replica = next(each for each in picture.replicas(node) if each.model == name)
            found.append({"node": node.name, **MessageToDict(replica)})
    return {
        "state": MessageToDict(state) if state is not None else {"model": name},
        "replicas": found,
        "hidden": len(holders) - len(found),
    }


def _node(picture: Picture, name: str) -> dict[str, Any] | None:
    """Return a node and its replicas; None if it is unknown."""
    node = next((each for each in picture.fleet.nodes if each.name == name), None)
    if node is None:
        return None
    replicas = picture.replicas(node)
    row = _row(node, replicas, set())
    row["replicas"] = _dicts(replicas[:MOST_ROWS])
    return row


def _dicts(parts: Iterable[Message]) -> list[dict[str, Any]]:
    return [MessageToDict(part) for part in parts]
