//! grpcerrors for Rust: emits and recognizes the errors of CONTRACT.md. Copy this file.
//!
//! It needs the standard library only, so it fits every gRPC library. With tonic, a handler returns
//! `Err(grpcerrors::model_not_loaded("rfdetr", "").into())` before it does any work, thanks to this
//! conversion:
//!
//! ```ignore
//! impl From<grpcerrors::Error> for tonic::Status {
//!     fn from(error: grpcerrors::Error) -> Self {
//!         let mut metadata = tonic::metadata::MetadataMap::new();
//!         if let Some(reason) = error.unexecuted {
//!             let value = tonic::metadata::MetadataValue::from_static(reason);
//!             metadata.insert(grpcerrors::UNEXECUTED_KEY, value);
//!         }
//!         let details = error.details.into();
//!         Self::with_details_and_metadata(error.code.into(), error.message, details, metadata)
//!     }
//! }
//! ```
//!
//! A client or a router asks what a `tonic::Status` means:
//!
//! ```ignore
//! let headers = status.metadata().clone().into_headers();
//! let details = (grpcerrors::DETAILS_KEY, status.details()); // tonic keeps them elsewhere
//! let trailers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
//! let all = trailers.chain([details]);
//! let verdict = grpcerrors::classify(status.code() as i32, status.message(), all);
//! if verdict.is(grpcerrors::MODEL_NOT_LOADED) && verdict.typed() { drop_replica(); }
//! if verdict.unexecuted { resend(); } // if no message of a stream has been delivered
//! ```
//!
//! Nothing here panics, whatever a peer sends. It compiles with Rust 1.63 and later.

#![allow(dead_code)] // hardly any program uses all of it

use std::collections::BTreeMap;

/// The `google.rpc.ErrorInfo.domain` of the contract.
pub const DOMAIN: &str = "grpcerrors";
/// The trailer that holds a serialized `google.rpc.Status`.
pub const DETAILS_KEY: &str = "grpc-status-details-bin";
/// The trailer that says without protobuf that nothing was executed, and why.
pub const UNEXECUTED_KEY: &str = "grpcerrors-unexecuted";
/// The trailer that names the model that a guard still held when the handler failed.
pub const HELD_KEY: &str = "grpcerrors-held";

/// The model is not in this process.
pub const MODEL_NOT_LOADED: &str = "MODEL_NOT_LOADED";
/// The process holds one model, and the request names another.
pub const MODEL_MISMATCH: &str = "MODEL_MISMATCH";
/// The model is being loaded.
pub const MODEL_LOADING: &str = "MODEL_LOADING";
/// The backend, or the model in it, cannot transcribe live.
pub const LIVE_TRANSCRIPTION_UNSUPPORTED: &str = "LIVE_TRANSCRIPTION_UNSUPPORTED";
/// The backend, or the model in it, cannot stream transcriptions.
pub const STREAM_TRANSCRIPTION_UNSUPPORTED: &str = "STREAM_TRANSCRIPTION_UNSUPPORTED";

const TRAILERS_LIMIT: usize = 4096; // bytes, as HPACK counts them
const HEADER_OVERHEAD: usize = 32; // what HPACK charges for a header (RFC 7541, section 4.1)
const HELD_LIMIT: usize = 255; // bytes of the vouching trailer's value
const TEXT_LIMIT: usize = 16_384; // characters of a message that are read
const LONGEST_DELAY: f64 = 315_576_000_000.0; // seconds of a google.protobuf.Duration
const ERROR_INFO: &str = "google.rpc.ErrorInfo";
const RETRY_INFO: &str = "google.rpc.RetryInfo";

// The gRPC status codes that the tables name.
const UNKNOWN: i32 = 2;
const NOT_FOUND: i32 = 5;
const FAILED_PRECONDITION: i32 = 9;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;

/// One thing that can be wrong, with all that is needed to report and detect it.
struct Condition {
    reason: &'static str,
    code: i32,
    message: &'static str, // with {name} for each field
    code_alone: bool,      // whether the bare code is enough
    unexecuted: bool,      // whether it proves that nothing was executed
    dialects: &'static [Dialect],
}

/// How a system words a condition when it sends no details.
struct Dialect {
    codes: &'static [Option<i32>], // under which these words count
    pattern: &'static str,         // with ^ first: a whole sentence; else it is searched for
    unless: &'static str,          // a message that matches this too does not count
    unexecuted: bool,              // whether who says so cannot have begun to execute the request
}

// BEGIN GENERATED: the tables of contract.json, by make_languages
#[rustfmt::skip]
const PREFIX: &str = "^(?:Exception (?:calling application|iterating responses): |Unexpected <class '[^'\\n]+'>: )*";
#[rustfmt::skip]
const OPENING: &str = "[\"`‘‚‛“„‟«‹「『]|(?:^|[^0-9A-Za-z_])[BbFfRrUu]{0,2}'";
#[rustfmt::skip]
const CLOSING: &str = "(?s)^.*([\"`‘’“”»›」』]|'(?:[^0-9A-Za-z_]|$))";

