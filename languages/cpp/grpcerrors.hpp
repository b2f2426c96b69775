// grpcerrors for C++17: emits and recognizes the errors of CONTRACT.md. Copy this file.
//
// A server reports that it does not hold the model that a request needs, before it does any work:
//
//   grpc::Status Predict(grpc::ServerContext* context, const Request*, Reply*) override {
//     if (!model_) return grpcerrors::Abort(context, grpcerrors::ModelNotLoaded("rfdetr"));
//
// A client or a router asks what an error means:
//
//   grpc::Status status = stub->Predict(&context, request, &reply);
//   grpcerrors::Verdict verdict = grpcerrors::Classify(status, context);
//   if (verdict.Is(grpcerrors::kModelNotLoaded) && verdict.Typed()) Drop(replica);
//   if (verdict.unexecuted) Resend();  // if no message of a stream has been delivered
//
// It needs the standard library only. Where grpc++ is installed, its types are accepted too;
// without it, use `Error` and the `Classify` that takes a code, a message and trailers. Any thread
// may call all functions, and none throws (but std::bad_alloc).

#ifndef GRPCERRORS_HPP_
#define GRPCERRORS_HPP_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if !defined(GRPCERRORS_WITHOUT_GRPCPP) && __has_include(<grpcpp/grpcpp.h>)
#include <grpcpp/grpcpp.h>
#define GRPCERRORS_GRPCPP 1
#endif

namespace grpcerrors {

inline constexpr std::string_view kDomain = "grpcerrors";
inline constexpr std::string_view kDetailsKey = "grpc-status-details-bin";
inline constexpr std::string_view kUnexecutedKey = "grpcerrors-unexecuted";
inline constexpr std::string_view kHeldKey = "grpcerrors-held";
inline constexpr std::size_t kTrailersLimit = 4096;  // bytes, as HPACK counts them
inline constexpr std::size_t kHeldLimit = 255;       // bytes of the vouching trailer's value
inline constexpr std::size_t kTextLimit = 16384;     // characters of a message that are read

inline constexpr std::string_view kModelNotLoaded = "MODEL_NOT_LOADED";
inline constexpr std::string_view kModelMismatch = "MODEL_MISMATCH";
inline constexpr std::string_view kModelLoading = "MODEL_LOADING";
inline constexpr std::string_view kLiveTranscriptionUnsupported = "LIVE_TRANSCRIPTION_UNSUPPORTED";
inline constexpr std::string_view kStreamTranscriptionUnsupported =
    "STREAM_TRANSCRIPTION_UNSUPPORTED";

using Fields = std::map<std::string, std::string, std::less<>>;
using Trailers = std::vector<std::pair<std::string, std::string>>;  // values of -bin keys are raw

// An error as it is sent.
struct Error {
  int code;              // a grpc::StatusCode
  std::string message;   // the status message
  Trailers trailers;     // the details, then the plain trailer if nothing was executed
};

// The rung that decided, strongest first.
enum class Evidence { kNone, kDetails, kTrailer, kText, kCode };

// What an error means, and on what evidence.
struct Verdict {
  std::string reason;  // the condition's reason; empty: nothing that the contract knows
  Evidence evidence = Evidence::kNone;
  bool unexecuted = false;  // proved: the request was not executed, so it may be sent elsewhere
  Fields fields;            // metadata of the ErrorInfo that decided, or the backend in the words
  std::optional<double> retry_after;  // seconds, from a google.rpc.RetryInfo
  std::optional<std::string> held;    // the model that a guard still held; "1": without a name

