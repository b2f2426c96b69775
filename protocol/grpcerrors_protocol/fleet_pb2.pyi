from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HeartbeatRequest(_message.Message):
    __slots__ = ("node", "address", "backend", "slots", "boot_id", "inventory_version", "models", "tls")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    node: str
    address: str
    backend: str
    slots: int
    boot_id: str
    inventory_version: int
    models: _containers.RepeatedCompositeFieldContainer[HeldModel]
    tls: bool
    def __init__(self, node: _Optional[str] = ..., address: _Optional[str] = ..., backend: _Optional[str] = ..., slots: _Optional[int] = ..., boot_id: _Optional[str] = ..., inventory_version: _Optional[int] = ..., models: _Optional[_Iterable[_Union[HeldModel, _Mapping]]] = ..., tls: bool = ...) -> None: ...

class HeldModel(_message.Message):
    __slots__ = ("model", "generation", "in_flight")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    model: str
    generation: int
    in_flight: int
    def __init__(self, model: _Optional[str] = ..., generation: _Optional[int] = ..., in_flight: _Optional[int] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("interval_seconds",)
    INTERVAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    interval_seconds: float
    def __init__(self, interval_seconds: _Optional[float] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("node", "boot_id")
    NODE_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    node: str
    boot_id: str
    def __init__(self, node: _Optional[str] = ..., boot_id: _Optional[str] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class LoadProgress(_message.Message):
    __slots__ = ("node", "seconds", "loaded")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    node: str
    seconds: float
    loaded: bool
    def __init__(self, node: _Optional[str] = ..., seconds: _Optional[float] = ..., loaded: bool = ...) -> None: ...

class UnloadRequest(_message.Message):
    __slots__ = ("model", "node", "force")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    node: str
    force: bool
    def __init__(self, model: _Optional[str] = ..., node: _Optional[str] = ..., force: bool = ...) -> None: ...

class UnloadReply(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class GetFleetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FleetState(_message.Message):
    __slots__ = ("now", "router", "in_flight", "registry", "routers", "nodes", "models", "loads", "pauses", "refusals", "heals", "problems")
    NOW_FIELD_NUMBER: _ClassVar[int]
    ROUTER_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    ROUTERS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    PAUSES_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    HEALS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    now: float
    router: str
    in_flight: int
    registry: RegistryState
    routers: _containers.RepeatedCompositeFieldContainer[RouterState]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeState]
    models: _containers.RepeatedCompositeFieldContainer[ModelState]
    loads: _containers.RepeatedCompositeFieldContainer[LoadState]
    pauses: _containers.RepeatedCompositeFieldContainer[PauseState]
    refusals: _containers.RepeatedCompositeFieldContainer[RefusalState]
    heals: _containers.RepeatedCompositeFieldContainer[Heal]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    def __init__(self, now: _Optional[float] = ..., router: _Optional[str] = ..., in_flight: _Optional[int] = ..., registry: _Optional[_Union[RegistryState, _Mapping]] = ..., routers: _Optional[_Iterable[_Union[RouterState, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[NodeState, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelState, _Mapping]]] = ..., loads: _Optional[_Iterable[_Union[LoadState, _Mapping]]] = ..., pauses: _Optional[_Iterable[_Union[PauseState, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[RefusalState, _Mapping]]] = ..., heals: _Optional[_Iterable[_Union[Heal, _Mapping]]] = ..., problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("severity", "kind", "node", "model", "since", "until", "what", "cure", "actions", "count")
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    CURE_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    severity: str
    kind: str
    node: str
    model: str
    since: float
    until: float
    what: str
    cure: str
    actions: _containers.RepeatedScalarFieldContainer[str]
    count: int
    def __init__(self, severity: _Optional[str] = ..., kind: _Optional[str] = ..., node: _Optional[str] = ..., model: _Optional[str] = ..., since: _Optional[float] = ..., until: _Optional[float] = ..., what: _Optional[str] = ..., cure: _Optional[str] = ..., actions: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ...) -> None: ...

class RegistryState(_message.Message):
    __slots__ = ("kind", "up", "since", "read_at", "revision", "waiting_changes", "error")
    KIND_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    READ_AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WAITING_CHANGES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    kind: str
    up: bool
    since: float
    read_at: float
    revision: int
    waiting_changes: int
    error: str
    def __init__(self, kind: _Optional[str] = ..., up: bool = ..., since: _Optional[float] = ..., read_at: _Optional[float] = ..., revision: _Optional[int] = ..., waiting_changes: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class RouterState(_message.Message):
    __slots__ = ("name", "expires_at", "seen_revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    SEEN_REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    expires_at: float
    seen_revision: int
    def __init__(self, name: _Optional[str] = ..., expires_at: _Optional[float] = ..., seen_revision: _Optional[int] = ...) -> None: ...

class NodeState(_message.Message):
    __slots__ = ("name", "address", "backend", "slots", "state", "since", "why", "last_heard", "tls", "foreign", "draining", "calls", "replicas")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    LAST_HEARD_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    backend: str
    slots: int
    state: str
    since: float
    why: str
    last_heard: float
    tls: bool
    foreign: bool
    draining: bool
    calls: int
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaState]
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., backend: _Optional[str] = ..., slots: _Optional[int] = ..., state: _Optional[str] = ..., since: _Optional[float] = ..., why: _Optional[str] = ..., last_heard: _Optional[float] = ..., tls: bool = ..., foreign: bool = ..., draining: bool = ..., calls: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[ReplicaState, _Mapping]]] = ...) -> None: ...

class ReplicaState(_message.Message):
    __slots__ = ("model", "state", "generation", "calls", "loaded_at", "last_used", "proved_at", "proof")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    LOADED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_FIELD_NUMBER: _ClassVar[int]
    PROVED_AT_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    model: str
    state: str
    generation: int
    calls: int
    loaded_at: float
    last_used: float
    proved_at: float
    proof: str
    def __init__(self, model: _Optional[str] = ..., state: _Optional[str] = ..., generation: _Optional[int] = ..., calls: _Optional[int] = ..., loaded_at: _Optional[float] = ..., last_used: _Optional[float] = ..., proved_at: _Optional[float] = ..., proof: _Optional[str] = ...) -> None: ...

class ModelState(_message.Message):
    __slots__ = ("model", "backend", "listed", "wanted", "present", "loading", "calls", "waiting", "why")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    LISTED_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    LOADING_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    model: str
    backend: str
    listed: bool
    wanted: int
    present: int
    loading: int
    calls: int
    waiting: int
    why: str
    def __init__(self, model: _Optional[str] = ..., backend: _Optional[str] = ..., listed: bool = ..., wanted: _Optional[int] = ..., present: _Optional[int] = ..., loading: _Optional[int] = ..., calls: _Optional[int] = ..., waiting: _Optional[int] = ..., why: _Optional[str] = ...) -> None: ...

class LoadState(_message.Message):
    __slots__ = ("model", "node", "generation", "since", "owner", "hedge", "victim", "waiting", "waiting_since", "usual_seconds", "why")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    HEDGE_FIELD_NUMBER: _ClassVar[int]
    VICTIM_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WAITING_SINCE_FIELD_NUMBER: _ClassVar[int]
    USUAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    model: str
    node: str
    generation: int
    since: float
    owner: str
    hedge: bool
    victim: str
    waiting: int
    waiting_since: float
    usual_seconds: float
    why: str
    def __init__(self, model: _Optional[str] = ..., node: _Optional[str] = ..., generation: _Optional[int] = ..., since: _Optional[float] = ..., owner: _Optional[str] = ..., hedge: bool = ..., victim: _Optional[str] = ..., waiting: _Optional[int] = ..., waiting_since: _Optional[float] = ..., usual_seconds: _Optional[float] = ..., why: _Optional[str] = ...) -> None: ...

class PauseState(_message.Message):
    __slots__ = ("kind", "node", "model", "until", "why")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    kind: str
    node: str
    model: str
    until: float
    why: str
    def __init__(self, kind: _Optional[str] = ..., node: _Optional[str] = ..., model: _Optional[str] = ..., until: _Optional[float] = ..., why: _Optional[str] = ...) -> None: ...

class RefusalState(_message.Message):
    __slots__ = ("reason", "model", "count", "last", "text", "node", "since")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    model: str
    count: int
    last: float
    text: str
    node: str
    since: float
    def __init__(self, reason: _Optional[str] = ..., model: _Optional[str] = ..., count: _Optional[int] = ..., last: _Optional[float] = ..., text: _Optional[str] = ..., node: _Optional[str] = ..., since: _Optional[float] = ...) -> None: ...

class Heal(_message.Message):
    __slots__ = ("at", "node", "model", "generation", "evidence", "action", "router", "seconds", "request_id", "new_node", "new_generation")
    AT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ROUTER_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_NODE_FIELD_NUMBER: _ClassVar[int]
    NEW_GENERATION_FIELD_NUMBER: _ClassVar[int]
    at: float
    node: str
    model: str
    generation: int
    evidence: str
    action: str
    router: str
    seconds: float
    request_id: str
    new_node: str
    new_generation: int
    def __init__(self, at: _Optional[float] = ..., node: _Optional[str] = ..., model: _Optional[str] = ..., generation: _Optional[int] = ..., evidence: _Optional[str] = ..., action: _Optional[str] = ..., router: _Optional[str] = ..., seconds: _Optional[float] = ..., request_id: _Optional[str] = ..., new_node: _Optional[str] = ..., new_generation: _Optional[int] = ...) -> None: ...

class ListHealsRequest(_message.Message):
    __slots__ = ("limit", "model", "node")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    limit: int
    model: str
    node: str
    def __init__(self, limit: _Optional[int] = ..., model: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class ListHealsReply(_message.Message):
    __slots__ = ("now", "heals")
    NOW_FIELD_NUMBER: _ClassVar[int]
    HEALS_FIELD_NUMBER: _ClassVar[int]
    now: float
    heals: _containers.RepeatedCompositeFieldContainer[Heal]
    def __init__(self, now: _Optional[float] = ..., heals: _Optional[_Iterable[_Union[Heal, _Mapping]]] = ...) -> None: ...

class GetHistoryRequest(_message.Message):
    __slots__ = ("model", "limit")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    limit: int
    def __init__(self, model: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class GetHistoryReply(_message.Message):
    __slots__ = ("now", "state", "entries")
    NOW_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    now: float
    state: ModelState
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    def __init__(self, now: _Optional[float] = ..., state: _Optional[_Union[ModelState, _Mapping]] = ..., entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("at", "kind", "node", "generation", "why", "seconds")
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    at: float
    kind: str
    node: str
    generation: int
    why: str
    seconds: float
    def __init__(self, at: _Optional[float] = ..., kind: _Optional[str] = ..., node: _Optional[str] = ..., generation: _Optional[int] = ..., why: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsReply(_message.Message):
    __slots__ = ("now", "models")
    NOW_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    now: float
    models: _containers.RepeatedCompositeFieldContainer[ModelState]
    def __init__(self, now: _Optional[float] = ..., models: _Optional[_Iterable[_Union[ModelState, _Mapping]]] = ...) -> None: ...

class AddNodeRequest(_message.Message):
    __slots__ = ("address", "backend", "slots", "name", "tls", "token_file")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FILE_FIELD_NUMBER: _ClassVar[int]
    address: str
    backend: str
    slots: int
    name: str
    tls: bool
    token_file: str
    def __init__(self, address: _Optional[str] = ..., backend: _Optional[str] = ..., slots: _Optional[int] = ..., name: _Optional[str] = ..., tls: bool = ..., token_file: _Optional[str] = ...) -> None: ...

class AddNodeReply(_message.Message):
    __slots__ = ("name", "answers", "why")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    name: str
    answers: bool
    why: str
    def __init__(self, name: _Optional[str] = ..., answers: bool = ..., why: _Optional[str] = ...) -> None: ...

class RemoveNodeRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class RemoveNodeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("node", "off")
    NODE_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    node: str
    off: bool
    def __init__(self, node: _Optional[str] = ..., off: bool = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ("calls",)
    CALLS_FIELD_NUMBER: _ClassVar[int]
    calls: int
    def __init__(self, calls: _Optional[int] = ...) -> None: ...

class ForgiveRequest(_message.Message):
    __slots__ = ("model", "node")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    model: str
    node: str
    def __init__(self, model: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class ForgiveReply(_message.Message):
    __slots__ = ("now", "ended")
    NOW_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    now: float
    ended: _containers.RepeatedCompositeFieldContainer[PauseState]
    def __init__(self, now: _Optional[float] = ..., ended: _Optional[_Iterable[_Union[PauseState, _Mapping]]] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadReply(_message.Message):
    __slots__ = ("mistakes", "added", "changed", "removed", "tokens")
    MISTAKES_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    mistakes: _containers.RepeatedScalarFieldContainer[str]
    added: _containers.RepeatedScalarFieldContainer[str]
    changed: _containers.RepeatedScalarFieldContainer[str]
    removed: _containers.RepeatedScalarFieldContainer[str]
    tokens: bool
    def __init__(self, mistakes: _Optional[_Iterable[str]] = ..., added: _Optional[_Iterable[str]] = ..., changed: _Optional[_Iterable[str]] = ..., removed: _Optional[_Iterable[str]] = ..., tokens: bool = ...) -> None: ...