#[rustfmt::skip]
static FRAGMENTS: &[(&str, &str)] = &[
    ("quoted_name", "(?:'[^']*'|\"[^\"]*\")"),
    ("name", "(?: ''| [a-z]{0,40}[^ \\t\\r\\na-z_'\\\"`][^ \\t\\r\\n]{0,200})?"),
    ("model", "\\b(?:models?|engine|pipeline|weights)(?:(?:/| or | and )\\w+)?{{name}}"),
    ("not", "(?:(?:is|are|was|were|has|have)n't |(?:(?:is|are|was|were|has|have) )?(?:currently |still )?(?:not|never) )"),
    ("loaded", "(?:loaded|initiali[sz]ed)\\b"),
    ("not_loaded", "{{model}} {{not}}(?:been |yet |currently ){0,2}{{loaded}}"),
    ("no_model_loaded", "\\bno (?:active |valid )?(?:models?|engine|pipeline) (?:(?:is|are|was|were|has|have|been|yet|currently) ){0,3}{{loaded}}"),
    ("load_first", "(?:{{model}} (?:is|are|was|were) (?:empty|none|null|nil|missing)[.,:;]? )?(?:please )?(?:\\bcall (?:\\w{1,40}\\.)?load_?model(?:\\(\\))? (?:first|before)\\b|\\bload (?:a|the) model (?:first|before)\\b)|\\bload_?model(?:\\(\\))? (?:was|has) (?:not|never) (?:been )?called\\b"),
    ("gone", "{{model}} (?:is |was |has been |got )?(?:unloaded|evicted)\\b"),
    ("token", "[^ \\t\\r\\n'\\\"`]{1,64}"),
    ("work", "(?:backend|call|chat|completion|detection|diari[sz]ation|embedding|generation|inference|internal|model|prediction|request|rerank(?:ing)?|rpc|server|synthesis|transcription|translation|tts|asr|vad)"),
    ("wrapper", "(?:(?:{{token}}: ){0,2}rpc error: code = \\w{1,40} desc = |(?:\\[(?:error|fatal|warning)\\]:?|(?:error|fatal|warning):) |{{work}} (?:error|failed|failure): |(?:an )?error (?:during|in|while|when) (?:the |a )?(?:\\w{1,20}ing )?{{work}}: |error (?:generating|predicting|synthesi[sz]ing) \\w{1,20}: |error (?:processing|handling|serving|running|executing|calling) (?:the |a )?{{work}}: |(?:failed|unable|could not|cannot|can't) (?:to )?(?:generate|predict|infer|synthesi[sz]e|(?:run|process|handle|serve|execute|call) (?:the |a )?{{work}}): |(?:backend|node|replica|server|upstream|worker)(?: (?:''|{{token}}))?(?: (?:answers|answered|fails|failed|says|said))?: )"),
    ("lead", "(?:^(?:{{wrapper}}){0,3}(?P<backend>(?:''|{{token}})(?:: {{token}}){0,2}: )?(?:{{wrapper}}){0,2}(?:(?:the|this|your|our) )?(?:[\\w./-]{1,40}(?:'s)? )?)"),
    ("of_another_kind", "\\b(?:adapter|alignment|anti-?spoof|diarization|draft|lora|mmproj|projector|punctuation|refiner|speaker|vad|vocoder|query|rule|search|storage|template|for|of) "),
    ("thing", "(?:audio|argument|dir|directory|emotion|field|file|filename|folder|format|function|grammar|id|image|input|key|lang|language|locale|option|parameter|path|preset|prompt|role|speaker|style|text|token|tool|uri|url|user|value|video|voice)(?: (?:file|id|name|path))?"),
    ("of_a_user", "(?:^|[ \\t\\r\\n:;,(])(?:{{thing}}: (?:[^'\\\"`]|\\w'\\w){0,500}|(?:{{thing}}|at|bad|called|find|from|get|illegal|in|into|invalid|loading|lstat|missing|named|near|no|open|opening|parse|parsing|read|reading|stat|such|to|unexpected|unknown|unrecogni[sz]ed|unsupported|write|writing):? )"),
    ("of_a_file", "\\b(?:no such file|permission denied|is a directory|not a directory|file name too long)\\b|\\b(?:not found|does not exist)\\.?$"),
    ("users_fault", "\\b(?:no such|n[o']t (?:be )?found|doe(?:s not|sn't) exist|(?:not|un)[ -]?supported|permission denied|(?:is|not) an? (?:file|directory)|too long|is(?: not|n't) (?:an?|in|one|the|valid)|(?:is|:) (?:an? )?(?:bad|invalid|unknown|unrecogni[sz]ed)|must be (?:an?|in|one)|not (?:allowed|readable)|(?:cannot|could not|can't) (?:be )?(?:find|found|open|opened|read|write|written)|there (?:are|is)|has no|choose)\\b"),
    ("afterwards", " (?:as|from|with)\\b|\\.[a-z0-9]{2,5}(?:\\W|$)"),
];

