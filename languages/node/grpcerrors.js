/**
 * The error contract for model serving over gRPC: how a backend reports that it cannot serve a
 * request because of the state of its model, and how a client recognizes that. CONTRACT.md states
 * the rules. Copy this one file; it needs @grpc/grpc-js, and a package of `"type": "module"`.
 *
 * In a backend, before any work:
 *
 *     if (!model) return callback(modelNotLoaded("rfdetr", { model: "base.gguf" })); // unary
 *     if (!model) return call.emit("error", modelNotLoaded("rfdetr")); // streaming
 *
 * In a client, with the error of any call:
 *
 *     if (isModelNotLoaded(error)) dropTheStaleEntry();
 */
import { Metadata, status } from "@grpc/grpc-js";

/** The `google.rpc.ErrorInfo.domain` of the contract. */
export const DOMAIN = "grpcerrors";
/** The trailer with the reason of an error that proves that nothing was executed. */
export const UNEXECUTED_TRAILER = "grpcerrors-unexecuted";
/** The trailer with the model that a guard still held when the handler failed. */
export const HELD_TRAILER = "grpcerrors-held";

const DETAILS_TRAILER = "grpc-status-details-bin";
const TRAILERS_LIMIT = 4096; // bytes of all trailers, half of gRPC's default soft limit
const HEADER_OVERHEAD = 32; // what HPACK counts for a header (RFC 7541, section 4.1)
const HELD_LIMIT = 255; // bytes of the value of HELD_TRAILER
const TEXT_LIMIT = 16_384; // characters that are read of all messages of a chain
const CHAIN_LIMIT = 1_000; // errors that are read of a chain
const LONGEST_DELAY = 315_576_000_000; // seconds, of a google.protobuf.Duration

// BEGIN GENERATED: the tables of contract.json, by make_languages
const quotationPrefix =
  "^(?:Exception (?:calling application|iterating responses): |Unexpected <class '[^'\\n]+'>: )*";
const quotationOpening =
  "[\"`\u2018\u201a\u201b\u201c\u201e\u201f\u00ab\u2039\u300c\u300e]|(?:^|[^0-9A-Za-z_])[BbFfRrUu]{0,2}'";
const quotationClosing =
  "^.*([\"`\u2018\u2019\u201c\u201d\u00bb\u203a\u300d\u300f]|'(?:[^0-9A-Za-z_]|$))";
const wordsQuotedName =
  "(?:'[^']*'|\"[^\"]*\")";
const wordsName =
  "(?: ''| [a-z]{0,40}[^ \\t\\r\\na-z_'\\\"`][^ \\t\\r\\n]{0,200})?";
const wordsModel =
  "\\b(?:models?|engine|pipeline|weights)(?:(?:/| or | and )\\w+)?" + wordsName;
const wordsNot =
  "(?:(?:is|are|was|were|has|have)n't |(?:(?:is|are|was|were|has|have) )?(?:currently |still )?(?:not|never) )";
const wordsLoaded =
  "(?:loaded|initiali[sz]ed)\\b";
const wordsNotLoaded =
  wordsModel + " " + wordsNot + "(?:been |yet |currently ){0,2}" + wordsLoaded;
const wordsNoModelLoaded =
  "\\bno (?:active |valid )?(?:models?|engine|pipeline) (?:(?:is|are|was|were|has|have|been|yet|currently) ){0,3}" + wordsLoaded;
const wordsLoadFirst =
  "(?:" + wordsModel + " (?:is|are|was|were) (?:empty|none|null|nil|missing)[.,:;]? )?(?:please )?(?:\\bcall (?:\\w{1,40}\\.)?load_?model(?:\\(\\))? (?:first|before)\\b|\\bload (?:a|the) model (?:first|before)\\b)|\\bload_?model(?:\\(\\))? (?:was|has) (?:not|never) (?:been )?called\\b";
const wordsGone =
  wordsModel + " (?:is |was |has been |got )?(?:unloaded|evicted)\\b";
const wordsToken =
  "[^ \\t\\r\\n'\\\"`]{1,64}";
const wordsWork =
  "(?:backend|call|chat|completion|detection|diari[sz]ation|embedding|generation|inference|internal|model|prediction|request|rerank(?:ing)?|rpc|server|synthesis|transcription|translation|tts|asr|vad)";
