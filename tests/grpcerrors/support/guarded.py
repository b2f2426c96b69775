"""A real backend on a real server, in each way in which a Python backend can be written.

Its inference RPCs do what the prompt says, so that one backend serves every scenario.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2

from grpcerrors import model_not_loaded
from grpcerrors._guard import aio, sync
from grpcerrors._guard.abort import abort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SERVICE = "backend.Backend"
SURFACES = (
    "sync",
    "aio",
    "aio writer",
    "sync on aio",
    "sync behind an executor",
    "sync in front of an executor",
)
# (request streams, response streams) of one inference RPC of each shape.
SHAPES = {
    "Predict": (False, False),
    "PredictStream": (False, True),
    "Upload": (True, False),
    "AudioTranscriptionLive": (True, True),
}
PATIENCE = 30.0


def _messages() -> dict[str, Any]:
    string, boolean = 9, 8
    file = descriptor_pb2.FileDescriptorProto(name="guarded.proto", package="guarded")
    fields = {
        "Request": {"ModelIdentity": string, "prompt": string},
        "ModelOptions": {"Model": string, "prompt": string},
        "Result": {"message": string, "success": boolean},
    }
    for name, of in fields.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(of.items(), 1):
            message.field.add(name=field, number=number, type=kind, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"guarded.{name}"))
        for name in fields
    }


_CLASSES = _messages()
Request, ModelOptions, Result = (_CLASSES[name] for name in ("Request", "ModelOptions", "Result"))
DONE = Result(success=True, message="done")


class Gates:
    """Where a handler tells that it has come so far, and waits to be let on."""

    def __init__(self) -> None:
        self._reached: dict[str, threading.Semaphore] = {}
        self._open: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def _gate(self, name: str) -> tuple[threading.Semaphore, threading.Event]:
        with self._lock:
            reached = self._reached.setdefault(name, threading.Semaphore(0))
            return reached, self._open.setdefault(name, threading.Event())

    def reached(self, name: str) -> None:
        """Wait until a handler waits at the gate."""
        assert self._gate(name)[0].acquire(timeout=PATIENCE), f"no handler came to {name}"

    def open(self, name: str) -> None:
        self._gate(name)[1].set()

    def wait(self, name: str) -> None:
        reached, is_open = self._gate(name)
        reached.release()
        assert is_open.wait(PATIENCE), f"nobody opened {name}"

    async def wait_aio(self, name: str) -> None:
        reached, is_open = self._gate(name)
        reached.release()
        while not is_open.is_set():
            await asyncio.sleep(0.001)


class SyncBackend:
    """Handlers as plain functions. A prompt is words; each is a step, the last an ending."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates

    def step(self, word: str, context: Any) -> Any:  # noqa: C901 - one branch a word
        """Do one step; return the answer if it is an ending."""
        kind, _, argument = word.partition(":")
        if kind == "wait":
            self.gates.wait(argument)
        elif kind == "raise":
            raise AttributeError("'NoneType' object has no attribute 'generate'")
        elif kind == "typed":
            raise model_not_loaded("by-hand", model="m")
        elif kind == "abort":
            context.abort(grpc.StatusCode[argument or "INVALID_ARGUMENT"], "its own words")
        elif kind == "swallow":
            with contextlib.suppress(Exception):
                context.abort(grpc.StatusCode.INTERNAL, "its own words")
        elif kind == "abort-typed":
            abort(context, model_not_loaded("by-hand", model="m"))
        elif kind == "status-typed":
            context.abort_with_status(model_not_loaded("by-hand", model="m"))
        elif kind == "code":
            context.set_code(grpc.StatusCode[argument or "INTERNAL"])
            context.set_details("its own words")
        elif kind == "plain":
            unreadable = ("grpc-status-details-bin", b"\xff")
            plain = ("grpcerrors-unexecuted", "MODEL_NOT_LOADED")
            context.set_trailing_metadata((unreadable, plain))
        elif kind == "trailer":
            context.set_trailing_metadata((("kept", "yes"),))
        elif kind == "false":
            return Result(success=False, message="generation failed")
        return None

    def _unary(self, prompt: str, context: Any) -> Any:
        answers = [self.step(word, context) for word in prompt.split()]
        return next(filter(None, answers), DONE)

    def _stream(self, prompt: str, context: Any) -> Iterator[Any]:
        for word in prompt.split():
            if word == "yield":
                yield DONE
            elif answer := self.step(word, context):
                yield answer
        yield DONE

    def LoadModel(self, request: Any, context: Any) -> Any:
        return self._unary(request.prompt, context)

    def Free(self, request: Any, context: Any) -> Any:
        return self._unary(request.prompt, context)

    Health = Predict = Free

    def PredictStream(self, request: Any, context: Any) -> Iterator[Any]:
        yield from self._stream(request.prompt, context)

    def Upload(self, requests: Iterator[Any], context: Any) -> Any:
        return self._unary(" ".join(request.prompt for request in requests), context)

    def AudioTranscriptionLive(self, requests: Any, context: Any) -> Iterator[Any]:
        yield from self._stream(" ".join(request.prompt for request in requests), context)


