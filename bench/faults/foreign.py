# ruff: noqa: N802, ARG002 - methods are named as their RPCs, and a servicer's take a context
"""A typical foreign backend: a synchronous server without a guard that sends no heartbeats.

It holds one model, answers Predict with "MODEL/PROMPT" (the prompt "wait 16" takes 16 s), and
appends each call and each load to its ledger.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendServicer, add_BackendServicer_to_server


class Foreign(BackendServicer):
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._held = ""
        self._calls = itertools.count()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._ledger = os.open(options.ledger, flags, 0o600)

    def Health(self, request: pb.HealthMessage, context: Any) -> pb.Reply:
        return pb.Reply(message=b"OK")

    def LoadModel(self, request: pb.ModelOptions, context: Any) -> pb.Result:
        self._write("LoadModel", request.Model)
        if self._options.hang_load:
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait()
        self._held = ""
        time.sleep(self._options.load_seconds)
        self._held = request.Model
        return pb.Result(success=True)

    def Free(self, request: pb.HealthMessage, context: Any) -> pb.Result:
        self._held = ""
        return pb.Result(success=True)

    def Predict(self, request: pb.PredictOptions, context: Any) -> pb.Reply:
        if not self._held and self._options.error_inside:
            return pb.Reply(message=b"model not loaded")
        self._admit(context)
        self._write("Predict", request.CorrelationId)
        if request.Prompt.startswith("wait "):
            time.sleep(float(request.Prompt.removeprefix("wait ")))
        return pb.Reply(message=f"{self._held}/{request.Prompt}".encode())

    def Embedding(self, request: pb.PredictOptions, context: Any) -> pb.EmbeddingResult:
        """Always fail, with a text that sounds as if the model were not loaded."""
        code = grpc.StatusCode[self._options.embedding_code]
        context.abort(code, "'BackendServicer' object has no attribute 'model'")
        raise AssertionError

    def TTS(self, request: pb.TTSRequest, context: Any) -> pb.Result:
        """Fail for any voice, and quote it; the status code alternates."""
        self._admit(context)
        if request.voice:
            odd = next(self._calls) % 2
            code = grpc.StatusCode.INTERNAL if odd else grpc.StatusCode.NOT_FOUND
            context.abort(code, f"no voice '{request.voice}'")
        return pb.Result(success=True)

    def AudioTranscription(
        self, request: pb.TranscriptRequest, context: Any
    ) -> pb.TranscriptResult:
        """Fail for any file, with its name unquoted; the name alternates between end and start."""
        self._admit(context)
        odd = next(self._calls) % 2
        text = f"{request.dst}: no such file" if odd else f"no file {request.dst}"
        context.abort(grpc.StatusCode.NOT_FOUND, text)
        raise AssertionError

    def _admit(self, context: Any) -> None:
        if not self._held:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "model not loaded")

    def _write(self, rpc: str, request: str) -> None:
        entry = {"rpc": rpc, "request": request, "pid": os.getpid(), "time": time.time()}
        os.write(self._ledger, json.dumps(entry).encode() + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--ledger", required=True, metavar="FILE")
    parser.add_argument("--workers", type=int, default=8, help="number of threads")
    parser.add_argument("--load-seconds", type=float, default=0.0, help="duration of a load")
    parser.add_argument("--hang-load", action="store_true", help="never answer LoadModel")
    parser.add_argument(
        "--error-inside", action="store_true", help="without a model, return OK with an error text"
    )
    parser.add_argument("--embedding-code", default="UNKNOWN", help="status code of Embedding")
    options = parser.parse_args()
    server = grpc.server(ThreadPoolExecutor(options.workers), options=(("grpc.so_reuseport", 0),))
    add_BackendServicer_to_server(Foreign(options), server)
    port = server.add_insecure_port(options.listen)
    server.start()
    print(f"foreign ready on {options.listen.rpartition(':')[0]}:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