const wordsWrapper =
  "(?:(?:" + wordsToken + ": ){0,2}rpc error: code = \\w{1,40} desc = |(?:\\[(?:error|fatal|warning)\\]:?|(?:error|fatal|warning):) |" + wordsWork + " (?:error|failed|failure): |(?:an )?error (?:during|in|while|when) (?:the |a )?(?:\\w{1,20}ing )?" + wordsWork + ": |error (?:generating|predicting|synthesi[sz]ing) \\w{1,20}: |error (?:processing|handling|serving|running|executing|calling) (?:the |a )?" + wordsWork + ": |(?:failed|unable|could not|cannot|can't) (?:to )?(?:generate|predict|infer|synthesi[sz]e|(?:run|process|handle|serve|execute|call) (?:the |a )?" + wordsWork + "): |(?:backend|node|replica|server|upstream|worker)(?: (?:''|" + wordsToken + "))?(?: (?:answers|answered|fails|failed|says|said))?: )";
const wordsLead =
  "(?:^(?:" + wordsWrapper + "){0,3}(?<backend>(?:''|" + wordsToken + ")(?:: " + wordsToken + "){0,2}: )?(?:" + wordsWrapper + "){0,2}(?:(?:the|this|your|our) )?(?:[\\w./-]{1,40}(?:'s)? )?)";
const wordsOfAnotherKind =
  "\\b(?:adapter|alignment|anti-?spoof|diarization|draft|lora|mmproj|projector|punctuation|refiner|speaker|vad|vocoder|query|rule|search|storage|template|for|of) ";
const wordsThing =
  "(?:audio|argument|dir|directory|emotion|field|file|filename|folder|format|function|grammar|id|image|input|key|lang|language|locale|option|parameter|path|preset|prompt|role|speaker|style|text|token|tool|uri|url|user|value|video|voice)(?: (?:file|id|name|path))?";
const wordsOfAUser =
  "(?:^|[ \\t\\r\\n:;,(])(?:" + wordsThing + ": (?:[^'\\\"`]|\\w'\\w){0,500}|(?:" + wordsThing + "|at|bad|called|find|from|get|illegal|in|into|invalid|loading|lstat|missing|named|near|no|open|opening|parse|parsing|read|reading|stat|such|to|unexpected|unknown|unrecogni[sz]ed|unsupported|write|writing):? )";
const wordsOfAFile =
  "\\b(?:no such file|permission denied|is a directory|not a directory|file name too long)\\b|\\b(?:not found|does not exist)\\.?$";
const wordsUsersFault =
  "\\b(?:no such|n[o']t (?:be )?found|doe(?:s not|sn't) exist|(?:not|un)[ -]?supported|permission denied|(?:is|not) an? (?:file|directory)|too long|is(?: not|n't) (?:an?|in|one|the|valid)|(?:is|:) (?:an? )?(?:bad|invalid|unknown|unrecogni[sz]ed)|must be (?:an?|in|one)|not (?:allowed|readable)|(?:cannot|could not|can't) (?:be )?(?:find|found|open|opened|read|write|written)|there (?:are|is)|has no|choose)\\b";
const wordsAfterwards =
  " (?:as|from|with)\\b|\\.[a-z0-9]{2,5}(?:\\W|$)";