#[rustfmt::skip]
static CONDITIONS: &[Condition] = &[
    Condition {
        reason: MODEL_NOT_LOADED,
        code: FAILED_PRECONDITION,
        message: "{backend}: model not loaded",
        code_alone: true,
        unexecuted: true,
        dialects: &[
            // LocalAI and others
            Dialect {
                codes: &[Some(FAILED_PRECONDITION), Some(UNKNOWN), Some(INTERNAL), Some(UNAVAILABLE), None],
                pattern: "{{lead}}(?:{{not_loaded}}|{{no_model_loaded}}|{{load_first}})",
                unless: concat!(
                    "{{of_another_kind}}{{not_loaded}}",
                    "|{{of_a_user}}(?:{{not_loaded}}|{{no_model_loaded}}|{{load_first}})",
                    "|(?:{{not_loaded}}|{{no_model_loaded}})(?:{{afterwards}})",
                    "|\\bpipeline is not loaded yet",
                    "|\\bcalled with no models loaded",
                    "|{{users_fault}}"
                ),
                unexecuted: true,
            },
            // backends whose model went away under the call
            Dialect {
                codes: &[Some(FAILED_PRECONDITION), Some(UNKNOWN), Some(INTERNAL), Some(UNAVAILABLE)],
                pattern: "{{lead}}{{gone}}",
                unless: concat!(
                    "{{of_another_kind}}{{gone}}",
                    "|{{of_a_user}}{{gone}}",
                    "|{{gone}}(?:{{afterwards}})",
                    "|{{users_fault}}"
                ),
                unexecuted: false,
            },
            // Python handlers that use what only LoadModel sets
            Dialect {
                codes: &[Some(UNKNOWN), Some(INTERNAL)],
                pattern: "^(?:(?:[Aa]n )?[Ee]rror(?: (?:generating|processing|running|during|in|while) \\w{1,40}(?: \\w{1,40})?)?: |(?:\\w{1,20} )?(?:\\w{2,20}tion|TTS|[Ii]nference|[Ss]ynthesis) (?:error|failed): |AttributeError: )?(?:'\\w{0,100}Servicer' object has no attribute '\\w{1,100}'|'NoneType' object has no attribute '(?:generate|predict|synthesize|transcribe)')$",
                unless: "",
                unexecuted: false,
            },
            // Triton Inference Server
            Dialect {
                codes: &[Some(UNAVAILABLE), Some(NOT_FOUND)],
                pattern: "^Request for unknown model: '[^'\\n]*'(?: version -?\\d+)? (?:is not found|has no available versions)\\.?$",
                unless: "",
                unexecuted: true,
            },
            // TensorFlow Serving
            Dialect {
                codes: &[Some(NOT_FOUND)],
                pattern: concat!(
                    "^Servable not found for request: \\w{1,20}\\([^()\\n]{1,200}\\)$",
                    "|^Could not find (?:any versions|version \\d+) of model [^ \\t\\r\\n]{1,200}$"
                ),
                unless: "",
                unexecuted: true,
            },
            // OpenVINO Model Server
            Dialect {
                codes: &[Some(NOT_FOUND)],
                pattern: "^(?:(?:Model|Mediapipe graph definition) with requested (?:name|version|name and/or version) is not found|(?:Model with requested version|Pipeline|Mediapipe) is retired)\\.?$",
                unless: "",
                unexecuted: true,
            },
            // TorchServe
            Dialect {
                codes: &[Some(INTERNAL), Some(NOT_FOUND)],
                pattern: "^Model (?:not found: [^ \\t\\r\\n/]{1,200}|version: [^ \\t\\r\\n]{1,60} does not exist for model: [^ \\t\\r\\n]{1,200})(?:\\norg\\.pytorch\\.[\\w.]{1,200})?$",
                unless: "",
                unexecuted: true,
            },
            // KServe
            Dialect {
                codes: &[Some(UNKNOWN), Some(NOT_FOUND)],
                pattern: "^Model with name [^ \\t\\r\\n]+ does not exist\\.?$",
                unless: "",
                unexecuted: true,
            },
            // KServe ModelMesh, NVIDIA Dynamo
            Dialect {
                codes: &[Some(NOT_FOUND)],
                pattern: "^model not found$",
                unless: "",
                unexecuted: true,
            },
            // Seldon MLServer
            Dialect {
                codes: &[Some(NOT_FOUND)],
                pattern: "^Model [^ \\t\\r\\n]+ (?:with version [^ \\t\\r\\n]+ )?not found\\.?$",
                unless: "^Model file ",
                unexecuted: true,
            },
            // Caikit
            Dialect {
                codes: &[Some(NOT_FOUND)],
                pattern: "^Model (?:'[^'\\n]*'|[^ \\t\\r\\n]+ is) not loaded\\.?$",
                unless: "",
                unexecuted: true,
            },
            // Ray Serve
            Dialect {
                codes: &[Some(NOT_FOUND)],
                pattern: "^Application '[^'\\n]*' not found\\. (?:Please ping|Ping) /ray\\.serve\\.[\\w./]{1,80} for available applications\\.?$",
                unless: "",
                unexecuted: true,
            },
        ],
    },
    Condition {
        reason: MODEL_MISMATCH,
        code: NOT_FOUND,
        message: "{backend}: model identity mismatch: loaded \"{loaded}\", requested \"{requested}\"",
        code_alone: false,
        unexecuted: true,
        dialects: &[
            // the contract, and LocalAI in Go and Python
            Dialect {
                codes: &[Some(NOT_FOUND)],
                pattern: "^(?P<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model identity mismatch: loaded {{quoted_name}}, requested {{quoted_name}}$",
                unless: "{{of_a_user}}model identity mismatch",
                unexecuted: true,
            },
        ],
    },
    Condition {
        reason: MODEL_LOADING,
        code: UNAVAILABLE,
        message: "{backend}: model is loading",
        code_alone: false,
        unexecuted: true,
        dialects: &[
            // the contract
            Dialect {
                codes: &[Some(UNKNOWN), Some(UNAVAILABLE)],
                pattern: "^(?P<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model is loading$",
                unless: "{{of_a_user}}model is loading",
                unexecuted: true,
            },
        ],
    },
    Condition {
        reason: LIVE_TRANSCRIPTION_UNSUPPORTED,
        code: UNIMPLEMENTED,
        message: "{backend}: live transcription unsupported: {reason}",
        code_alone: true,
        unexecuted: true,
        dialects: &[
            // the contract
            Dialect {
                codes: &[Some(UNKNOWN), Some(UNIMPLEMENTED), None],
                pattern: "{{lead}}live transcription unsupported\\b",
                unless: concat!(
                    "{{of_a_user}}live transcription unsupported",
                    "|{{of_a_file}}"
                ),
                unexecuted: true,
            },
            // stubs older than the RPC
            Dialect {
                codes: &[Some(UNKNOWN), None],
                pattern: "{{lead}}unimplemented\\b|^rpc error: code = unimplemented\\b",
                unless: concat!(
                    "{{of_a_user}}unimplemented",
                    "|{{of_a_file}}"
                ),
                unexecuted: true,
            },
        ],
    },
    Condition {
        reason: STREAM_TRANSCRIPTION_UNSUPPORTED,
        code: UNIMPLEMENTED,
        message: "{backend}: streaming transcription unsupported: {reason}",
        code_alone: false,
        unexecuted: true,
        dialects: &[
            // the contract
            Dialect {
                codes: &[Some(UNKNOWN), Some(UNIMPLEMENTED), None],
                pattern: "{{lead}}streaming transcription unsupported\\b",
                unless: concat!(
                    "{{of_a_user}}streaming transcription unsupported",
                    "|{{of_a_file}}"
                ),
                unexecuted: true,
            },
        ],
    },
];
// END GENERATED