  bool Is(std::string_view condition) const { return !reason.empty() && reason == condition; }
  bool Typed() const { return evidence == Evidence::kDetails || evidence == Evidence::kTrailer; }
  bool Started() const { return Field("started") == "true"; }
  std::string Backend() const { return Field("backend"); }
  std::string Model() const { return Field("model"); }
  std::string Field(std::string_view name) const {
    const auto found = fields.find(name);
    return found == fields.end() ? std::string() : found->second;
  }
};

namespace internal {

// The gRPC status codes that the tables name.
enum Code : int {
  kNoCode = -1,  // an error that is no gRPC status
  kUnknown = 2,
  kNotFound = 5,
  kFailedPrecondition = 9,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
};

// A set of codes: a bit for each.
template <typename... Code>
constexpr std::uint32_t Codes(Code... codes) {
  return ((std::uint32_t{1} << (codes & 31)) | ...);
}

struct Condition {
  std::string_view reason;
  int code;
  std::string_view message;  // with {name} for each field
  bool code_alone;           // whether the bare code is enough
  bool unexecuted;           // whether it proves that nothing was executed
};

// How a system words a condition when it sends no details.
struct Dialect {
  std::string_view reason;
  std::uint32_t codes;       // under which these words count
  std::string_view pattern;  // with ^ first: a whole sentence; else it is searched for
  std::string_view unless;   // a message that matches this too does not count
  bool unexecuted;           // whether who says so cannot have begun to execute the request
};

// A piece that patterns share, as {{name}}.
struct Fragment {
  std::string_view name, pattern;
};

// BEGIN GENERATED: the tables of contract.json, by make_languages
// clang-format off
inline constexpr std::string_view kPrefix =
    "^(?:Exception (?:calling application|iterating responses): |Unexpected <class '[^'\\n]+'>: )*";
inline constexpr std::string_view kOpening =
    "[\"`‘‚‛“„‟«‹「『]|(?:^|[^0-9A-Za-z_])[BbFfRrUu]{0,2}'";
inline constexpr std::string_view kClosing =
    "(?s)^.*([\"`‘’“”»›」』]|'(?:[^0-9A-Za-z_]|$))";

inline constexpr Fragment kFragments[] = {
    {"quoted_name",
     "(?:'[^']*'|\"[^\"]*\")"},
    {"name",
     "(?: ''| [a-z]{0,40}[^ \\t\\r\\na-z_'\\\"`][^ \\t\\r\\n]{0,200})?"},
    {"model",
     "\\b(?:models?|engine|pipeline|weights)(?:(?:/| or | and )\\w+)?{{name}}"},
    {"not",
     "(?:(?:is|are|was|were|has|have)n't |(?:(?:is|are|was|were|has|have) )?(?:currently |still )?(?:not|never) )"},
    {"loaded",
     "(?:loaded|initiali[sz]ed)\\b"},
    {"not_loaded",
     "{{model}} {{not}}(?:been |yet |currently ){0,2}{{loaded}}"},
    {"no_model_loaded",
     "\\bno (?:active |valid )?(?:models?|engine|pipeline) (?:(?:is|are|was|were|has|have|been|yet|currently) ){0,3}{{loaded}}"},
    {"load_first",
     "(?:{{model}} (?:is|are|was|were) (?:empty|none|null|nil|missing)[.,:;]? )?(?:please )?(?:\\bcall (?:\\w{1,40}\\.)?load_?model(?:\\(\\))? (?:first|before)\\b|\\bload (?:a|the) model (?:first|before)\\b)|\\bload_?model(?:\\(\\))? (?:was|has) (?:not|never) (?:been )?called\\b"},
    {"gone",
     "{{model}} (?:is |was |has been |got )?(?:unloaded|evicted)\\b"},
    {"token",
     "[^ \\t\\r\\n'\\\"`]{1,64}"},
    {"work",
     "(?:backend|call|chat|completion|detection|diari[sz]ation|embedding|generation|inference|internal|model|prediction|request|rerank(?:ing)?|rpc|server|synthesis|transcription|translation|tts|asr|vad)"},
    {"wrapper",
     "(?:(?:{{token}}: ){0,2}rpc error: code = \\w{1,40} desc = |(?:\\[(?:error|fatal|warning)\\]:?|(?:error|fatal|warning):) |{{work}} (?:error|failed|failure): |(?:an )?error (?:during|in|while|when) (?:the |a )?(?:\\w{1,20}ing )?{{work}}: |error (?:generating|predicting|synthesi[sz]ing) \\w{1,20}: |error (?:processing|handling|serving|running|executing|calling) (?:the |a )?{{work}}: |(?:failed|unable|could not|cannot|can't) (?:to )?(?:generate|predict|infer|synthesi[sz]e|(?:run|process|handle|serve|execute|call) (?:the |a )?{{work}}): |(?:backend|node|replica|server|upstream|worker)(?: (?:''|{{token}}))?(?: (?:answers|answered|fails|failed|says|said))?: )"},
    {"lead",
     "(?:^(?:{{wrapper}}){0,3}(?P<backend>(?:''|{{token}})(?:: {{token}}){0,2}: )?(?:{{wrapper}}){0,2}(?:(?:the|this|your|our) )?(?:[\\w./-]{1,40}(?:'s)? )?)"},
    {"of_another_kind",
     "\\b(?:adapter|alignment|anti-?spoof|diarization|draft|lora|mmproj|projector|punctuation|refiner|speaker|vad|vocoder|query|rule|search|storage|template|for|of) "},
    {"thing",
     "(?:audio|argument|dir|directory|emotion|field|file|filename|folder|format|function|grammar|id|image|input|key|lang|language|locale|option|parameter|path|preset|prompt|role|speaker|style|text|token|tool|uri|url|user|value|video|voice)(?: (?:file|id|name|path))?"},
    {"of_a_user",
     "(?:^|[ \\t\\r\\n:;,(])(?:{{thing}}: (?:[^'\\\"`]|\\w'\\w){0,500}|(?:{{thing}}|at|bad|called|find|from|get|illegal|in|into|invalid|loading|lstat|missing|named|near|no|open|opening|parse|parsing|read|reading|stat|such|to|unexpected|unknown|unrecogni[sz]ed|unsupported|write|writing):? )"},
    {"of_a_file",
     "\\b(?:no such file|permission denied|is a directory|not a directory|file name too long)\\b|\\b(?:not found|does not exist)\\.?$"},
    {"users_fault",
     "\\b(?:no such|n[o']t (?:be )?found|doe(?:s not|sn't) exist|(?:not|un)[ -]?supported|permission denied|(?:is|not) an? (?:file|directory)|too long|is(?: not|n't) (?:an?|in|one|the|valid)|(?:is|:) (?:an? )?(?:bad|invalid|unknown|unrecogni[sz]ed)|must be (?:an?|in|one)|not (?:allowed|readable)|(?:cannot|could not|can't) (?:be )?(?:find|found|open|opened|read|write|written)|there (?:are|is)|has no|choose)\\b"},
    {"afterwards",
     " (?:as|from|with)\\b|\\.[a-z0-9]{2,5}(?:\\W|$)"},
};

inline constexpr Condition kConditions[] = {
    {kModelNotLoaded, kFailedPrecondition,
     "{backend}: model not loaded", true, true},
    {kModelMismatch, kNotFound,
     "{backend}: model identity mismatch: loaded \"{loaded}\", requested \"{requested}\"", false, true},
    {kModelLoading, kUnavailable,
     "{backend}: model is loading", false, true},
    {kLiveTranscriptionUnsupported, kUnimplemented,
     "{backend}: live transcription unsupported: {reason}", true, true},
    {kStreamTranscriptionUnsupported, kUnimplemented,
     "{backend}: streaming transcription unsupported: {reason}", false, true},
};

inline constexpr Dialect kDialects[] = {
    // LocalAI and others
    {kModelNotLoaded, Codes(kFailedPrecondition, kUnknown, kInternal, kUnavailable, kNoCode),
     "{{lead}}(?:{{not_loaded}}|{{no_model_loaded}}|{{load_first}})",
     "{{of_another_kind}}{{not_loaded}}"
     "|{{of_a_user}}(?:{{not_loaded}}|{{no_model_loaded}}|{{load_first}})"
     "|(?:{{not_loaded}}|{{no_model_loaded}})(?:{{afterwards}})"
     "|\\bpipeline is not loaded yet"
     "|\\bcalled with no models loaded"
     "|{{users_fault}}",
     true},
    // backends whose model went away under the call
    {kModelNotLoaded, Codes(kFailedPrecondition, kUnknown, kInternal, kUnavailable),
     "{{lead}}{{gone}}",
     "{{of_another_kind}}{{gone}}"
     "|{{of_a_user}}{{gone}}"
     "|{{gone}}(?:{{afterwards}})"
     "|{{users_fault}}",
     false},
    // Python handlers that use what only LoadModel sets
    {kModelNotLoaded, Codes(kUnknown, kInternal),
     "^(?:(?:[Aa]n )?[Ee]rror(?: (?:generating|processing|running|during|in|while) \\w{1,40}(?: \\w{1,40})?)?: |(?:\\w{1,20} )?(?:\\w{2,20}tion|TTS|[Ii]nference|[Ss]ynthesis) (?:error|failed): |AttributeError: )?(?:'\\w{0,100}Servicer' object has no attribute '\\w{1,100}'|'NoneType' object has no attribute '(?:generate|predict|synthesize|transcribe)')$",
     "",
     false},
    // Triton Inference Server
    {kModelNotLoaded, Codes(kUnavailable, kNotFound),
     "^Request for unknown model: '[^'\\n]*'(?: version -?\\d+)? (?:is not found|has no available versions)\\.?$",
     "",
     true},
    // TensorFlow Serving
    {kModelNotLoaded, Codes(kNotFound),
     "^Servable not found for request: \\w{1,20}\\([^()\\n]{1,200}\\)$"
     "|^Could not find (?:any versions|version \\d+) of model [^ \\t\\r\\n]{1,200}$",
     "",
     true},
    // OpenVINO Model Server
    {kModelNotLoaded, Codes(kNotFound),
     "^(?:(?:Model|Mediapipe graph definition) with requested (?:name|version|name and/or version) is not found|(?:Model with requested version|Pipeline|Mediapipe) is retired)\\.?$",
     "",
     true},
    // TorchServe
    {kModelNotLoaded, Codes(kInternal, kNotFound),
     "^Model (?:not found: [^ \\t\\r\\n/]{1,200}|version: [^ \\t\\r\\n]{1,60} does not exist for model: [^ \\t\\r\\n]{1,200})(?:\\norg\\.pytorch\\.[\\w.]{1,200})?$",
     "",
     true},
    // KServe
    {kModelNotLoaded, Codes(kUnknown, kNotFound),
     "^Model with name [^ \\t\\r\\n]+ does not exist\\.?$",
     "",
     true},
    // KServe ModelMesh, NVIDIA Dynamo
    {kModelNotLoaded, Codes(kNotFound),
     "^model not found$",
     "",
     true},
    // Seldon MLServer
    {kModelNotLoaded, Codes(kNotFound),
     "^Model [^ \\t\\r\\n]+ (?:with version [^ \\t\\r\\n]+ )?not found\\.?$",
     "^Model file ",
     true},
    // Caikit
    {kModelNotLoaded, Codes(kNotFound),
     "^Model (?:'[^'\\n]*'|[^ \\t\\r\\n]+ is) not loaded\\.?$",
     "",
     true},
    // Ray Serve
    {kModelNotLoaded, Codes(kNotFound),
     "^Application '[^'\\n]*' not found\\. (?:Please ping|Ping) /ray\\.serve\\.[\\w./]{1,80} for available applications\\.?$",
     "",
     true},
    // the contract, and LocalAI in Go and Python
    {kModelMismatch, Codes(kNotFound),
     "^(?P<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model identity mismatch: loaded {{quoted_name}}, requested {{quoted_name}}$",
     "{{of_a_user}}model identity mismatch",
     true},
    // the contract
    {kModelLoading, Codes(kUnknown, kUnavailable),
     "^(?P<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model is loading$",
     "{{of_a_user}}model is loading",
     true},
    // the contract
    {kLiveTranscriptionUnsupported, Codes(kUnknown, kUnimplemented, kNoCode),
     "{{lead}}live transcription unsupported\\b",
     "{{of_a_user}}live transcription unsupported"
     "|{{of_a_file}}",
     true},
    // stubs older than the RPC
    {kLiveTranscriptionUnsupported, Codes(kUnknown, kNoCode),
     "{{lead}}unimplemented\\b|^rpc error: code = unimplemented\\b",
     "{{of_a_user}}unimplemented"
     "|{{of_a_file}}",
     true},
    // the contract
    {kStreamTranscriptionUnsupported, Codes(kUnknown, kUnimplemented, kNoCode),
     "{{lead}}streaming transcription unsupported\\b",
     "{{of_a_user}}streaming transcription unsupported"
     "|{{of_a_file}}",
     true},
};
// clang-format on
// END GENERATED

constexpr const Condition* Find(std::string_view reason) {
  for (const Condition& condition : kConditions) {
    if (condition.reason == reason) return &condition;
  }
  return nullptr;
}

// ---- Text ------------------------------------------------------------------------------------

// Takes the first character of a text that is not empty. What is no UTF-8 is U+FFFD, one for each
// byte, and clears `valid`.
inline char32_t Take(std::string_view* rest, bool* valid) {
  const std::string_view text = *rest;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  rest->remove_prefix(1);
  const char32_t first = byte(0);
  if (first < 0x80) return first;
  const std::size_t more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
  char32_t result = first & (0x3FU >> more);
  bool good = first >= 0xC2 && first <= 0xF4 && text.size() > more;
  for (std::size_t i = 1; good && i <= more; ++i) {
    good = (byte(i) & 0xC0) == 0x80;
    result = result << 6 | (byte(i) & 0x3FU);
  }
  constexpr char32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  good = good && result >= kLeast[more] && result <= 0x10FFFF && result >> 11 != 0x1B;
  if (good) {
    rest->remove_prefix(more);
  } else {
    *valid = false;
  }
  return good ? result : 0xFFFD;
}

inline std::u32string Characters(std::string_view text, std::size_t limit) {
  std::u32string result;
  bool valid;
  while (!text.empty() && result.size() < limit) result += Take(&text, &valid);
  return result;
}

inline bool IsUtf8(std::string_view text) {
  bool valid = true;
  while (!text.empty()) Take(&text, &valid);
  return valid;
}

inline void Append(std::string* out, char32_t c) {
  const auto put = [&](char32_t byte) { *out += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) return put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  put(c < 0x10000 ? 0xE0 | c >> 12 : 0xF0 | c >> 18);
  if (c >= 0x10000) put(0x80 | (c >> 12 & 0x3F));
  put(0x80 | (c >> 6 & 0x3F));
  put(0x80 | (c & 0x3F));
}

inline std::string Utf8(std::u32string_view text) {
  std::string result;
  for (const char32_t c : text) Append(&result, c);
  return result;
}

// Cuts a text to at most `limit` bytes of UTF-8, on a character's boundary.
inline std::string Cut(std::string_view text, std::size_t limit) {
  std::string result;
  for (bool valid; !text.empty();) {
    const std::size_t size = result.size();
    Append(&result, Take(&text, &valid));
    if (result.size() > limit) return result.resize(size), result;
  }
  return result;
}

// ---- Patterns --------------------------------------------------------------------------------

// A pattern of the RE2 subset that contract.json uses. It runs all alternatives side by side (a
// Pike machine), so its time is linear in the text; std::regex overflows the stack on long texts.
// \b, \d, \s and \w are ASCII, and so is the
// folding of case; $ is the end of the text.
class Pattern {
 public:
  struct Match {
    std::size_t start, end;
    std::size_t open, close;  // of the group, both 0 without one
  };