const CONDITIONS = [
  {
    reason: "MODEL_NOT_LOADED",
    code: status.FAILED_PRECONDITION,
    message: "{backend}: model not loaded",
    codeAlone: true,
    unexecuted: true,
    dialects: [
      {
        // LocalAI and others
        codes: [status.FAILED_PRECONDITION, status.UNKNOWN, status.INTERNAL, status.UNAVAILABLE, null],
        hints: ["load", "initiali"],
        pattern:
          wordsLead + "(?:" + wordsNotLoaded + "|" + wordsNoModelLoaded + "|" + wordsLoadFirst + ")",
        unless:
          wordsOfAnotherKind + wordsNotLoaded +
          "|" + wordsOfAUser + "(?:" + wordsNotLoaded + "|" + wordsNoModelLoaded + "|" + wordsLoadFirst + ")" +
          "|(?:" + wordsNotLoaded + "|" + wordsNoModelLoaded + ")(?:" + wordsAfterwards + ")" +
          "|\\bpipeline is not loaded yet" +
          "|\\bcalled with no models loaded" +
          "|" + wordsUsersFault,
        unexecuted: true,
      },
      {
        // backends whose model went away under the call
        codes: [status.FAILED_PRECONDITION, status.UNKNOWN, status.INTERNAL, status.UNAVAILABLE],
        hints: ["unloaded", "evicted"],
        pattern:
          wordsLead + wordsGone,
        unless:
          wordsOfAnotherKind + wordsGone +
          "|" + wordsOfAUser + wordsGone +
          "|" + wordsGone + "(?:" + wordsAfterwards + ")" +
          "|" + wordsUsersFault,
        unexecuted: false,
      },
      {
        // Python handlers that use what only LoadModel sets
        codes: [status.UNKNOWN, status.INTERNAL],
        hints: ["has no attribute"],
        pattern:
          "^(?:(?:[Aa]n )?[Ee]rror(?: (?:generating|processing|running|during|in|while) \\w{1,40}(?: \\w{1,40})?)?: |(?:\\w{1,20} )?(?:\\w{2,20}tion|TTS|[Ii]nference|[Ss]ynthesis) (?:error|failed): |AttributeError: )?(?:'\\w{0,100}Servicer' object has no attribute '\\w{1,100}'|'NoneType' object has no attribute '(?:generate|predict|synthesize|transcribe)')$",
        unless:
          "",
        unexecuted: false,
      },
      {
        // Triton Inference Server
        codes: [status.UNAVAILABLE, status.NOT_FOUND],
        hints: ["unknown model"],
        pattern:
          "^Request for unknown model: '[^'\\n]*'(?: version -?\\d+)? (?:is not found|has no available versions)\\.?$",
        unless:
          "",
        unexecuted: true,
      },
      {
        // TensorFlow Serving
        codes: [status.NOT_FOUND],
        hints: ["servable not found", "could not find"],
        pattern:
          "^Servable not found for request: \\w{1,20}\\([^()\\n]{1,200}\\)$" +
          "|^Could not find (?:any versions|version \\d+) of model [^ \\t\\r\\n]{1,200}$",
        unless:
          "",
        unexecuted: true,
      },
      {
        // OpenVINO Model Server
        codes: [status.NOT_FOUND],
        hints: ["with requested", "is retired"],
        pattern:
          "^(?:(?:Model|Mediapipe graph definition) with requested (?:name|version|name and/or version) is not found|(?:Model with requested version|Pipeline|Mediapipe) is retired)\\.?$",
        unless:
          "",
        unexecuted: true,
      },
      {
        // TorchServe
        codes: [status.INTERNAL, status.NOT_FOUND],
        hints: ["model not found", "does not exist"],
        pattern:
          "^Model (?:not found: [^ \\t\\r\\n/]{1,200}|version: [^ \\t\\r\\n]{1,60} does not exist for model: [^ \\t\\r\\n]{1,200})(?:\\norg\\.pytorch\\.[\\w.]{1,200})?$",
        unless:
          "",
        unexecuted: true,
      },
      {
        // KServe
        codes: [status.UNKNOWN, status.NOT_FOUND],
        hints: ["does not exist"],
        pattern:
          "^Model with name [^ \\t\\r\\n]+ does not exist\\.?$",
        unless:
          "",
        unexecuted: true,
      },
      {
        // KServe ModelMesh, NVIDIA Dynamo
        codes: [status.NOT_FOUND],
        hints: ["model not found"],
        pattern:
          "^model not found$",
        unless:
          "",
        unexecuted: true,
      },
      {
        // Seldon MLServer
        codes: [status.NOT_FOUND],
        hints: ["not found"],
        pattern:
          "^Model [^ \\t\\r\\n]+ (?:with version [^ \\t\\r\\n]+ )?not found\\.?$",
        unless:
          "^Model file ",
        unexecuted: true,
      },
      {
        // Caikit
        codes: [status.NOT_FOUND],
        hints: ["not loaded"],
        pattern:
          "^Model (?:'[^'\\n]*'|[^ \\t\\r\\n]+ is) not loaded\\.?$",
        unless:
          "",
        unexecuted: true,
      },
      {
        // Ray Serve
        codes: [status.NOT_FOUND],
        hints: ["/ray.serve."],
        pattern:
          "^Application '[^'\\n]*' not found\\. (?:Please ping|Ping) /ray\\.serve\\.[\\w./]{1,80} for available applications\\.?$",
        unless:
          "",
        unexecuted: true,
      },
    ],
  },
  {
    reason: "MODEL_MISMATCH",
    code: status.NOT_FOUND,
    message: "{backend}: model identity mismatch: loaded \"{loaded}\", requested \"{requested}\"",
    codeAlone: false,
    unexecuted: true,
    dialects: [
      {
        // the contract, and LocalAI in Go and Python
        codes: [status.NOT_FOUND],
        hints: ["model identity mismatch"],
        pattern:
          "^(?<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model identity mismatch: loaded " + wordsQuotedName + ", requested " + wordsQuotedName + "$",
        unless:
          wordsOfAUser + "model identity mismatch",
        unexecuted: true,
      },
    ],
  },
  {
    reason: "MODEL_LOADING",
    code: status.UNAVAILABLE,
    message: "{backend}: model is loading",
    codeAlone: false,
    unexecuted: true,
    dialects: [
      {
        // the contract
        codes: [status.UNKNOWN, status.UNAVAILABLE],
        hints: ["model is loading"],
        pattern:
          "^(?<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model is loading$",
        unless:
          wordsOfAUser + "model is loading",
        unexecuted: true,
      },
    ],
  },
  {
    reason: "LIVE_TRANSCRIPTION_UNSUPPORTED",
    code: status.UNIMPLEMENTED,
    message: "{backend}: live transcription unsupported: {reason}",
    codeAlone: true,
    unexecuted: true,
    dialects: [
      {
        // the contract
        codes: [status.UNKNOWN, status.UNIMPLEMENTED, null],
        hints: ["unsupported"],
        pattern:
          wordsLead + "live transcription unsupported\\b",
        unless:
          wordsOfAUser + "live transcription unsupported" +
          "|" + wordsOfAFile,
        unexecuted: true,
      },
      {
        // stubs older than the RPC
        codes: [status.UNKNOWN, null],
        hints: ["unimplemented"],
        pattern:
          wordsLead + "unimplemented\\b|^rpc error: code = unimplemented\\b",
        unless:
          wordsOfAUser + "unimplemented" +
          "|" + wordsOfAFile,
        unexecuted: true,
      },
    ],
  },
  {
    reason: "STREAM_TRANSCRIPTION_UNSUPPORTED",
    code: status.UNIMPLEMENTED,
    message: "{backend}: streaming transcription unsupported: {reason}",
    codeAlone: false,
    unexecuted: true,
    dialects: [
      {
        // the contract
        codes: [status.UNKNOWN, status.UNIMPLEMENTED, null],
        hints: ["unsupported"],
        pattern:
          wordsLead + "streaming transcription unsupported\\b",
        unless:
          wordsOfAUser + "streaming transcription unsupported" +
          "|" + wordsOfAFile,
        unexecuted: true,
      },
    ],
  },
];
// END GENERATED

