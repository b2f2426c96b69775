import assert from "node:assert/strict";
import test from "node:test";
import { Metadata, status } from "@grpc/grpc-js";
import * as contract from "./grpcerrors.js";

const failure = (code, details, metadata = new Metadata()) =>
  Object.assign(new Error(`${code}: ${details}`), { code, details, metadata });
const trailers = (name, value) => {
  const metadata = new Metadata();
  metadata.set(name, value);
  return metadata;
};

test("classify reads what an error wraps", () => {
  const typed = contract.modelNotLoaded("rfdetr", { model: "base.gguf" });
  const bare = failure(status.FAILED_PRECONDITION, "no");
  const words = failure(status.UNKNOWN, "vad: model not loaded");
  const cyclic = new Error("x");
  cyclic.cause = cyclic;
  const throwing = {
    get code() {
      throw new Error("no");
    },
  };
  const plain = trailers(contract.UNEXECUTED_TRAILER, "MODEL_MISMATCH");
  const held = trailers(contract.HELD_TRAILER, "m");
  for (const [error, reason, evidence] of [
    [null, null, null],
    ["model not loaded", null, null],
    [cyclic, null, null],
    [throwing, null, null],
    [typed, "MODEL_NOT_LOADED", "details"],
    [new Error("predict", { cause: typed }), "MODEL_NOT_LOADED", "details"],
    [new AggregateError([null, new Error("x"), typed]), "MODEL_NOT_LOADED", "details"],
    [new AggregateError([bare, words]), "MODEL_NOT_LOADED", "text"],
    [new Error("vad: model not loaded"), "MODEL_NOT_LOADED", "text"],
    [new Error("model not loaded", { cause: failure(status.NOT_FOUND, "no") }), null, null],
    [failure(status.UNKNOWN, "no", plain), "MODEL_MISMATCH", "trailer"],
    [failure(status.UNKNOWN, "vad: model not loaded", held), null, null],
  ]) {
    const verdict = contract.classify(error);
    assert.deepEqual([verdict.reason, verdict.evidence], [reason, evidence]);
    assert.equal(contract.isModelNotLoaded(error), reason === "MODEL_NOT_LOADED");
  }
});

test("the predicates know their conditions", () => {
  const predicates = [
    contract.isModelNotLoaded,
    contract.isModelMismatch,
    contract.isModelLoading,
    contract.isLiveTranscriptionUnsupported,
    contract.isStreamTranscriptionUnsupported,
  ];
  const built = [
    contract.modelNotLoaded("b"),
    contract.modelMismatch("b", "m", "n"),
    contract.modelLoading("b"),
    contract.liveTranscriptionUnsupported("b", "offline"),
    contract.streamTranscriptionUnsupported("b", "offline"),
  ];
  built.forEach((error, i) => {
    assert.deepEqual(
      predicates.map((predicate) => predicate(error)),
      predicates.map((_, j) => i === j),
    );
  });
});

test("words name the backend", () => {
  for (const [code, message, backend] of [
    [status.UNKNOWN, "vad: model not loaded", "vad"],
    [status.UNKNOWN, "model not loaded", undefined],
    [status.NOT_FOUND, 'vllm: model identity mismatch: loaded "a", requested "b"', "vllm"],
  ]) {
    assert.equal(contract.classify(failure(code, message)).metadata.backend, backend);
  }
});

test("an error keeps its cause, and waits as long as it is told", () => {
  const cause = new Error("evicted");
  const error = contract.modelNotLoaded("b", { started: true, cause });
  assert.equal(error.cause, cause);
  assert.equal(contract.classify(error).unexecuted, false);
  assert.equal(contract.classify(contract.modelLoading("b", { retryAfter: 2.5 })).retryAfter, 2.5);
  assert.equal(contract.classify(contract.modelLoading("b", { retryAfter: -1 })).retryAfter, 0);
});

test("lone surrogates are sent as UTF-8", () => {
  assert.equal(contract.modelNotLoaded("a\ud800b").details, "a\ufffdb: model not loaded");
});

test("the held model fits", () => {
  for (const [model, value] of [
    ["", "1"],
    ["tiny.en", "tiny.en"],
    ["a b%", "a%20b%25"],
    ["a".repeat(999), "a".repeat(255)],
    ["語".repeat(99), "%E8%AA%9E".repeat(28)],
    ["a".repeat(200) + "語".repeat(9), "a".repeat(200) + "%E8%AA%9E".repeat(6)],
  ]) {
    const metadata = new Metadata();
    contract.setHeld(metadata, model);
    assert.deepEqual(metadata.get(contract.HELD_TRAILER), [value]);
  }
});