class AioBackend:
    """The same as coroutines and async generators."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self._steps = SyncBackend(gates)

    async def step(self, word: str, context: Any) -> Any:
        kind, _, argument = word.partition(":")
        if kind == "wait":
            await self.gates.wait_aio(argument)
        elif kind == "abort":
            await context.abort(grpc.StatusCode[argument or "INVALID_ARGUMENT"], "its own words")
        elif kind == "swallow":
            with contextlib.suppress(Exception):
                await context.abort(grpc.StatusCode.INTERNAL, "its own words")
        elif kind == "abort-typed":
            await abort(context, model_not_loaded("by-hand", model="m"))
        elif kind == "status-typed":
            await context.abort_with_status(model_not_loaded("by-hand", model="m"))
        else:
            return self._steps.step(word, context)
        return None

    async def _unary(self, prompt: str, context: Any) -> Any:
        answers = [await self.step(word, context) for word in prompt.split()]
        return next(filter(None, answers), DONE)

    async def _stream(self, prompt: str, context: Any) -> AsyncIterator[Any]:
        for word in prompt.split():
            if word == "yield":
                yield DONE
            elif answer := await self.step(word, context):
                yield answer
        yield DONE

    async def LoadModel(self, request: Any, context: Any) -> Any:
        return await self._unary(request.prompt, context)

    async def Free(self, request: Any, context: Any) -> Any:
        return await self._unary(request.prompt, context)

    Health = Predict = Free

    async def PredictStream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in self._stream(request.prompt, context):
            yield answer

    async def Upload(self, requests: Any, context: Any) -> Any:
        return await self._unary(" ".join([each.prompt async for each in requests]), context)

    async def AudioTranscriptionLive(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        prompt = " ".join([each.prompt async for each in requests])
        async for answer in self._stream(prompt, context):
            yield answer


class WriterBackend(AioBackend):
    """The same, with streams in the style of `context.write`."""

    async def PredictStream(self, request: Any, context: Any) -> None:  # type: ignore[override]
        async for answer in self._stream(request.prompt, context):
            await context.write(answer)

    async def AudioTranscriptionLive(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        prompt = ""
        while (request := await context.read()) is not grpc.aio.EOF:
            prompt += f" {request.prompt}"
        async for answer in self._stream(prompt, context):
            await context.write(answer)


BACKENDS: dict[str, type[Any]] = {
    "sync": SyncBackend,
    "aio": AioBackend,
    "aio writer": WriterBackend,
    "sync on aio": SyncBackend,
    "sync behind an executor": SyncBackend,
    "sync in front of an executor": SyncBackend,
}


class Executor(grpc.aio.ServerInterceptor):
    """Runs sync handlers of unary requests in a thread pool, and gives them the aio context.

    LocalAI's `model_identity.py` does so. A context's `abort` is a coroutine then, in a handler
    that cannot await it.
    """

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        behavior = handler.unary_stream if handler.response_streaming else handler.unary_unary
        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        twin = (_stream_in_thread if handler.response_streaming else _call_in_thread)(behavior)
        return make(twin, handler.request_deserializer, handler.response_serializer)


def _call_in_thread(behavior: Any) -> Any:
    async def twin(request: Any, context: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, behavior, request, context)

    return twin


def _stream_in_thread(behavior: Any) -> Any:
    async def twin(request: Any, context: Any) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        messages = behavior(request, context)
        while message := await loop.run_in_executor(None, next, messages, None):
            yield message

    return twin


def interceptors(surface: str, *guard: Any) -> list[Any]:
    """Return the interceptors of a surface, the outermost first."""
    if surface == "sync behind an executor":
        return [Executor(), *guard]
    if surface == "sync in front of an executor":
        return [*guard, Executor()]
    return [*guard]


def handlers(backend: Any) -> dict[str, Any]:
    """Return the method handlers of a backend, as generated code registers them."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    shapes = SHAPES | dict.fromkeys(("LoadModel", "Free", "Health"), (False, False))
    return {
        name: make[shape](
            getattr(backend, name),
            request_deserializer=(ModelOptions if name == "LoadModel" else Request).FromString,
            response_serializer=Result.SerializeToString,
        )
        for name, shape in shapes.items()
    }