const BY_REASON = new Map(CONDITIONS.map((condition) => [condition.reason, condition]));
for (const { dialects } of CONDITIONS) {
  for (const dialect of dialects) {
    // A pattern that begins with ^ is a whole sentence, quoted text included, and case matters.
    dialect.whole = dialect.pattern.startsWith("^");
    for (const name of ["pattern", "unless"]) {
      const flags = dialect[name].startsWith("^") ? "" : "i";
      dialect[name] = dialect[name] && new RegExp(dialect[name], flags);
    }
  }
}

// ---- Reporting ----

/** An error of the contract, which grpc-js sends as it is: by `callback`, `emit` or `throw`. */
export class ContractError extends Error {
  /**
   * @param {string} reason of the condition, such as "MODEL_NOT_LOADED"
   * @param {Object<string, string>} fields those that the condition's message names, and others to
   *   send with it; empty ones are left out, and too long ones are cut
   * @param {object} [options]
   * @param {boolean} [options.started] whether the handler had begun to work on the request: then
   *   nothing proves that it was not executed
   * @param {number} [options.retryAfter] how many seconds the caller should wait
   * @param {unknown} [options.cause] the error that this one comes from
   */
  constructor(reason, fields, { started = false, retryAfter, cause } = {}) {
    const condition = BY_REASON.get(reason);
    if (!condition) throw new TypeError(`the contract does not know the reason ${reason}`);
    const { message, details, plain } = fit(condition, fields, started, retryAfter);
    super(message, cause === undefined ? undefined : { cause });
    this.name = "ContractError";
    this.code = condition.code;
    this.details = message;
    this.metadata = new Metadata();
    this.metadata.set(DETAILS_TRAILER, details);
    if (plain) this.metadata.set(UNEXECUTED_TRAILER, plain);
  }
}

/** The backend does not hold the model; `model` is its identity, if known. */
export function modelNotLoaded(backend, { model = "", started = false, cause } = {}) {
  return new ContractError("MODEL_NOT_LOADED", { backend, model }, { started, cause });
}

/** The backend holds the model `loaded`, and the request names `requested`. */
export function modelMismatch(backend, loaded, requested) {
  return new ContractError("MODEL_MISMATCH", { backend, loaded, requested });
}

