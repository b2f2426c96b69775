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
