// The error contract for model serving over gRPC, for @grpc/grpc-js.
import { status } from "@grpc/grpc-js";

// BEGIN GENERATED: the tables of contract.json, by make_languages
const wordsQuotedName =
  "(?:'[^']*'|\"[^\"]*\")";
const wordsName =
  "(?: (?:''|``|\\\"\\\")| [a-z]{0,40}[^\\sa-z_'\\\"`]\\S{0,200})?";
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
const wordsGone =
  wordsModel + " (?:is |was |has been |got )?(?:unloaded|evicted)\\b";
const wordsOfAnotherKind =
  "\\b(?:adapter|alignment|anti-?spoof|diarization|draft|lora|mmproj|projector|punctuation|refiner|speaker|vad|vocoder|query|rule|search|storage|template|for|of) ";
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
          wordsNotLoaded +
          "|" + wordsNoModelLoaded +
          "|\\bcall (?:\\w+\\.)?load_?model(?:\\(\\))? (?:first|before)\\b" +
          "|\\bload_?model(?:\\(\\))? (?:was|has) (?:not|never) (?:been )?called\\b" +
          "|\\bload (?:a|the) model (?:first|before)\\b",
        unless:
          wordsOfAnotherKind + wordsNotLoaded +
          "|(?:" + wordsNotLoaded + "|" + wordsNoModelLoaded + ")(?:" + wordsAfterwards + ")" +
          "|\\bpipeline is not loaded yet" +
          "|\\bcalled with no models loaded" +
          "|\\bno such file or directory",
        unexecuted: true,
      },
      {
        // backends whose model went away under the call
        codes: [status.FAILED_PRECONDITION, status.UNKNOWN, status.INTERNAL, status.UNAVAILABLE],
        hints: ["unloaded", "evicted"],
        pattern:
          wordsGone,
        unless:
          wordsOfAnotherKind + wordsGone +
          "|" + wordsGone + "(?:" + wordsAfterwards + ")",
        unexecuted: false,
      },
      {
        // Python handlers that use what only LoadModel sets
        codes: [status.UNKNOWN, status.INTERNAL],
        hints: ["has no attribute"],
        pattern:
          "^(?:[\\w ]{1,60}: )?(?:'\\w{0,100}Servicer' object has no attribute '\\w{1,100}'|'NoneType' object has no attribute '(?:generate|predict|synthesize|transcribe)')$",
        unless:
          "",
        unexecuted: false,
      },
      {
        // Triton Inference Server
        codes: [status.UNAVAILABLE, status.NOT_FOUND],
        hints: ["unknown model"],
        pattern:
          "^Request for unknown model: '[^'\\n]*'",
        unless:
          "^Request for unknown model: '[^'\\n]*' version -?\\d+ is not at ready state",
        unexecuted: true,
      },
      {
        // TensorFlow Serving
        codes: [status.NOT_FOUND],
        hints: ["servable not found", "could not find"],
        pattern:
          "^(?:Servable not found for request: |Could not find (?:any versions|version \\d+) of model )",
        unless:
          "",
        unexecuted: true,
      },
      {
        // OpenVINO Model Server
        codes: [status.NOT_FOUND],
        hints: ["with requested", "is retired"],
        pattern:
          "^(?:(?:Model|Mediapipe graph definition) with requested (?:name|version|name and/or version) is not found|(?:Model with requested version|Pipeline|Mediapipe) is retired)\\b",
        unless:
          "",
        unexecuted: true,
      },
      {
        // TorchServe
        codes: [status.INTERNAL, status.NOT_FOUND],
        hints: ["model not found", "does not exist"],
        pattern:
          "^(?:Model not found: [^\\s/]+(?:\\norg\\.pytorch\\.|$)|Model version: \\S+ does not exist for model: )",
        unless:
          "",
        unexecuted: true,
      },
      {
        // KServe
        codes: [status.UNKNOWN, status.NOT_FOUND],
        hints: ["does not exist"],
        pattern:
          "^Model with name \\S+ does not exist\\.?$",
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
          "^Model \\S+ (?:with version \\S+ )?not found\\.?$",
        unless:
          "^Model file ",
        unexecuted: true,
      },
      {
        // Caikit
        codes: [status.NOT_FOUND],
        hints: ["not loaded"],
        pattern:
          "^Model (?:'[^'\\n]*'|\\S+ is) not loaded\\.?$",
        unless:
          "",
        unexecuted: true,
      },
      {
        // Ray Serve
        codes: [status.NOT_FOUND],
        hints: ["/ray.serve."],
        pattern:
          "^Application '[^'\\n]*' not found\\. (?:Please ping|Ping) /ray\\.serve\\.",
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
          "^(?<backend>[^\\s'\\\"`]{0,100}: )?model identity mismatch: loaded " + wordsQuotedName + ", requested " + wordsQuotedName + "$",
        unless:
          "",
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
          "^(?<backend>[^\\s'\\\"`]{0,100}: )?model is loading$",
        unless:
          "",
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
          "live transcription unsupported",
        unless:
          "",
        unexecuted: true,
      },
      {
        // stubs older than the RPC
        codes: [status.UNKNOWN, null],
        hints: ["unimplemented"],
        pattern:
          "unimplemented",
        unless:
          "",
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
          "streaming transcription unsupported",
        unless:
          "",
        unexecuted: true,
      },
    ],
  },
];
// END GENERATED

export const REASONS = CONDITIONS.map(({ reason }) => reason);