/** The backend is loading the model; the caller may try again in `retryAfter` seconds. */
export function modelLoading(backend, { model = "", retryAfter = 1 } = {}) {
  return new ContractError("MODEL_LOADING", { backend, model }, { retryAfter });
}

/** The backend, or its model, cannot transcribe live; `reason` says why in a few words. */
export function liveTranscriptionUnsupported(backend, reason) {
  return new ContractError("LIVE_TRANSCRIPTION_UNSUPPORTED", { backend, reason });
}

/** The backend, or its model, cannot stream a transcription; `reason` says why in a few words. */
export function streamTranscriptionUnsupported(backend, reason) {
  return new ContractError("STREAM_TRANSCRIPTION_UNSUPPORTED", { backend, reason });
}

/**
 * Vouch that the model is still loaded, so that a handler's error has another cause.
 *
 * @param {Metadata} metadata that of the error, which gets the trailer
 * @param {string} [model] the model's identity, empty if it has none
 */
export function setHeld(metadata, model = "") {
  let value = percentEncoded(cut(model, HELD_LIMIT), 0x21) || "1";
  for (let limit = HELD_LIMIT - 1; value.length > HELD_LIMIT; limit--) {
    value = percentEncoded(cut(model, limit), 0x21);
  }
  metadata.set(HELD_TRAILER, value);
}

/** Encode an error; if it is too long, cut all fields to the same number of bytes. */
function fit(condition, fields, started, retryAfter) {
  const plain = condition.unexecuted && !started ? condition.reason : "";
  const encode = (longest) => {
    const values = Object.fromEntries(
      Object.entries(fields).map(([name, value]) => [name, cut(value, longest)]),
    );
    const message = condition.message.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
    const metadata = started ? { ...values, started: "true" } : values;
    return { message, details: pack(condition, message, metadata, retryAfter), plain };
  };
  let fitting = -1;
  let tooLong = TRAILERS_LIMIT + 1;
  for (let longest = TRAILERS_LIMIT; tooLong - fitting > 1; ) {
    if (trailersSize(encode(longest)) <= TRAILERS_LIMIT) fitting = longest;
    else tooLong = longest;
    longest = (fitting + tooLong) >> 1;
  }
  return encode(fitting);
}

/** Count the bytes of an error's trailers as HPACK does. */
function trailersSize({ message, details, plain }) {
  const headers = [
    ["grpc-status", 2],
    ["grpc-message", percentEncoded(message, 0x20).length],
    [DETAILS_TRAILER, Math.ceil(details.length / 3) * 4],
  ];
  if (plain) headers.push([UNEXECUTED_TRAILER, plain.length]);
  return headers.reduce((size, [name, value]) => size + name.length + value + HEADER_OVERHEAD, 0);
}