// ---- Errors to send ----------------------------------------------------------------------------

/// An error as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// The gRPC status code.
    pub code: i32,
    /// The status message.
    pub message: String,
    /// The value of the trailer [`DETAILS_KEY`].
    pub details: Vec<u8>,
    /// The value of the trailer [`UNEXECUTED_KEY`], if it is to be sent.
    pub unexecuted: Option<&'static str>,
}

/// FAILED_PRECONDITION: `backend` does not hold the model, whose identity is `model`, or "".
pub fn model_not_loaded(backend: &str, model: &str) -> Error {
    make(MODEL_NOT_LOADED, &[("backend", backend), ("model", model)], false, None)
}

/// As [`model_not_loaded`], where the handler had begun to work on the request.
pub fn model_not_loaded_started(backend: &str, model: &str) -> Error {
    make(MODEL_NOT_LOADED, &[("backend", backend), ("model", model)], true, None)
}

/// NOT_FOUND: `backend` holds the model `loaded`, but the request names `requested`.
pub fn model_mismatch(backend: &str, loaded: &str, requested: &str) -> Error {
    let fields = [("backend", backend), ("loaded", loaded), ("requested", requested)];
    make(MODEL_MISMATCH, &fields, false, None)
}

/// UNAVAILABLE: `backend` is loading the model; ask again in `retry_after` seconds.
pub fn model_loading(backend: &str, model: &str, retry_after: f64) -> Error {
    make(MODEL_LOADING, &[("backend", backend), ("model", model)], false, Some(retry_after))
}

/// UNIMPLEMENTED: `backend`, or its model, cannot transcribe live; `reason` says why.
pub fn live_transcription_unsupported(backend: &str, reason: &str) -> Error {
    let fields = [("backend", backend), ("reason", reason)];
    make(LIVE_TRANSCRIPTION_UNSUPPORTED, &fields, false, None)
}

/// UNIMPLEMENTED: `backend`, or its model, cannot stream transcriptions; `reason` says why.
pub fn stream_transcription_unsupported(backend: &str, reason: &str) -> Error {
    let fields = [("backend", backend), ("reason", reason)];
    make(STREAM_TRANSCRIPTION_UNSUPPORTED, &fields, false, None)
}

/// The value of the trailer [`HELD_KEY`], with which a guard that still holds `model` marks a
/// failure of the handler: whatever failed, the model is here. It never goes with an [`Error`].
pub fn held(model: &str) -> String {
    let mut value = percent_encoded(cut(model, HELD_LIMIT));
    for limit in (0..HELD_LIMIT).rev() {
        if value.len() <= HELD_LIMIT {
            break;
        }
        value = percent_encoded(cut(model, limit));
    }
    if value.is_empty() {
        value.push('1');
    }
    value
}

/// Builds the error of a condition; cuts the values to what fits into the trailers.
///
/// # Panics
///
/// Panics if the contract does not know the reason.
pub fn make(
    reason: &str,
    fields: &[(&str, &str)],
    started: bool,
    retry_after: Option<f64>,
) -> Error {
    let condition = CONDITIONS.iter().find(|each| each.reason == reason).expect("a known reason");
    let build = |longest| build(condition, fields, started, retry_after, longest);
    let fits = |error: &Error| trailers_size(error) <= TRAILERS_LIMIT;
    let error = build(TRAILERS_LIMIT);
    if fits(&error) {
        return error;
    }
    let (mut longest, mut step) = (0, TRAILERS_LIMIT / 2);
    while step > 0 {
        if fits(&build(longest + step)) {
            longest += step;
        }
        step /= 2;
    }
    build(longest)
}

/// Builds the error of a condition, with every value cut to the same number of bytes.
fn build(
    condition: &Condition,
    fields: &[(&str, &str)],
    started: bool,
    retry_after: Option<f64>,
    longest: usize,
) -> Error {
    let mut values: BTreeMap<&str, &str> =
        fields.iter().map(|(name, value)| (*name, cut(value, longest))).collect();
    let mut message = String::new();
    for (i, part) in condition.message.split(&['{', '}'][..]).enumerate() {
        message += if i % 2 == 0 { part } else { values.get(part).copied().unwrap_or("") };
    }
    if started {
        values.insert("started", "true");
    }

    let details = encode(condition, &message, values, retry_after);
    let unexecuted = Some(condition.reason).filter(|_| condition.unexecuted && !started);
    Error { code: condition.code, message, details, unexecuted }
}

/// Serializes a `google.rpc.Status` with its details. The bytes are deterministic: a map is sorted.
fn encode(
    condition: &Condition,
    message: &str,
    metadata: BTreeMap<&str, &str>,
    retry_after: Option<f64>,
) -> Vec<u8> {
    let (mut info, mut status) = (Vec::new(), Vec::new());
    put_bytes(&mut info, 1, condition.reason.as_bytes());
    put_bytes(&mut info, 2, DOMAIN.as_bytes());
    for (name, value) in metadata.into_iter().filter(|(_, value)| !value.is_empty()) {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, name.as_bytes());
        put_bytes(&mut entry, 2, value.as_bytes());
        put_bytes(&mut info, 3, &entry);
    }
    put_number(&mut status, 1, condition.code as u64);
    put_bytes(&mut status, 2, message.as_bytes());
    put_bytes(&mut status, 3, &packed(ERROR_INFO, &info));
    if let Some(seconds) = retry_after {
        let nanos = (seconds.clamp(0.0, LONGEST_DELAY) * 1e9) as u128;
        let (mut delay, mut retry) = (Vec::new(), Vec::new());
        put_number(&mut delay, 1, (nanos / 1_000_000_000) as u64);
        put_number(&mut delay, 2, (nanos % 1_000_000_000) as u64);
        put_bytes(&mut retry, 1, &delay);
        put_bytes(&mut status, 3, &packed(RETRY_INFO, &retry));
    }
    status
}

