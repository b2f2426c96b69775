"""What a guard or a check must know about a gRPC service, as data."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """A gRPC service that serves models: what its RPCs do with them.

    `LOCALAI` and `KSERVE` are built in. For a service with the RPCs of one of them, use
    `dataclasses.replace(LOCALAI, service="acme.Speech")`; for any other, describe it:
    `Protocol("acme.Speech", load={"Open": "voice"}, inference={"Say": "voice"}, control={"Ping"})`.

    The mappings give, for the name of each RPC, the field of its request that names the model, ""
    if there is none. A dot leads into a message: `model_spec.name`. An RPC in none of the lists
    needs the model too; if all RPCs in `inference` that name a model use the same field, so does
    that one.

    Attributes:
        service: the full name, such as `backend.Backend`.
        load: the RPCs that load a model.
        unload: the RPCs that unload a model, or all models where no field names one.
        inference: the RPCs that need a model and do not change which ones are loaded.
        control: the RPCs that work without a model.
        success: boolean response fields that are false if the RPC failed. A response without them
            is a success.
        several_models: whether a process can hold several models, so that a load adds one instead
            of replacing the one before.

    Raises:
        ValueError: the description contradicts itself or has names that gRPC does not allow; the
            text says which.
    """

    service: str
    load: Mapping[str, str] = field(default_factory=dict, hash=False)
    unload: Mapping[str, str] = field(default_factory=dict, hash=False)
    inference: Mapping[str, str] = field(default_factory=dict, hash=False)
    control: Collection[str] = frozenset()
    success: Collection[str] = frozenset()
    several_models: bool = False

    def __post_init__(self) -> None:
        mistakes = list(self._mistakes())
        if mistakes:
            raise ValueError(f"protocol {self.service!r}: {'; '.join(mistakes)}")
        for name in ("load", "unload", "inference"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for name in ("control", "success"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))

    def field_of(self, rpc: str) -> str:
        """Return the request field that names the model of an RPC that needs one; "" if none."""
        return self.inference.get(rpc, self._shared_field)

    @cached_property
    def _shared_field(self) -> str:
        fields = {name for name in self.inference.values() if name}
        return fields.pop() if len(fields) == 1 else ""

    def _mistakes(self) -> Iterable[str]:
        if not _dotted(self.service):
            yield 'the service must be a full name such as "backend.Backend"'
        seen: dict[str, str] = {}
        for name in ("load", "unload", "inference"):
            fields: Any = getattr(self, name)
            if not isinstance(fields, Mapping):
                yield f"{name} must map the names of RPCs to request fields"
                continue
            yield from _twice(seen, name, fields)
            yield from (
                f"{name}[{rpc!r}] must be the name of a request field or '', not {path!r}"
                for rpc, path in fields.items()
                if path != "" and not _dotted(path)
            )
            if name == "load" and self.several_models and "" in fields.values():
                yield "with several models, load must say which field names the model"
        for name in ("control", "success"):
            names: Any = getattr(self, name)
            if isinstance(names, str) or not isinstance(names, Collection):
                yield f"{name} must be a set of names, such as {{'Health'}}"
            elif name == "control":
                yield from _twice(seen, name, names)
            else:
                yield from (f"{each!r} is no field" for each in names if not _dotted(each))


def _twice(seen: dict[str, str], name: str, rpcs: Iterable[Any]) -> Iterable[str]:
    for rpc in rpcs:
        if not isinstance(rpc, str) or not rpc.isidentifier():
            yield f"{rpc!r} in {name} is not the name of an RPC, such as 'Predict'"
        elif rpc in seen:
            yield f"{rpc} is in {seen[rpc]} and in {name}"
        else:
            seen[rpc] = name


def _dotted(name: Any) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def text_at(message: Any, path: str) -> str:
    """Return the text in a field of a message, "" if there is none. A dot leads into a message."""
    value = message if path else ""
    for name in path.split("."):
        value = getattr(value, name, "")
    return value if isinstance(value, str) else ""


def _built_in(name: str) -> Protocol:
    return Protocol(**{key: value for key, value in _DATA[name].items() if key != "source"})


_FILE = pkgutil.get_data("grpcerrors", "protocols.json")
_DATA: dict[str, dict[str, Any]] = json.loads(_FILE or b"")
LOCALAI = _built_in("LOCALAI")
"""The protocol of LocalAI's backends."""
KSERVE = _built_in("KSERVE")
"""The Open Inference Protocol (KServe v2), with the extensions of Triton."""