/** Cut a text to at most `limit` bytes of UTF-8, between two characters. */
function cut(text, limit) {
  const bytes = Buffer.from(text); // a lone surrogate becomes U+FFFD
  let end = Math.min(limit, bytes.length);
  while (end < bytes.length && (bytes[end] & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end);
}

/** Encode `%` and every byte that is not between `first` and `~`. */
function percentEncoded(text, first) {
  const encode = (byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  const plain = (byte) => byte >= first && byte <= 0x7e && byte !== 0x25;
  return Array.from(Buffer.from(text), (byte) =>
    plain(byte) ? String.fromCharCode(byte) : encode(byte),
  ).join("");
}

/** Leave alone what is not percent-encoded properly. */
function percentDecoded(text) {
  const bytes = [...text.matchAll(/%([0-9a-f]{2})|[^]/gi)].map(([each, hex]) =>
    hex ? Buffer.from(hex, "hex") : Buffer.from(each),
  );
  return Buffer.concat(bytes).toString();
}

// ---- Recognizing ----

/**
 * @typedef {object} Verdict what an error means
 * @property {string | null} reason that of the condition; null for none that the contract knows
 * @property {"details" | "trailer" | "text" | "code" | null} evidence what decided, strongest first:
 *   an ErrorInfo; the plain trailer, where the details were lost; the words; the bare code. The
 *   first two decide for no condition if they give a reason that this version does not know
 * @property {boolean} unexecuted whether it is proved that the request was not executed: then it may
 *   be sent to another replica, unless the first message of a stream has been delivered
 * @property {Object<string, string>} metadata that of the ErrorInfo; or `backend`, if the words name
 *   it
 * @property {number | null} retryAfter how many seconds the sender asks to wait, if it does
 */

/**
 * Return what an error, or one that it wraps (`cause`, or the `errors` of an AggregateError), means.
 * Takes any value. The strongest evidence decides; between equals, the outermost error.
 *
 * @returns {Verdict}
 */
export function classify(error) {
  return judge(survey(error))[0] ?? verdict(null, null);
}

/**
 * Return the model that a guard still held when the handler failed, in this error or one that it
 * wraps; "1" is a model without an identity, null none. It does not mean that the model is gone.
 */
export function heldModel(error) {
  return survey(error).find(({ held }) => held)?.held ?? null;
}

/** Whether an error, or one that it wraps, means MODEL_NOT_LOADED. */
export const isModelNotLoaded = (error) => says(error, "MODEL_NOT_LOADED");
/** Whether an error, or one that it wraps, means MODEL_MISMATCH. */
export const isModelMismatch = (error) => says(error, "MODEL_MISMATCH");
/** Whether an error, or one that it wraps, means MODEL_LOADING. */
export const isModelLoading = (error) => says(error, "MODEL_LOADING");
/** Whether an error, or one that it wraps, means LIVE_TRANSCRIPTION_UNSUPPORTED. */
export const isLiveTranscriptionUnsupported = (error) =>
  says(error, "LIVE_TRANSCRIPTION_UNSUPPORTED");
/** Whether an error, or one that it wraps, means STREAM_TRANSCRIPTION_UNSUPPORTED. */
export const isStreamTranscriptionUnsupported = (error) =>
  says(error, "STREAM_TRANSCRIPTION_UNSUPPORTED");

function says(error, reason) {
  return judge(survey(error)).some((each) => each.reason === reason);
}

function verdict(condition, evidence, unexecuted = false, metadata = {}, retryAfter = null) {
  return { reason: condition?.reason ?? null, evidence, unexecuted, metadata, retryAfter };
}

/** Read an error and all that it wraps, each once, outermost first. */
function survey(error) {
  const found = [];
  const seen = new Set();
  const pending = [error];
  let room = TEXT_LIMIT;
  while (pending.length && seen.size < CHAIN_LIMIT) {
    const node = pending.pop();
    if (seen.has(node) || node === null || typeof node !== "object") continue;
    seen.add(node);
    const facts = tried(() => read(node)) ?? { code: null, text: "", infos: [], held: null };
    facts.text = facts.text.slice(0, room);
    room -= facts.text.length;
    found.push(facts);
    const members = node instanceof AggregateError ? node.errors.slice(0, CHAIN_LIMIT) : [];
    pending.push(...[node.cause, ...members].reverse());
  }
  return found;
}

/** Read what one error says of itself: its code, its text, its ErrorInfos and the model held. */
function read({ code, details, message, metadata }) {
  const texts = [details, message, ""].filter((text) => typeof text === "string");
  const values = (name) => metadata?.get?.(name) ?? [];
  // Node joins values of the same name. None of the contract's own contains a space.
  const plain = (name) => values(name).flatMap((value) => value.split(", "));
  return {
    code: Number.isInteger(code) && code !== status.OK && code in status ? code : null,
    text: texts[0],
    infos: [...unpack(agreed(values(DETAILS_TRAILER))), ...plainInfo(plain(UNEXECUTED_TRAILER))],
    held: plain(HELD_TRAILER).map(percentDecoded).find(Boolean) ?? null,
  };
}

/** Return the value on which all agree; undefined if there is none, or if they contradict. */
function agreed(values) {
  const [first, ...others] = values.map((value) => Buffer.from(value));
  return others.every((value) => value.equals(first)) ? first : undefined;
}

/** Read the plain trailer as an ErrorInfo. A domain other than the contract's stands before it. */
function plainInfo(values) {
  const path = (agreed(values)?.toString().trim() ?? "").split("/");
  const reason = path.pop();
  const domain = path.join("/") || DOMAIN;
  return reason ? [{ domain, reason, metadata: {}, retryAfter: null, plain: true }] : [];
}

/** Return the verdicts of the highest rung that decides anything, outermost error first. */
function judge(found) {
  const typed = found.map(({ infos }) => judgeTyped(infos)).filter(Boolean);
  for (const rung of ["details", "trailer"]) {
    const decided = typed.filter(({ evidence }) => evidence === rung);
    if (decided.length) return decided;
  }
  // If a guard vouches that the model was there, words and code mean something else.
  if (found.some(({ held }) => held)) return [];
  // An error without a code may quote the one that it wraps, and only the code of that one shows
  // whether the words are a backend's or a user's.
  const coded = found.some(({ code }) => code !== null);
  const bare = found
    .filter(({ code }) => code !== null || !coded)
    .map(({ code, text }) => judgeWords(code, text) ?? judgeCode(code))
    .filter(Boolean);
  const said = bare.filter(({ evidence }) => evidence === "text");
  if (said.length) return said;
  // An ErrorInfo of any domain says what the sender means by its code.
  return found.some(({ infos }) => infos.length) ? [] : bare;
}

/** Judge by an ErrorInfo of the contract, else by the plain trailer, which comes last. */
function judgeTyped(infos) {
  const [known, ...others] = infos.filter(({ domain }) => domain === DOMAIN);
  if (!known) return null;
  if (others.some(({ reason, plain }) => reason !== known.reason && !plain)) return null;
  const condition = BY_REASON.get(known.reason);
  if (known.plain) return verdict(condition, "trailer", true);
  const unexecuted = Boolean(condition?.unexecuted) && known.metadata.started !== "true";
  return verdict(condition, "details", unexecuted, known.metadata, known.retryAfter);
}

/** Judge by the condition whose words come first: what follows may be quoted by them. */
function judgeWords(code, text) {
  const lowered = text.toLowerCase();
  const hinted = CONDITIONS.flatMap((condition) =>
    condition.dialects
      .filter(({ codes }) => codes.includes(code))
      .filter(({ hints }) => hints.some((hint) => lowered.includes(hint)))
      .map((dialect) => ({ condition, dialect })),
  );
  if (!hinted.length) return null;
  const whole = text.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, "").replace(EXCEPTION_PREFIX, "");
  const rest = unquoted(whole);
  let first = Infinity;
  let decided = null;
  for (const { condition, dialect } of hinted) {
    const searched = dialect.whole ? whole : rest;
    const match = dialect.pattern.exec(searched);
    if (!match || match.index >= first) continue;
    if (dialect.unless && dialect.unless.test(searched)) continue;
    first = match.index;
    const before = match.groups?.backend ?? searched.slice(0, first);
    const metadata = before.length > 2 && before.endsWith(": ") ? { backend: before.slice(0, -2) } : {};
    decided = verdict(condition, "text", condition.unexecuted && dialect.unexecuted, metadata);
  }
  return decided;
}

function judgeCode(code) {
  const condition = CONDITIONS.find((each) => each.codeAlone && each.code === code);
  return condition ? verdict(condition, "code") : null;
}

/** What grpcio puts in front of the text of an exception. */
const EXCEPTION_PREFIX = new RegExp(quotationPrefix);
const OPENING_MARK = new RegExp(quotationOpening);
const CLOSING_MARK = new RegExp(quotationClosing, "ds");

/**
 * Remove what is quoted: everything from the first opening mark to the last closing mark, whatever
 * the marks are, because a user may write some too.
 */
function unquoted(message) {
  const opening = OPENING_MARK.exec(message);
  if (!opening) return message;
  const start = opening.index + opening[0].length - 1;
  const rest = message.slice(start + 1);
  const closing = CLOSING_MARK.exec(rest);
  return `${message.slice(0, start)}''${closing ? rest.slice(closing.indices[1][0] + 1) : ""}`;
}

// ---- google.rpc.Status, ErrorInfo and RetryInfo as protobuf writes them ----

const TYPE_PREFIX = "type.googleapis.com/";
const ERROR_INFO = "google.rpc.ErrorInfo";
const RETRY_INFO = "google.rpc.RetryInfo";
const VARINT = 0;
const FIXED_64 = 1;
const BYTES = 2;
const GROUP = 3;
const END_OF_GROUP = 4;
const FIXED_32 = 5;

/** Return the value of the details trailer: a google.rpc.Status with its details. */
function pack({ reason, code }, message, metadata, retryAfter) {
  const entries = Object.entries(metadata).filter(([, value]) => value !== "");
  entries.sort(([one], [other]) => (one < other ? -1 : 1)); // the bytes are deterministic
  const info = Buffer.concat([
    field(1, reason),
    field(2, DOMAIN),
    ...entries.map(([name, value]) => field(3, Buffer.concat([field(1, name), field(2, value)]))),
  ]);
  const details = [[ERROR_INFO, info]];
  if (retryAfter !== undefined) {
    const nanos = Math.floor(Math.min(Math.max(retryAfter, 0), LONGEST_DELAY) * 1e9);
    const delay = [field(1, Math.floor(nanos / 1e9)), field(2, nanos % 1e9)];
    details.push([RETRY_INFO, field(1, Buffer.concat(delay))]);
  }
  return Buffer.concat([
    field(1, code),
    field(2, message),
    ...details.map(([type, value]) =>
      field(3, Buffer.concat([field(1, TYPE_PREFIX + type), field(2, value)])),
    ),
  ]);
}

/** Encode one field: a number that is not negative, a text, or bytes. */
function field(number, value) {
  if (typeof value === "number") {
    return value ? Buffer.concat([varint((number << 3) | VARINT), varint(value)]) : Buffer.alloc(0);
  }
  const bytes = Buffer.from(value);
  // proto3 leaves out an empty text, but not an empty message.
  if (value === "") return Buffer.alloc(0);
  return Buffer.concat([varint((number << 3) | BYTES), varint(bytes.length), bytes]);
}

function varint(value) {
  const bytes = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80);
  return Buffer.from([...bytes, value]);
}