/// Counts the bytes of an error's trailers as HPACK does; the message is percent-encoded.
fn trailers_size(error: &Error) -> usize {
    let trailer = |name: &str, value: usize| name.len() + HEADER_OVERHEAD + value;
    let message = error.message.bytes().map(|byte| if unescaped(byte) { 1 } else { 3 }).sum();
    trailer("grpc-status", 2)
        + trailer("grpc-message", message)
        + trailer(DETAILS_KEY, (error.details.len() + 2) / 3 * 4)
        + error.unexecuted.map_or(0, |reason| trailer(UNEXECUTED_KEY, reason.len()))
}

/// Cuts a text to at most `limit` bytes, on a character's boundary.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn unescaped(byte: u8) -> bool {
    (0x20..=0x7e).contains(&byte) && byte != b'%'
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b' ' => "%20".to_owned(),
        _ if unescaped(byte) => char::from(byte).to_string(),
        _ => format!("%{:02X}", byte),
    };
    text.bytes().map(encode).collect()
}

// ---- What an error means -----------------------------------------------------------------------

/// The rung that decided, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    Details,
    Trailer,
    Text,
    Code,
}

/// What an error means, and on what evidence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The reason of the condition; None for nothing that the contract knows.
    pub reason: Option<&'static str>,
    /// The rung that decided. Details and the plain trailer may decide for no condition.
    pub evidence: Option<Evidence>,
    /// Whether it is proved that the request was not executed, so that it may be sent elsewhere.
    pub unexecuted: bool,
    /// The metadata of the ErrorInfo that decided, or the `backend` that the words name.
    pub fields: BTreeMap<String, String>,
    /// How many seconds the sender asks to wait, if it does.
    pub retry_after: Option<f64>,
    /// The model that a guard still held when the handler failed; "1" is one without an identity.
    pub held: Option<String>,
}

impl Verdict {
    /// Whether the error means this condition.
    pub fn is(&self, reason: &str) -> bool {
        self.reason == Some(reason)
    }

    /// Whether the sender said it by the contract: in details, or by the plain trailer.
    pub fn typed(&self) -> bool {
        matches!(self.evidence, Some(Evidence::Details) | Some(Evidence::Trailer))
    }

    /// Whether the handler had begun to work on the request before it failed.
    pub fn started(&self) -> bool {
        self.field("started") == "true"
    }

    /// A value of `fields`, such as `backend` or `model`, or "".
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Judges an error by its details, else the plain trailer, else its words, else the bare code.
///
/// `code` is the status code, None for an error that has none. Values of `-bin` trailers are raw
/// bytes, as gRPC libraries give them.
pub fn classify<'a>(
    code: impl Into<Option<i32>>,
    message: &str,
    trailers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Verdict {
    let code = code.into();
    let trailers: Vec<_> = trailers.into_iter().collect();
    let held = trailers.iter().find(|(name, value)| *name == HELD_KEY && !value.is_empty());
    let mut verdict =
        Verdict { held: held.map(|(_, value)| percent_decoded(value)), ..Verdict::default() };
    let (mut infos, retry_after) =
        decode_details(one_value(&trailers, DETAILS_KEY)).unwrap_or_default();
    infos.extend(decode_plain(one_value(&trailers, UNEXECUTED_KEY)));

    let mut ours = infos.iter().filter(|info| info.domain == DOMAIN);
    if let Some(known) = ours.next() {
        // An error has one ErrorInfo: others contradict it. Details overrule the plain trailer.
        if ours.all(|other| other.plain || other.reason == known.reason) {
            let known_condition = CONDITIONS.iter().find(|each| each.reason == known.reason);
            verdict.fields = known.metadata.clone();
            verdict.evidence =
                Some(if known.plain { Evidence::Trailer } else { Evidence::Details });
            verdict.retry_after = retry_after.filter(|_| !known.plain);
            verdict.reason = known_condition.map(|each| each.reason);
            let proves = known_condition.map_or(false, |each| each.unexecuted);
            verdict.unexecuted = known.plain || proves && !verdict.started();
            return verdict;
        }
    }
    if verdict.held.is_some() {
        return verdict;
    }
    if let Some((condition, dialect, backend)) = by_words(code, message) {
        verdict.reason = Some(condition.reason);
        verdict.evidence = Some(Evidence::Text);
        verdict.unexecuted = condition.unexecuted && dialect.unexecuted;
        verdict.fields.extend(backend.map(|name| ("backend".to_owned(), name)));
        return verdict;
    }
    // An ErrorInfo of any domain says what the sender meant by its code.
    let alone = CONDITIONS.iter().find(|each| each.code_alone && Some(each.code) == code);
    if let Some(condition) = alone.filter(|_| infos.is_empty()) {
        verdict.reason = Some(condition.reason);
        verdict.evidence = Some(Evidence::Code);
    }
    verdict
}

/// Returns the one value of a trailer, or nothing. A proxy may have doubled it; different values
/// contradict each other.
fn one_value<'a>(trailers: &[(&str, &'a [u8])], key: &str) -> &'a [u8] {
    let mut values = trailers.iter().filter(|(name, _)| *name == key).map(|(_, value)| *value);
    let first = values.next().unwrap_or(b"");
    if values.all(|value| value == first) {
        first
    } else {
        b""
    }
}

/// A `google.rpc.ErrorInfo`, or what the plain trailer says.
#[derive(Default)]
struct Info {
    domain: String,
    reason: String,
    metadata: BTreeMap<String, String>,
    plain: bool,
}