  explicit Pattern(std::string_view pattern) : source_(Expanded(pattern)), ignore_case_(!Whole()) {
    program_ = Alternatives();
    program_.push_back({kMatch, 0, 0});
  }

  // Whether it is a whole sentence, in which case matters.
  bool Whole() const { return source_.substr(0, 1) == U"^"; }

  // Returns the leftmost match.
  std::optional<Match> Search(std::u32string_view text) const {
    std::optional<Match> found;
    std::vector<Thread> threads, next;
    std::vector<std::size_t> seen(program_.size(), 0);
    for (std::size_t at = 0; at <= text.size(); ++at) {
      if (!found) Add(&threads, &seen, 0, {at, at, 0, 0}, text, at);
      next.clear();
      for (const Thread& thread : threads) {
        const Step& step = program_[thread.step];
        if (step.kind == kMatch) {
          found = thread.match;
          found->end = at;
          break;  // the threads that follow have begun later
        }
        if (at < text.size() && Has(sets_[static_cast<std::size_t>(step.x)], text[at])) {
          Add(&next, &seen, thread.step + 1, thread.match, text, at + 1);
        }
      }
      threads.swap(next);
      if (threads.empty() && found) break;
    }
    return found;
  }

 private:
  enum Kind { kSet, kSplit, kJump, kStart, kEnd, kBoundary, kOpen, kClose, kMatch };
  // Jumps are relative, so a piece of program can be repeated anywhere.
  struct Step {
    Kind kind;
    int x;  // of kSet: which one; of kJump and kSplit: where to, preferred
    int y;  // of kSplit: where else
  };
  using Program = std::vector<Step>;
  struct Set {
    std::vector<std::pair<char32_t, char32_t>> ranges;
    bool negated;
    bool ignore_case;
  };
  struct Thread {
    std::size_t step;
    Match match;
  };