/** Return every ErrorInfo of a google.rpc.Status; none if it cannot be decoded. */
function unpack(trailer) {
  const infos = [];
  let retryAfter = null;
  for (const { type, value } of tried(() => unpackDetails(trailer ?? Buffer.alloc(0))) ?? []) {
    if (type === ERROR_INFO) infos.push(tried(() => unpackErrorInfo(value)));
    if (type === RETRY_INFO) retryAfter ??= tried(() => unpackDelay(value));
  }
  return infos.filter(Boolean).map((info) => ({ ...info, retryAfter, plain: false }));
}

function unpackDetails(trailer) {
  const read = fields(trailer);
  text(read, 2); // the message, which must be text like any other
  return all(read, 3).map((detail) => {
    const packed = fields(detail);
    // Some senders and proxies write another prefix, or none: only the type's name counts.
    const type = text(packed, 1).split("/").at(-1);
    return { type, value: all(packed, 2).at(-1) ?? Buffer.alloc(0) };
  });
}

function unpackErrorInfo(bytes) {
  const read = fields(bytes);
  const entries = all(read, 3).map(fields);
  const metadata = Object.fromEntries(entries.map((entry) => [text(entry, 1), text(entry, 2)]));
  return { reason: text(read, 1), domain: text(read, 2), metadata };
}