fn decode_plain(value: &[u8]) -> Option<Info> {
    let text = String::from_utf8_lossy(value);
    let text = text.trim();
    let (domain, reason) = text.rsplit_once('/').unwrap_or(("", text));
    if reason.is_empty() {
        return None;
    }
    let domain = if domain.is_empty() { DOMAIN } else { domain }.to_owned();
    Some(Info { domain, reason: reason.to_owned(), metadata: BTreeMap::new(), plain: true })
}

fn percent_decoded(value: &[u8]) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut result = Vec::new();
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, digit(rest.first()), digit(rest.get(1))) {
            (b'%', Some(high), Some(low)) => {
                result.push((high * 16 + low) as u8);
                rest = &rest[2..];
            }
            _ => result.push(byte),
        }
    }
    String::from_utf8_lossy(&result).into_owned()
}

/// Reads every ErrorInfo of a `google.rpc.Status`, and the delay of a RetryInfo; None if the
/// bytes cannot be decoded.
fn decode_details(bytes: &[u8]) -> Option<(Vec<Info>, Option<f64>)> {
    let mut details: Vec<(String, &[u8])> = Vec::new();
    for_each_field(bytes, |number, value| {
        match (number, value) {
            (2, Value::Bytes(message)) => drop(text(message)?),
            (3, Value::Bytes(any)) => {
                let (mut type_url, mut packed) = (String::new(), &b""[..]);
                for_each_field(any, |number, value| {
                    match (number, value) {
                        (1, Value::Bytes(value)) => type_url = text(value)?,
                        (2, Value::Bytes(value)) => packed = value,
                        _ => {}
                    }
                    Some(())
                })?;
                details.push((type_url, packed));
            }
            _ => {}
        }
        Some(())
    })?;
    let (mut infos, mut retry_after) = (Vec::new(), None);
    for (type_url, packed) in details {
        match type_url.rsplit('/').next() {
            Some(ERROR_INFO) => infos.extend(decode_info(packed)),
            Some(RETRY_INFO) => retry_after = retry_after.or_else(|| decode_retry(packed)),
            _ => {}
        }
    }
    Some((infos, retry_after))
}

fn decode_info(bytes: &[u8]) -> Option<Info> {
    let mut info = Info::default();
    for_each_field(bytes, |number, value| {
        match (number, value) {
            (1, Value::Bytes(value)) => info.reason = text(value)?,
            (2, Value::Bytes(value)) => info.domain = text(value)?,
            (3, Value::Bytes(entry)) => {
                let (mut name, mut content) = (String::new(), String::new());
                for_each_field(entry, |number, value| {
                    match (number, value) {
                        (1, Value::Bytes(value)) => name = text(value)?,
                        (2, Value::Bytes(value)) => content = text(value)?,
                        _ => {}
                    }
                    Some(())
                })?;
                info.metadata.insert(name, content);
            }
            _ => {}
        }
        Some(())
    })?;
    Some(info)
}

/// Returns the seconds of a `google.rpc.RetryInfo`; None for a delay that no sender means.
fn decode_retry(bytes: &[u8]) -> Option<f64> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    for_each_field(bytes, |number, value| match (number, value) {
        (1, Value::Bytes(delay)) => for_each_field(delay, |number, value| {
            match (number, value) {
                (1, Value::Number(value)) => seconds = value as i64,
                (2, Value::Number(value)) => nanos = value as i32,
                _ => {}
            }
            Some(())
        }),
        _ => Some(()),
    })?;
    let whole = seconds as f64;
    let meant = (0.0..=LONGEST_DELAY).contains(&whole) && (0..1_000_000_000).contains(&nanos);
    Some(whole + f64::from(nanos) / 1e9).filter(|_| meant)
}

// ---- Protobuf's wire format --------------------------------------------------------------------

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        put_varint(out, field << 3);
        put_varint(out, value);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn packed(name: &str, message: &[u8]) -> Vec<u8> {
    let mut any = Vec::new();
    put_bytes(&mut any, 1, format!("type.googleapis.com/{}", name).as_bytes());
    if !message.is_empty() {
        put_bytes(&mut any, 2, message);
    }
    any
}

/// The value of a field that is of interest here; others are skipped.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Visits each field of a message; None if the bytes cannot be decoded, or if a visit is None.
fn for_each_field<'a>(
    mut bytes: &'a [u8],
    mut visit: impl FnMut(u64, Value<'a>) -> Option<()>,
) -> Option<()> {
    let mut groups = Vec::new(); // the numbers of the groups that are open: they are skipped
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let number = tag >> 3;
        if number == 0 || tag > u64::from(u32::MAX) {
            return None;
        }
        let value = match tag & 7 {
            0 => Some(Value::Number(take_varint(&mut bytes)?)),
            1 => take(&mut bytes, 8).map(|_| None)?,
            2 => {
                let size = take_varint(&mut bytes)?;
                Some(Value::Bytes(take(&mut bytes, size)?))
            }
            3 if groups.len() < 100 => {
                groups.push(number);
                None
            }
            4 if groups.pop() == Some(number) => None,
            5 => take(&mut bytes, 4).map(|_| None)?,
            _ => return None,
        };
        if let Some(value) = value.filter(|_| groups.is_empty()) {
            visit(number, value)?;
        }
    }
    Some(()).filter(|_| groups.is_empty())
}

fn take<'a>(bytes: &mut &'a [u8], size: u64) -> Option<&'a [u8]> {
    if size > bytes.len() as u64 {
        return None;
    }
    let (taken, rest) = bytes.split_at(size as usize);
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift; // what is too much is cut off
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// A string must be UTF-8 to be decoded.
fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

// ---- Words -------------------------------------------------------------------------------------