  // Puts the fragments that patterns share in their places.
  static std::u32string Expanded(std::string_view pattern) {
    std::u32string result;
    for (std::size_t open; (open = pattern.find("{{")) != std::string_view::npos;) {
      result += Characters(pattern.substr(0, open), pattern.size());
      const std::size_t close = pattern.find("}}", open);
      const std::string_view name = pattern.substr(open + 2, close - open - 2);
      for (const Fragment& fragment : kFragments) {
        if (fragment.name == name) result += Expanded(fragment.pattern);
      }
      pattern.remove_prefix(close + 2);
    }
    return result + Characters(pattern, pattern.size());
  }

  static bool Word(char32_t c) {
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  }

  static bool Has(const Set& set, char32_t c) {
    const auto in = [&](char32_t each) {
      return std::any_of(set.ranges.begin(), set.ranges.end(), [each](auto range) {
        return range.first <= each && each <= range.second;
      });
    };
    const bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    return (in(c) || (set.ignore_case && letter && in(c ^ 0x20))) != set.negated;
  }

  // Adds the threads at `step`, following all that reads no character.
  void Add(std::vector<Thread>* threads, std::vector<std::size_t>* seen, std::size_t step,
           Match match, std::u32string_view text, std::size_t at) const {
    if ((*seen)[step] == at + 1) return;
    (*seen)[step] = at + 1;
    const auto [kind, x, y] = program_[step];
    const auto go = [&](int distance) {
      Add(threads, seen, step + static_cast<std::size_t>(distance), match, text, at);
    };
    const bool boundary = (at > 0 && Word(text[at - 1])) != (at < text.size() && Word(text[at]));
    if (kind == kJump || kind == kSplit) go(x);
    if (kind == kSplit) go(y);
    if (kind == kOpen) match.open = at;
    if (kind == kClose) match.close = at;
    if (kind == kOpen || kind == kClose || (kind == kStart && at == 0) ||
        (kind == kEnd && at == text.size()) || (kind == kBoundary && boundary)) {
      go(1);
    }
    if (kind == kSet || kind == kMatch) threads->push_back({step, match});
  }

  bool Eat(std::u32string_view text) {
    if (source_.compare(at_, text.size(), text) != 0) return false;
    at_ += text.size();
    return true;
  }

  Program Alternatives() {
    Program first = Sequence();
    if (!Eat(U"|")) return first;
    const Program rest = Alternatives();
    first.insert(first.begin(), {kSplit, 1, static_cast<int>(first.size()) + 2});
    first.push_back({kJump, static_cast<int>(rest.size()) + 1, 0});
    first.insert(first.end(), rest.begin(), rest.end());
    return first;
  }

