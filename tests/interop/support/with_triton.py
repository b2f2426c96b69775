"""A client with tritonclient: prints what it got from the server at its argument, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from grpcerrors import classify


def text(*texts: bytes, datatype: str = "BYTES") -> Any:
    made = triton.InferInput("text", [len(texts)], datatype)
    array = np.array(texts, dtype=object) if datatype == "BYTES" else np.zeros(1, np.float32)
    made.set_data_from_numpy(array)
    return made


def failure(call: Any, *arguments: Any) -> list[Any]:
    try:
        call(*arguments)
    except InferenceServerException as error:
        verdict = classify(error.__context__)
        reason = verdict.condition.reason if verdict.condition else None
        evidence = verdict.evidence and verdict.evidence.value
        return [error.status(), error.message(), reason, evidence]
    return []


def main() -> None:
    server = triton.InferenceServerClient(sys.argv[1])
    said: dict[str, Any] = {"live": server.is_server_live()}
    said["missing"] = failure(server.infer, "m", [text(b"a")])
    server.load_model("m")
    said["ready"] = server.is_model_ready("m")
    said["index"] = [each.name for each in server.get_model_repository_index().models]
    said["inputs"] = [each.name for each in server.get_model_metadata("m").inputs]
    result = server.infer("m", [text(b"a", "ö".encode())], request_id="7")
    said["answer"] = [each.decode() for each in result.as_numpy("text")]
    said["bad"] = failure(server.infer, "m", [text(b"a", datatype="FP32")])
    server.unload_model("m")
    said["gone"] = failure(server.infer, "m", [text(b"a")])
    sys.stdout.write(json.dumps(said))


main()