/// A dialect with its compiled patterns.
struct Words {
    condition: &'static Condition,
    dialect: &'static Dialect,
    pattern: Pattern,
    unless: Option<Pattern>,
}

/// Returns whose words come first in a message, and the backend that they name; words that follow
/// may be a quotation.
fn by_words(
    code: Option<i32>,
    message: &str,
) -> Option<(&'static Condition, &'static Dialect, Option<String>)> {
    thread_local! {
        static WORDS: Vec<Words> = CONDITIONS
            .iter()
            .flat_map(|condition| condition.dialects.iter().map(move |dialect| Words {
                condition,
                dialect,
                pattern: Pattern::new(dialect.pattern),
                unless: Some(dialect.unless).filter(|it| !it.is_empty()).map(Pattern::new),
            }))
            .collect();
    }
    let message: Vec<char> = message.chars().take(TEXT_LIMIT).collect();
    let whole = stripped(&message);
    let unquoted = unquoted(whole);
    WORDS.with(|all| {
        let mut first = usize::MAX;
        let mut said = None;
        for words in all.iter().filter(|words| words.dialect.codes.contains(&code)) {
            let text = if words.pattern.whole { whole } else { &unquoted };
            let found = match words.pattern.search(text) {
                Some(found) if found.start < first => found,
                _ => continue,
            };
            if words.unless.iter().any(|unless| unless.search(text).is_some()) {
                continue;
            }
            first = found.start;
            let (open, close) = if found.group.1 > 0 { found.group } else { (0, first) };
            let backend = text[open..close].strip_suffix(&[':', ' ']);
            said = Some((words.condition, words.dialect, backend.map(|it| it.iter().collect())));
        }
        said
    })
}

thread_local! {
    static QUOTATION: [Pattern; 3] = [PREFIX, OPENING, CLOSING].map(Pattern::new);
}

/// Returns a message without white space around it and what grpcio puts before an exception.
fn stripped(text: &[char]) -> &[char] {
    let visible = |c: &char| !matches!(c, ' ' | '\t' | '\r' | '\n');
    let first = text.iter().position(visible).unwrap_or(0);
    let end = text.iter().rposition(visible).map_or(0, |last| last + 1);
    let text = &text[first..end];
    let prefix = QUOTATION.with(|[prefix, ..]| prefix.search(text));
    &text[prefix.map_or(0, |found| found.end)..]
}

/// Returns a message without what is quoted in it: all from the first opening mark to the last
/// closing mark, whatever the marks are, because a user may write some too.
fn unquoted(text: &[char]) -> Vec<char> {
    QUOTATION.with(|[_, opening, closing]| {
        let (before, rest) = match opening.search(text) {
            None => return text.to_vec(),
            Some(mark) => (&text[..mark.end - 1], &text[mark.end..]),
        };
        let after = closing.search(rest).map_or(&[][..], |mark| &rest[mark.group.0 + 1..]);
        [before, &['\'', '\''], after].concat()
    })
}

/// A pattern of the RE2 subset that contract.json uses. It runs all alternatives side by side (a
/// Pike machine), so its time is linear in the text. `\b`, `\d`, `\s`, `\w` and the folding of case
/// are ASCII; `$` is the end of the text.
struct Pattern {
    whole: bool, // a whole sentence, in which case matters
    steps: Vec<Step>,
}

#[derive(Clone, Copy)]
struct Match {
    start: usize,
    end: usize,
    group: (usize, usize), // where the group began and ended, (0, 0) without one
}

/// Jumps are relative, so that a piece of a program can be repeated anywhere.
#[derive(Clone)]
enum Step {
    Set(Set),
    Split(usize), // go on here, or else so many steps ahead
    Jump(isize),
    Assert(fn(before: Option<char>, after: Option<char>) -> bool),
    Open,
    Close,
    Match,
}

#[derive(Clone, Default)]
struct Set {
    ranges: Vec<(char, char)>,
    negated: bool,
    ignore_case: bool,
}

impl Set {
    fn has(&self, c: char) -> bool {
        let within =
            |c: char| self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
        let other =
            if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        (within(c) || self.ignore_case && within(other)) != self.negated
    }
}

/// Puts the fragments that patterns share in their places.
fn expanded(pattern: &str) -> String {
    let mut parts = pattern.split("{{");
    let mut result = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("a fragment's name");
        let fragment = FRAGMENTS.iter().find(|(known, _)| *known == name).expect("a fragment");
        result += &expanded(fragment.1);
        result += rest;
    }
    result
}

impl Pattern {
    fn new(source: &str) -> Pattern {
        let whole = source.starts_with('^');
        let source = expanded(source).chars().collect();
        let mut parser = Parser { source, at: 0, ignore_case: !whole, dot_all: false };
        let mut steps = parser.alternatives();
        steps.push(Step::Match);
        Pattern { whole, steps }
    }