  Program Sequence() {
    Program result;
    while (at_ < source_.size() && source_[at_] != '|' && source_[at_] != ')') {
      const Program atom = Atom();
      int least = 1, most = 1;  // most < 0: no limit
      if (Eat(U"?")) {
        least = 0;
      } else if (Eat(U"*")) {
        least = 0, most = -1;
      } else if (Eat(U"+")) {
        most = -1;
      } else if (Eat(U"{")) {
        least = most = Number();
        if (Eat(U",")) most = source_[at_] == '}' ? -1 : Number();
        Eat(U"}");
      }
      const int size = static_cast<int>(atom.size()) + 1;
      const auto append = [&] { result.insert(result.end(), atom.begin(), atom.end()); };
      for (int i = 0; i < least; ++i) append();
      for (int i = least; i < most; ++i) {
        result.push_back({kSplit, 1, (most - i) * size});
        append();
      }
      if (most < 0) {
        result.push_back({kSplit, 1, size + 1});
        append();
        result.push_back({kJump, -size, 0});
      }
    }
    return result;
  }

  int Number() {
    int result = 0;
    while (source_[at_] >= '0' && source_[at_] <= '9') {
      result = result * 10 + static_cast<int>(source_[at_++] - '0');
    }
    return result;
  }

  Program Atom() {
    if (Eat(U"(")) return Group();
    if (Eat(U"^")) return {{kStart, 0, 0}};
    if (Eat(U"$")) return {{kEnd, 0, 0}};
    if (Eat(U"\\b")) return {{kBoundary, 0, 0}};
    Set set{{}, false, ignore_case_};
    if (Eat(U".")) {
      set.negated = true;
      if (!dot_all_) set.ranges = {{'\n', '\n'}};
    } else if (Eat(U"[")) {
      set.negated = Eat(U"^");
      do {
        Item(&set);
      } while (!Eat(U"]"));
    } else {
      Item(&set);
    }
    sets_.push_back(set);
    return {{kSet, static_cast<int>(sets_.size()) - 1, 0}};
  }

  Program Group() {
    const bool plain = Eat(U"?:");
    if (Eat(U"?P<")) at_ = source_.find(U'>', at_) + 1;
    if (Eat(U"?s)")) return dot_all_ = true, Program();
    Program result = Alternatives();
    Eat(U")");
    if (!plain) {
      result.insert(result.begin(), {kOpen, 0, 0});
      result.push_back({kClose, 0, 0});
    }
    return result;
  }

