"""The words in which problems are told."""

from __future__ import annotations

ERROR, WARNING, NOTE = "error", "warning", "note"
"""Requests fail; something is wrong, but requests are served; nothing has to be done."""

EVIDENCE = {
    "details": "a typed error",
    "trailer": "a typed error",
    "text": "the words of an error",
    "code": "the code of an error",
    "mismatch": "it holds another model",
    "heartbeat": "its heartbeat no longer lists it",
    "reconnect": "its connection was lost",
}
"""What each kind of evidence in the heal log means."""

LOST = (
    "The router loads it again by itself. If it happens often, the node has too little memory, or "
    "another client unloads the model there: read the node's log, and give it more memory or fewer "
    "slots, or drain it."
)
LOST_BY = {
    "mismatch": "Another client loads models on the node directly: stop it, or drain the node.",
    "reconnect": "Find out why its process ended; if memory ran out, the kernel's log says so.",
}


REFUSALS = {
    "NO_CAPACITY": ("no-capacity", ERROR, "Add a node or slots, or end the drain of a node."),
    "LOAD_FAILED": ("load-fails", ERROR, "Fix what the message says, then load it again."),
    "LOAD_TIMEOUT": (
        "load-timeout",
        WARNING,
        "Give callers more time, or keep the model loaded (replicas in models.toml).",
    ),
    "OVERLOADED": (
        "overload",
        ERROR,
        (
            "Let callers send less at a time and retry after the time that the error names, or add "
            "replicas or a router."
        ),
    ),
    "RESOURCE_EXHAUSTED": (
        "overload",
        ERROR,
        (
            "Let callers send less at a time, raise the node's --max-calls, or add replicas of the "
            "model (replicas in models.toml) and nodes that hold them."
        ),
    ),
    "NAME_TAKEN": (
        "name-taken",
        ERROR,
        (
            "Give each node a name of its own (grpcerrors-backend --node-name NAME), or stop one "
            "of the two processes."
        ),
    ),
    "UNAUTHENTICATED": (
        "unauthenticated",
        WARNING,
        (
            "The router's log has the address of who called. Give those that may call a token: "
            "grpcerrors-router token new"
        ),
    ),
    "PERMISSION_DENIED": (
        "permission-denied",
        WARNING,
        "If the owner of the token may do that, change its roles, models or nodes in tokens.toml.",
    ),
    "PROXY_LOOP": ("proxy-loop", ERROR, "Remove that node: grpcerrors-router remove-node NODE"),
    "INTERNAL": ("internal", ERROR, "Report it with the traceback that the router's log has."),
}
"""For each reason: the kind and the severity of the problem, and its cure."""


def some(names: list[str], most: int = 3) -> str:
    """Return names as words: "a, b and c", or "a, b, c and 7 more"."""
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def because(why: str) -> str:
    """Return ": {why}", without a full stop, or nothing if there is no reason."""
    return f": {end(why)}" if why else ""


def end(text: str) -> str:
    """Return the text without a full stop at its end."""
    return text.rstrip(".! \n")


def seconds_as_text(seconds: float) -> str:
    """Return a duration as "0.5 s" or "31 s"."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004


def number(count: int, noun: str) -> str:
    """Return a count with its noun: "1 node", "1,000 nodes"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