    /// Returns the leftmost match.
    fn search(&self, text: &[char]) -> Option<Match> {
        let mut found = None;
        let mut threads = Vec::new();
        let mut next = Vec::new();
        let mut seen = vec![usize::MAX; self.steps.len()];
        for at in 0..=text.len() {
            if found.is_none() {
                let begun = Match { start: at, end: at, group: (0, 0) };
                self.add(&mut threads, &mut seen, 0, begun, text, at);
            }
            for (step, begun) in threads.drain(..) {
                match &self.steps[step] {
                    Step::Match => {
                        found = Some(Match { end: at, ..begun });
                        break; // the threads that follow have begun later
                    }
                    Step::Set(set) if text.get(at).map_or(false, |c| set.has(*c)) => {
                        self.add(&mut next, &mut seen, step + 1, begun, text, at + 1)
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut threads, &mut next);
            if threads.is_empty() && found.is_some() {
                break;
            }
        }
        found
    }

    /// Adds the threads at a step, following all that reads no character.
    fn add(
        &self,
        threads: &mut Vec<(usize, Match)>,
        seen: &mut [usize],
        step: usize,
        begun: Match,
        text: &[char],
        at: usize,
    ) {
        if seen[step] == at {
            return;
        }
        seen[step] = at;
        let mut go = |step, begun| self.add(threads, seen, step, begun, text, at);
        match &self.steps[step] {
            Step::Split(ahead) => {
                go(step + 1, begun);
                go(step + ahead, begun);
            }
            Step::Jump(distance) => go((step as isize + distance) as usize, begun),
            Step::Open => go(step + 1, Match { group: (at, 0), ..begun }),
            Step::Close => go(step + 1, Match { group: (begun.group.0, at), ..begun }),
            Step::Assert(holds) => {
                if holds(at.checked_sub(1).map(|before| text[before]), text.get(at).copied()) {
                    go(step + 1, begun);
                }
            }
            Step::Set(_) | Step::Match => threads.push((step, begun)),
        }
    }
}

fn at_boundary(before: Option<char>, after: Option<char>) -> bool {
    let word = |c: Option<char>| c.map_or(false, |c| c.is_ascii_alphanumeric() || c == '_');
    word(before) != word(after)
}

struct Parser {
    source: Vec<char>,
    at: usize,
    ignore_case: bool,
    dot_all: bool,
}

impl Parser {
    fn peek(&self) -> char {
        self.source.get(self.at).copied().unwrap_or('\0')
    }

    fn next(&mut self) -> char {
        self.at += 1;
        self.source[self.at - 1]
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.source[self.at..].iter().copied().take(text.len()).eq(text.chars());
        self.at += if found { text.len() } else { 0 };
        found
    }

    fn alternatives(&mut self) -> Vec<Step> {
        let first = self.sequence();
        if !self.eat("|") {
            return first;
        }
        let rest = self.alternatives();
        let mut steps = vec![Step::Split(first.len() + 2)];
        steps.extend(first);
        steps.push(Step::Jump(rest.len() as isize + 1));
        steps.extend(rest);
        steps
    }

    fn sequence(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        while self.at < self.source.len() && self.peek() != '|' && self.peek() != ')' {
            let atom = self.atom();
            let (least, most) = self.repetitions();
            for _ in 0..least {
                steps.extend_from_slice(&atom);
            }
            let size = atom.len() + 1;
            match most {
                None => {
                    steps.push(Step::Split(size + 1));
                    steps.extend(atom);
                    steps.push(Step::Jump(-(size as isize)));
                }
                Some(most) => {
                    for i in least..most {
                        steps.push(Step::Split((most - i) * size));
                        steps.extend_from_slice(&atom);
                    }
                }
            }
        }
        steps
    }

    /// Reads how often the last atom stands: at least, and at most unless there is no limit.
    fn repetitions(&mut self) -> (usize, Option<usize>) {
        if self.eat("?") {
            (0, Some(1))
        } else if self.eat("*") {
            (0, None)
        } else if self.eat("+") {
            (1, None)
        } else if self.eat("{") {
            let least = self.number();
            let most = match (self.eat(","), self.peek()) {
                (false, _) => Some(least),
                (true, '}') => None,
                (true, _) => Some(self.number()),
            };
            self.eat("}");
            (least, most)
        } else {
            (1, Some(1))
        }
    }

    fn number(&mut self) -> usize {
        let mut result = 0;
        while let Some(digit) = self.peek().to_digit(10) {
            result = result * 10 + digit as usize;
            self.at += 1;
        }
        result
    }

    fn atom(&mut self) -> Vec<Step> {
        if self.eat("(") {
            return self.group();
        }
        if self.eat("^") {
            return vec![Step::Assert(|before, _| before.is_none())];
        }
        if self.eat("$") {
            return vec![Step::Assert(|_, after| after.is_none())];
        }
        if self.eat("\\b") {
            return vec![Step::Assert(at_boundary)];
        }
        let mut set = Set { ignore_case: self.ignore_case, ..Set::default() };
        if self.eat(".") {
            set.negated = true;
            set.ranges.extend(Some(('\n', '\n')).filter(|_| !self.dot_all));
        } else if self.eat("[") {
            set.negated = self.eat("^");
            while !self.eat("]") {
                self.item(&mut set.ranges);
            }
        } else {
            self.item(&mut set.ranges);
        }
        vec![Step::Set(set)]
    }

    fn group(&mut self) -> Vec<Step> {
        if self.eat("?s)") {
            self.dot_all = true;
            return Vec::new();
        }
        let plain = self.eat("?:");
        if self.eat("?P<") {
            while self.next() != '>' {}
        }
        let mut steps = self.alternatives();
        self.eat(")");
        if !plain {
            steps.insert(0, Step::Open);
            steps.push(Step::Close);
        }
        steps
    }

    /// Reads a character, a range or a class such as `\w`.
    fn item(&mut self, ranges: &mut Vec<(char, char)>) {
        const CLASSES: [(&str, &[(char, char)]); 6] = [
            ("\\d", &[('0', '9')]),
            ("\\D", &[('\0', '/'), (':', char::MAX)]),
            ("\\s", &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
            ("\\S", &[('\0', '\x08'), ('\x0b', '\x0b'), ('\x0e', '\x1f'), ('!', char::MAX)]),
            ("\\w", &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
            ("\\W", &[('\0', '/'), (':', '@'), ('[', '^'), ('`', '`'), ('{', char::MAX)]),
        ];
        for (name, class) in CLASSES {
            if self.eat(name) {
                return ranges.extend(class);
            }
        }
        let first = self.character();
        let range =
            self.peek() == '-' && self.source.get(self.at + 1) != Some(&']') && self.eat("-");
        ranges.push((first, if range { self.character() } else { first }));
    }

    fn character(&mut self) -> char {
        match self.next() {
            '\\' => match self.next() {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            },
            other => other,
        }
    }
}