  // Adds a character, a range or a class such as \w to a set.
  void Item(Set* set) {
    static constexpr char32_t kLast = 0x10FFFF;
    static const std::map<char32_t, decltype(Set::ranges)> kClasses = {
        {'d', {{'0', '9'}}},
        {'D', {{0, '0' - 1}, {'9' + 1, kLast}}},
        {'s', {{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}}},
        {'S', {{0, '\t' - 1}, {'\v', '\v'}, {'\r' + 1, ' ' - 1}, {' ' + 1, kLast}}},
        {'w', {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
        {'W', {{0, '0' - 1}, {'9' + 1, 'A' - 1}, {'Z' + 1, '_' - 1}, {'`', '`'}, {'z' + 1, kLast}}},
    };
    if (source_[at_] == '\\') {
      if (const auto found = kClasses.find(source_[at_ + 1]); found != kClasses.end()) {
        at_ += 2;
        set->ranges.insert(set->ranges.end(), found->second.begin(), found->second.end());
        return;
      }
    }
    const char32_t first = Character();
    const bool range = source_[at_] == '-' && source_[at_ + 1] != ']';
    set->ranges.emplace_back(first, range && Eat(U"-") ? Character() : first);
  }

  char32_t Character() {
    if (source_[at_] != '\\') return source_[at_++];
    const char32_t c = source_[at_ + 1];
    at_ += 2;
    return c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
  }

  std::u32string source_;
  bool ignore_case_;
  bool dot_all_ = false;
  std::size_t at_ = 0;
  std::vector<Set> sets_;
  Program program_;
};

// ---- Words -----------------------------------------------------------------------------------

// Removes what stands around a message: white space, and what grpcio puts before an exception.
inline std::u32string Stripped(std::u32string text) {
  static const Pattern prefix(kPrefix);
  const auto space = [](char32_t c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && space(text.back())) text.pop_back();
  text.erase(text.begin(), std::find_if_not(text.begin(), text.end(), space));
  if (const auto found = prefix.Search(text)) text.erase(0, found->end);
  return text;
}

// Removes what is quoted in a message: all from the first opening mark to the last closing mark,
// whatever the marks are, because a user may write some too.
inline std::u32string Unquoted(const std::u32string& text) {
  static const Pattern opening(kOpening), closing(kClosing);
  const auto first = opening.Search(text);
  if (!first) return text;
  const std::u32string rest = text.substr(first->end);
  const auto last = closing.Search(rest);
  return text.substr(0, first->end - 1) + U"''" + (last ? rest.substr(last->open + 1) : U"");
}

struct Said {
  const Dialect* dialect;
  std::string backend;
};

// Returns whose words come first in a message; those that follow may be a quotation.
inline std::optional<Said> ByWords(int code, std::string_view message) {
  struct Words {
    const Dialect* dialect;
    Pattern pattern, unless;
  };
  static const std::vector<Words> all = [] {
    std::vector<Words> result;
    for (const Dialect& each : kDialects) {
      result.push_back({&each, Pattern(each.pattern), Pattern(each.unless)});
    }
    return result;
  }();
  const std::u32string whole = Stripped(Characters(message, kTextLimit));
  const std::u32string unquoted = Unquoted(whole);
  std::optional<Said> found;
  std::size_t first = whole.size() + 1;
  for (const Words& words : all) {
    if (code >= 31 || (words.dialect->codes & Codes(code)) == 0) continue;
    const std::u32string& text = words.pattern.Whole() ? whole : unquoted;
    const auto match = words.pattern.Search(text);
    if (!match || match->start >= first) continue;
    if (!words.dialect->unless.empty() && words.unless.Search(text)) continue;
    first = match->start;
    found = Said{words.dialect, ""};
    const std::u32string before =
        match->close > 0 ? text.substr(match->open, match->close - match->open)
                         : text.substr(0, first);
    if (before.size() >= 2 && before.compare(before.size() - 2, 2, U": ") == 0) {
      found->backend = Utf8(before.substr(0, before.size() - 2));
    }
  }
  return found;
}

// ---- Protobuf's wire format ------------------------------------------------------------------

inline void PutVarint(std::string* out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) *out += static_cast<char>(value | 0x80);
  *out += static_cast<char>(value);
}

inline void PutNumber(std::string* out, std::uint64_t field, std::uint64_t value) {
  if (value == 0) return;
  PutVarint(out, field << 3);
  PutVarint(out, value);
}

inline void PutBytes(std::string* out, std::uint64_t field, std::string_view bytes) {
  PutVarint(out, field << 3 | 2);
  PutVarint(out, bytes.size());
  *out += bytes;
}

inline bool TakeVarint(std::string_view* rest, std::uint64_t* value) {
  *value = 0;
  for (unsigned shift = 0; shift < 70 && !rest->empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(rest->front());
    rest->remove_prefix(1);
    if (shift < 64) *value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// A field of a message: its number, and its value as a number or as bytes.
struct Field {
  std::uint64_t number;
  unsigned type;  // 0: a varint, 2: bytes; others are skipped
  std::uint64_t value;
  std::string_view bytes;
};

// Calls `visit` for each field of a message. Returns false if the message cannot be decoded, or as
// soon as `visit` does.
template <typename Visit>
bool VisitFields(std::string_view rest, const Visit& visit) {
  std::vector<std::uint64_t> groups;  // the numbers of those that are open: they are skipped
  while (!rest.empty()) {
    std::uint64_t tag;
    if (!TakeVarint(&rest, &tag) || tag > 0xFFFFFFFF || tag >> 3 == 0) return false;
    Field field{tag >> 3, static_cast<unsigned>(tag & 7), 0, {}};
    std::size_t size = 0;
    if (field.type == 0 || field.type == 2) {
      if (!TakeVarint(&rest, &field.value)) return false;
      if (field.type == 2) size = static_cast<std::size_t>(field.value);
    } else if (field.type == 1 || field.type == 5) {
      size = field.type == 1 ? 8 : 4;
    } else if (field.type == 3 && groups.size() < 100) {
      groups.push_back(field.number);
      continue;
    } else if (field.type == 4 && !groups.empty() && groups.back() == field.number) {
      groups.pop_back();
      continue;
    } else {
      return false;
    }
    if (size > rest.size()) return false;
    field.bytes = rest.substr(0, size);
    rest.remove_prefix(size);
    if (groups.empty() && !visit(field)) return false;
  }
  return groups.empty();
}

// A string must be UTF-8 to be decoded.
inline bool TakeText(const Field& field, std::string* out) {
  out->assign(field.bytes);
  return IsUtf8(field.bytes);
}

// ---- Sending ---------------------------------------------------------------------------------

inline constexpr std::string_view kErrorInfo = "google.rpc.ErrorInfo";
inline constexpr std::string_view kRetryInfo = "google.rpc.RetryInfo";
inline constexpr double kLongestDelay = 315576000000;  // seconds of a google.protobuf.Duration

inline bool Unescaped(char c) { return c >= 0x20 && c <= 0x7E && c != '%'; }

inline std::size_t TrailerSize(const std::pair<std::string, std::string>& trailer) {
  const auto& [name, value] = trailer;
  const bool binary = name.size() > 4 && name.compare(name.size() - 4, 4, "-bin") == 0;
  return name.size() + 32 + (binary ? (value.size() + 2) / 3 * 4 : value.size());
}

inline std::size_t TrailersSize(const Error& error) {
  std::size_t size = std::string_view("grpc-status00grpc-message").size() + 2 * 32;
  for (const char c : error.message) size += Unescaped(c) ? 1 : 3;
  for (const auto& trailer : error.trailers) size += TrailerSize(trailer);
  return size;
}

inline std::string Packed(std::string_view type, std::string_view message) {
  std::string any;
  PutBytes(&any, 1, "type.googleapis.com/" + std::string(type));
  if (!message.empty()) PutBytes(&any, 2, message);
  return any;
}

// Serializes a google.rpc.Status with its details. The bytes are deterministic: a map is sorted.
inline std::string Details(const Condition& condition, std::string_view message,
                           const Fields& metadata, std::optional<double> retry_after) {
  std::string info, status;
  PutBytes(&info, 1, condition.reason);
  PutBytes(&info, 2, kDomain);
  for (const auto& [name, value] : metadata) {
    std::string entry;
    PutBytes(&entry, 1, name);
    PutBytes(&entry, 2, value);
    if (!value.empty()) PutBytes(&info, 3, entry);
  }
  PutNumber(&status, 1, static_cast<std::uint64_t>(condition.code));
  PutBytes(&status, 2, message);
  PutBytes(&status, 3, Packed(kErrorInfo, info));
  if (retry_after) {
    // The product may be larger than any integer type, so the division is one of doubles.
    const double all = (*retry_after > 0 ? std::min(*retry_after, kLongestDelay) : 0) * 1e9;
    const double nanos = std::fmod(all, 1e9);
    std::string delay, retry;
    PutNumber(&delay, 1, static_cast<std::uint64_t>(std::llround((all - nanos) / 1e9)));
    PutNumber(&delay, 2, static_cast<std::uint64_t>(nanos));
    PutBytes(&retry, 1, delay);
    PutBytes(&status, 3, Packed(kRetryInfo, retry));
  }
  return status;
}

// Builds the error of a condition, with every value cut to the same number of bytes.
inline Error Build(const Condition& condition, const Fields& fields, bool started,
                   std::optional<double> retry_after, std::size_t longest) {
  Fields values;
  for (const auto& [name, value] : fields) values[name] = Cut(value, longest);
  Error error{condition.code, "", {}};
  for (std::string_view rest = condition.message; !rest.empty();) {
    const std::size_t open = std::min(rest.find('{'), rest.size());
    error.message += rest.substr(0, open);
    rest.remove_prefix(open);
    if (rest.empty()) break;
    const std::size_t close = rest.find('}');
    error.message += values[std::string(rest.substr(1, close - 1))];
    rest.remove_prefix(close + 1);
  }
  if (started) values["started"] = "true";

  const std::string details = Details(condition, error.message, values, retry_after);
  error.trailers.emplace_back(kDetailsKey, details);
  if (condition.unexecuted && !started) {
    error.trailers.emplace_back(kUnexecutedKey, condition.reason);
  }
  return error;
}

inline std::string PercentEncoded(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (Unescaped(c) && c != ' ') {
      result += c;
    } else {
      result += {'%', kDigits[byte >> 4], kDigits[byte & 0xF]};
    }
  }
  return result;
}

// ---- Receiving -------------------------------------------------------------------------------

// A google.rpc.ErrorInfo, or what the plain trailer says.
struct Info {
  std::string domain;
  std::string reason;
  Fields metadata;
  bool plain = false;
};

inline bool DecodeInfo(std::string_view bytes, Info* info) {
  return VisitFields(bytes, [&](const Field& field) {
    if (field.type != 2) return true;
    if (field.number == 1) return TakeText(field, &info->reason);
    if (field.number == 2) return TakeText(field, &info->domain);
    if (field.number != 3) return true;
    std::string key, value;
    const bool good = VisitFields(field.bytes, [&](const Field& part) {
      if (part.type != 2 || part.number > 2) return true;
      return TakeText(part, part.number == 1 ? &key : &value);
    });
    info->metadata[key] = value;
    return good;
  });
}

// Returns the seconds of a google.rpc.RetryInfo; nothing for a delay that no sender means.
inline std::optional<double> DecodeRetry(std::string_view bytes) {
  std::int64_t seconds = 0;
  std::int32_t nanos = 0;
  const bool good = VisitFields(bytes, [&](const Field& field) {
    if (field.type != 2 || field.number != 1) return true;
    return VisitFields(field.bytes, [&](const Field& part) {
      if (part.type == 0 && part.number == 1) seconds = static_cast<std::int64_t>(part.value);
      if (part.type == 0 && part.number == 2) nanos = static_cast<std::int32_t>(part.value);
      return true;
    });
  });
  const auto whole = static_cast<double>(seconds);
  if (!good || whole < 0 || whole > kLongestDelay || nanos < 0 || nanos >= 1000000000) return {};
  return whole + nanos / 1e9;
}

// Reads every ErrorInfo of a google.rpc.Status; none if it cannot be decoded.
inline std::vector<Info> DecodeDetails(std::string_view bytes, std::optional<double>* retry_after) {
  std::vector<std::pair<std::string, std::string_view>> details;
  const bool good = VisitFields(bytes, [&](const Field& field) {
    if (field.type != 2) return true;
    if (field.number == 2) return IsUtf8(field.bytes);
    if (field.number != 3) return true;
    auto& [type, value] = details.emplace_back();
    return VisitFields(field.bytes, [&type = type, &value = value](const Field& part) {
      if (part.type == 2 && part.number == 2) value = part.bytes;
      return part.type != 2 || part.number != 1 || TakeText(part, &type);
    });
  });
  std::vector<Info> infos;
  if (!good) return infos;
  for (const auto& [url, value] : details) {
    const std::string_view type = std::string_view(url).substr(url.rfind('/') + 1);
    Info info;
    if (type == kErrorInfo && DecodeInfo(value, &info)) infos.push_back(std::move(info));
    if (type == kRetryInfo && !*retry_after) *retry_after = DecodeRetry(value);
  }
  return infos;
}

inline std::string PercentDecoded(std::string_view text) {
  const auto digit = [&](std::size_t at) {
    const auto found = std::string_view("0123456789abcdef0123456789ABCDEF").find(text[at]);
    return found == std::string_view::npos ? -1 : static_cast<int>(found % 16);
  };
  std::string result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '%' && at + 2 < text.size() && digit(at + 1) >= 0 && digit(at + 2) >= 0) {
      result += static_cast<char>(digit(at + 1) * 16 + digit(at + 2));
      at += 2;
    } else {
      result += text[at];
    }
  }
  return Cut(result, result.size() * 3);  // what is no UTF-8 becomes U+FFFD
}

// Reads the plain trailer: a reason, and before it another domain than the contract's own.
inline void DecodePlain(std::string_view value, std::vector<Info>* infos) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t'; };
  while (!value.empty() && is_space(value.front())) value.remove_prefix(1);
  while (!value.empty() && is_space(value.back())) value.remove_suffix(1);
  const std::size_t slash = value.rfind('/') + 1;  // 0 without one
  if (slash == value.size()) return;
  Info info{std::string(kDomain), std::string(value.substr(slash)), {}, true};
  if (slash > 1) info.domain = value.substr(0, slash - 1);
  infos->push_back(std::move(info));
}

// Returns the one value of a trailer. A proxy may have doubled it; different ones contradict each
// other, and count as absent.
inline std::string OneValue(const Trailers& trailers, std::string_view key) {
  const std::string* found = nullptr;
  for (const auto& [name, value] : trailers) {
    if (name != key) continue;
    if (found && *found != value) return "";
    found = &value;
  }
  return found ? *found : "";
}

}  // namespace internal