/** Return the seconds of a RetryInfo; null for what no sender can mean. */
function unpackDelay(bytes) {
  const delay = fields(Buffer.concat(all(fields(bytes), 1))); // parts of one message are merged
  const [seconds, nanos] = [1, 2].map((id) => all(delay, id, "number").at(-1) ?? 0);
  return seconds <= LONGEST_DELAY && nanos < 1e9 ? seconds + nanos / 1e9 : null;
}

/** Return all values of a field; those of another wire type are unknown fields. */
const all = (read, id, type = "object") =>
  read.filter(([each, value]) => each === id && typeof value === type).map(([, value]) => value);

/** Return the last text of a field; throws if one is not UTF-8, which protobuf does not accept. */
const text = (read, id) =>
  all(read, id)
    .map((bytes) => STRICT_UTF8.decode(bytes))
    .at(-1) ?? "";

const STRICT_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Read the fields of a message as pairs of number and value: a number that is not negative (one
 * that is reads as 2^63 and more), or bytes. Throws if they cannot be read.
 */
function fields(bytes) {
  const found = [];
  const groups = []; // the numbers of those that are open; what is in them is not read
  let at = 0;
  const take = (length) => {
    if (at + length > bytes.length) throw new RangeError("truncated");
    at += length;
    return bytes.subarray(at - length, at);
  };
  const number = () => {
    let value = 0;
    for (let factor = 1; factor < 2 ** 70; factor *= 0x80) {
      const [byte] = take(1);
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    throw new RangeError("a varint has at most ten bytes");
  };
  while (at < bytes.length) {
    const tag = number();
    const [id, type] = [Math.floor(tag / 8), tag % 8];
    if (id === 0 || tag >= 2 ** 32) throw new RangeError(`field ${id}`);
    let value;
    if (type === VARINT) value = number();
    else if (type === BYTES) value = take(number());
    else if (type === FIXED_64) take(8);
    else if (type === FIXED_32) take(4);
    else if (type === GROUP) groups.push(id);
    else if (type !== END_OF_GROUP || groups.pop() !== id) throw new RangeError(`type ${type}`);
    if (value !== undefined && !groups.length) found.push([id, value]);
  }
  if (groups.length) throw new RangeError("truncated");
  return found;
}

function tried(action) {
  try {
    return action();
  } catch {
    return null;
  }
}