@contextlib.contextmanager
def serving(
    surface: str, interceptors: list[Any], services: dict[str, dict[str, Any]]
) -> Iterator[grpc.Channel]:
    """Serve method handlers on a real server, and yield a channel to it."""
    generic = [grpc.method_handlers_generic_handler(*item) for item in services.items()]
    start = _serve_sync if surface == "sync" else _serve_aio
    with (
        start(interceptors, generic) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


@contextlib.contextmanager
def _serve_sync(interceptors: list[Any], generic: list[Any]) -> Iterator[int]:
    with futures.ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool, handlers=generic, interceptors=interceptors)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


@contextlib.contextmanager
def _serve_aio(interceptors: list[Any], generic: list[Any]) -> Iterator[int]:
    ready: futures.Future[tuple[int, Callable[[], Any]]] = futures.Future()

    async def serve(pool: futures.ThreadPoolExecutor) -> None:
        done = asyncio.Event()
        server = grpc.aio.server(pool, handlers=generic, interceptors=interceptors)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        loop = asyncio.get_running_loop()
        ready.set_result((port, lambda: loop.call_soon_threadsafe(done.set)))
        await done.wait()
        await server.stop(None)
        # The handlers' threads wait on the loop, so it ends after them.
        await loop.run_in_executor(None, pool.shutdown)

    with futures.ThreadPoolExecutor(16) as pool, futures.ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, serve(pool))
        port, stop = ready.result(PATIENCE)
        try:
            yield port
        finally:
            stop()
            running.result(PATIENCE)


class Answer(NamedTuple):
    """What a client sees: the code, the text, the ErrorInfo's reason and whether it had started."""

    code: str
    text: str = ""
    reason: str = ""
    started: bool = False
    messages: int = 0
    trailers: dict[str, Any] = {}  # noqa: RUF012 - a default that nobody changes

    @property
    def verdict(self) -> str:
        """In a few words, for tables."""
        words = [self.reason or self.code, "started" if self.started else ""]
        return " ".join(filter(None, words))


class Client:
    """Calls a guarded backend as a router does."""

    def __init__(self, channel: grpc.Channel, gates: Gates, guard: Any) -> None:
        self.channel = channel
        self.gates = gates
        self.guard = guard

    def start(self, name: str, prompt: str = "", *, identity: str = "") -> Any:
        """Begin a call of any shape: one call shape on the client serves all four."""
        kind = ModelOptions if name == "LoadModel" else Request
        field = "Model" if name == "LoadModel" else "ModelIdentity"
        # The second request of a stream has no prompt; a unary call takes one.
        streams = SHAPES.get(name, (False, False))[0]
        requests = itertools.islice(
            iter((kind(**{field: identity}, prompt=prompt), kind())), 2 if streams else 1
        )
        return self.channel.stream_stream(
            f"/{SERVICE}/{name}",
            request_serializer=kind.SerializeToString,
            response_deserializer=Result.FromString,
        )(requests, timeout=PATIENCE)

    def call(self, name: str, prompt: str = "", *, identity: str = "") -> Answer:
        return answer(self.start(name, prompt, identity=identity))

    def load(self, prompt: str = "", *, model: str = "m") -> Answer:
        return self.call("LoadModel", prompt, identity=model)


def answer(call: Any) -> Answer:
    """Wait for the end of a call."""
    messages = 0
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            messages += 1
    trailers = dict(call.trailing_metadata() or ())
    reason, started = "", False
    if details := trailers.get("grpc-status-details-bin"):
        info = error_details_pb2.ErrorInfo()
        assert status_pb2.Status.FromString(details).details[0].Unpack(info)
        reason, started = info.reason, info.metadata.get("started") == "true"
    return Answer(call.code().name, call.details(), reason, started, messages, trailers)


@contextlib.contextmanager
def guarded(surface: str, backend: Any = None, **options: Any) -> Iterator[Client]:
    """A backend behind its guard, and a client."""
    gates = Gates()
    kind = sync.ModelGuard if surface == "sync" else aio.ModelGuard
    guard = kind("kokoro", **options)
    served = handlers(backend or BACKENDS[surface](gates))
    with serving(surface, interceptors(surface, guard), {SERVICE: served}) as channel:
        yield Client(channel, gates, guard)