// ---- Errors to send --------------------------------------------------------------------------

// Builds the error of a condition with any fields: those that its message names, and others to send
// with it. Too long ones are cut. `reason` must be one of those above. `started`: the handler had
// begun to work on the request, so that nothing proves that it was not executed. `retry_after`: how
// many seconds the caller should wait, sent as a google.rpc.RetryInfo.
inline Error MakeError(std::string_view reason, const Fields& fields, bool started = false,
                       std::optional<double> retry_after = std::nullopt) {
  const auto build = [&](std::size_t longest) {
    return internal::Build(*internal::Find(reason), fields, started, retry_after, longest);
  };
  const auto fits = [](const Error& error) {
    return internal::TrailersSize(error) <= kTrailersLimit;
  };
  Error error = build(kTrailersLimit);
  if (fits(error)) return error;
  std::size_t longest = 0;
  for (std::size_t step = kTrailersLimit / 2; step > 0; step /= 2) {
    if (fits(build(longest + step))) longest += step;
  }
  return build(longest);
}

// FAILED_PRECONDITION: `backend` does not hold the model, whose identity is `model` if known.
// `started`: see above.
inline Error ModelNotLoaded(const std::string& backend, const std::string& model = "",
                            bool started = false) {
  return MakeError(kModelNotLoaded, {{"backend", backend}, {"model", model}}, started);
}

// NOT_FOUND: `backend` holds the model `loaded`, but the request names `requested`.
inline Error ModelMismatch(const std::string& backend, const std::string& loaded,
                           const std::string& requested) {
  return MakeError(kModelMismatch,
                   {{"backend", backend}, {"loaded", loaded}, {"requested", requested}});
}

// UNAVAILABLE: `backend` is loading the model; ask again in `retry_after` seconds.
inline Error ModelLoading(const std::string& backend, const std::string& model = "",
                          double retry_after = 1.0) {
  return MakeError(kModelLoading, {{"backend", backend}, {"model", model}}, false, retry_after);
}

// UNIMPLEMENTED: `backend`, or its model, cannot transcribe live; `reason` says why.
inline Error LiveTranscriptionUnsupported(const std::string& backend, const std::string& reason) {
  return MakeError(kLiveTranscriptionUnsupported, {{"backend", backend}, {"reason", reason}});
}

// UNIMPLEMENTED: `backend`, or its model, cannot stream transcriptions; `reason` says why.
inline Error StreamTranscriptionUnsupported(const std::string& backend,
                                            const std::string& reason) {
  return MakeError(kStreamTranscriptionUnsupported, {{"backend", backend}, {"reason", reason}});
}

// The trailer with which a guard that still holds `model` marks a failure of the handler: whatever
// failed, the model is here. Never send it with an `Error`.
inline std::pair<std::string, std::string> HeldTrailer(std::string_view model) {
  std::string value = internal::PercentEncoded(internal::Cut(model, kHeldLimit));
  for (std::size_t limit = kHeldLimit - 1; value.size() > kHeldLimit; --limit) {
    value = internal::PercentEncoded(internal::Cut(model, limit));
  }
  return {std::string(kHeldKey), value.empty() ? "1" : value};
}

// ---- What an error means ---------------------------------------------------------------------

// Judges an error by its details, else the plain trailer, else its words, else the bare code.
// `code` is the status code, -1 for an error that has none.
inline Verdict Classify(int code, std::string_view message, const Trailers& trailers) {
  using namespace internal;
  Verdict verdict;
  for (const auto& [name, value] : trailers) {
    if (name == kHeldKey && !value.empty() && !verdict.held) verdict.held = PercentDecoded(value);
  }
  std::optional<double> retry_after;
  std::vector<Info> infos = DecodeDetails(OneValue(trailers, kDetailsKey), &retry_after);
  DecodePlain(OneValue(trailers, kUnexecutedKey), &infos);

  const Info* known = nullptr;
  for (const Info& info : infos) {
    if (info.domain != kDomain) continue;
    if (known && !info.plain && info.reason != known->reason) {
      known = nullptr;  // an error has one ErrorInfo: these contradict each other
      break;
    }
    if (!known) known = &info;
  }
  if (known) {
    verdict.evidence = known->plain ? Evidence::kTrailer : Evidence::kDetails;
    verdict.fields = known->metadata;
    if (!known->plain) verdict.retry_after = retry_after;
    verdict.unexecuted = known->plain;
    if (const Condition* condition = Find(known->reason)) {
      verdict.reason = known->reason;
      verdict.unexecuted = known->plain || (condition->unexecuted && !verdict.Started());
    }
    return verdict;
  }
  if (verdict.held) return verdict;

  if (const auto said = ByWords(code, message)) {
    verdict.reason = said->dialect->reason;
    verdict.evidence = Evidence::kText;
    verdict.unexecuted = said->dialect->unexecuted && Find(verdict.reason)->unexecuted;
    if (!said->backend.empty()) verdict.fields["backend"] = said->backend;
    return verdict;
  }
  for (const Condition& condition : kConditions) {
    // An ErrorInfo of any domain says what the sender meant by its code.
    if (!infos.empty() || !condition.code_alone || condition.code != code) continue;
    verdict.reason = condition.reason;
    verdict.evidence = Evidence::kCode;
    break;
  }
  return verdict;
}

#ifdef GRPCERRORS_GRPCPP

// Adds the trailers of an error to a call; returns the status that its handler must return.
inline grpc::Status Abort(grpc::ServerContextBase* context, const Error& error) {
  std::string details;
  for (const auto& [name, value] : error.trailers) {
    if (name == kDetailsKey) {
      details = value;  // grpc++ sends them itself
    } else {
      context->AddTrailingMetadata(name, value);
    }
  }
  return grpc::Status(static_cast<grpc::StatusCode>(error.code), error.message, details);
}

// Judges the status with which a call has ended.
inline Verdict Classify(const grpc::Status& status, const grpc::ClientContext& context) {
  Trailers trailers;
  for (const auto& [name, value] : context.GetServerTrailingMetadata()) {
    trailers.emplace_back(std::string(name.data(), name.size()),
                          std::string(value.data(), value.size()));
  }
  return Classify(status.error_code(), status.error_message(), trailers);
}

#endif  // GRPCERRORS_GRPCPP

}  // namespace grpcerrors

#endif  // GRPCERRORS_HPP_
