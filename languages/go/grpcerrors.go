// Package grpcerrors is the error contract for model serving over gRPC: how a backend reports that
// it cannot serve a request because of the state of its model, and how a client recognizes that.
// CONTRACT.md states the rules. Copy this one file; it needs grpc-go, genproto and protobuf.
//
// In a backend, install both interceptors and return an error before any work:
//
//	server := grpc.NewServer(
//		grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor),
//		grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor))
//	return nil, grpcerrors.ModelNotLoaded("rfdetr", "base.gguf")
//
// In a client, keep the trailers of the call:
//
//	var trailer metadata.MD
//	_, err := client.Predict(ctx, request, grpc.Trailer(&trailer))
//	if grpcerrors.IsModelNotLoaded(err, trailer) {
//		dropTheStaleEntry()
//	}
//
// The trailers of a stream are those of its Trailer method.
package grpcerrors

import (
	"context"
	"errors"
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Domain is the google.rpc.ErrorInfo.domain of the contract.
const Domain = "grpcerrors"

// The reasons of the contract, as google.rpc.ErrorInfo.reason has them.
const (
	ReasonModelNotLoaded                 = "MODEL_NOT_LOADED"
	ReasonModelMismatch                  = "MODEL_MISMATCH"
	ReasonModelLoading                   = "MODEL_LOADING"
	ReasonLiveTranscriptionUnsupported   = "LIVE_TRANSCRIPTION_UNSUPPORTED"
	ReasonStreamTranscriptionUnsupported = "STREAM_TRANSCRIPTION_UNSUPPORTED"
)

// The trailers of the contract.
const (
	// UnexecutedTrailer has the reason of an error that proves that nothing was executed.
	UnexecutedTrailer = "grpcerrors-unexecuted"
	// HeldTrailer has the model that a guard still held when the handler failed.
	HeldTrailer = "grpcerrors-held"

	detailsTrailer = "grpc-status-details-bin"
)

const (
	trailersLimit  = 4096   // bytes of all trailers, half of gRPC's default soft limit
	headerOverhead = 32     // what HPACK counts for a header (RFC 7541, section 4.1)
	heldLimit      = 255    // bytes of the value of HeldTrailer
	textLimit      = 16_384 // characters that are read of all messages of a chain
	chainLimit     = 1_000  // errors that are read of a chain

	longestDelay = 315_576_000_000 // seconds, of a google.protobuf.Duration

	noCode = codes.OK // stands for an error without a code; an error never has the code OK
)

// A condition is one thing that can be wrong, with all that is needed to report and detect it.
type condition struct {
	reason     string
	code       codes.Code
	message    string // with {name} for each field
	codeAlone  bool   // whether the code is enough, without details or words
	unexecuted bool   // whether the condition proves that the request was not executed
	dialects   []dialect
}

// A dialect is how some system words a condition when it sends no details.
type dialect struct {
	codes           []codes.Code // under which the words count
	hints           []string     // in lower case; a message without any of them is not searched
	pattern, unless *regexp.Regexp
	whole           bool // whether the pattern is a whole sentence, quoted text included
	unexecuted      bool // whether a backend that says so cannot have begun to execute the request
}

func said(codes []codes.Code, hints []string, pattern, unless string, unexecuted bool) dialect {
	compile := func(pattern string) *regexp.Regexp {
		switch {
		case pattern == "":
			return nil
		case strings.HasPrefix(pattern, "^"):
			return regexp.MustCompile(pattern)
		}
		return regexp.MustCompile("(?i)" + pattern)
	}
	whole := strings.HasPrefix(pattern, "^")
	return dialect{codes, hints, compile(pattern), compile(unless), whole, unexecuted}
}

// BEGIN GENERATED: the tables of contract.json, by make_languages
const (
	quotationPrefix    = "^(?:Exception (?:calling application|iterating responses): |Unexpected <class '[^'\\n]+'>: )*"
	quotationOpening   = "[\"`\u2018\u201a\u201b\u201c\u201e\u201f\u00ab\u2039\u300c\u300e]|(?:^|[^0-9A-Za-z_])[BbFfRrUu]{0,2}'"
	quotationClosing   = "(?s)^.*([\"`\u2018\u2019\u201c\u201d\u00bb\u203a\u300d\u300f]|'(?:[^0-9A-Za-z_]|$))"
	wordsQuotedName    = "(?:'[^']*'|\"[^\"]*\")"
	wordsName          = "(?: ''| [a-z]{0,40}[^ \\t\\r\\na-z_'\\\"`][^ \\t\\r\\n]{0,200})?"
	wordsModel         = "\\b(?:models?|engine|pipeline|weights)(?:(?:/| or | and )\\w+)?" + wordsName
	wordsNot           = "(?:(?:is|are|was|were|has|have)n't |(?:(?:is|are|was|were|has|have) )?(?:currently |still )?(?:not|never) )"
	wordsLoaded        = "(?:loaded|initiali[sz]ed)\\b"
	wordsNotLoaded     = wordsModel + " " + wordsNot + "(?:been |yet |currently ){0,2}" + wordsLoaded
	wordsNoModelLoaded = "\\bno (?:active |valid )?(?:models?|engine|pipeline) (?:(?:is|are|was|were|has|have|been|yet|currently) ){0,3}" + wordsLoaded
	wordsLoadFirst     = "(?:" + wordsModel + " (?:is|are|was|were) (?:empty|none|null|nil|missing)[.,:;]? )?(?:please )?(?:\\bcall (?:\\w{1,40}\\.)?load_?model(?:\\(\\))? (?:first|before)\\b|\\bload (?:a|the) model (?:first|before)\\b)|\\bload_?model(?:\\(\\))? (?:was|has) (?:not|never) (?:been )?called\\b"
	wordsGone          = wordsModel + " (?:is |was |has been |got )?(?:unloaded|evicted)\\b"
	wordsToken         = "[^ \\t\\r\\n'\\\"`]{1,64}"
	wordsWork          = "(?:backend|call|chat|completion|detection|diari[sz]ation|embedding|generation|inference|internal|model|prediction|request|rerank(?:ing)?|rpc|server|synthesis|transcription|translation|tts|asr|vad)"
	wordsWrapper       = "(?:(?:" + wordsToken + ": ){0,2}rpc error: code = \\w{1,40} desc = |(?:\\[(?:error|fatal|warning)\\]:?|(?:error|fatal|warning):) |" + wordsWork + " (?:error|failed|failure): |(?:an )?error (?:during|in|while|when) (?:the |a )?(?:\\w{1,20}ing )?" + wordsWork + ": |error (?:generating|predicting|synthesi[sz]ing) \\w{1,20}: |error (?:processing|handling|serving|running|executing|calling) (?:the |a )?" + wordsWork + ": |(?:failed|unable|could not|cannot|can't) (?:to )?(?:generate|predict|infer|synthesi[sz]e|(?:run|process|handle|serve|execute|call) (?:the |a )?" + wordsWork + "): |(?:backend|node|replica|server|upstream|worker)(?: (?:''|" + wordsToken + "))?(?: (?:answers|answered|fails|failed|says|said))?: )"
	wordsLead          = "(?:^(?:" + wordsWrapper + "){0,3}(?P<backend>(?:''|" + wordsToken + ")(?:: " + wordsToken + "){0,2}: )?(?:" + wordsWrapper + "){0,2}(?:(?:the|this|your|our) )?(?:[\\w./-]{1,40}(?:'s)? )?)"
	wordsOfAnotherKind = "\\b(?:adapter|alignment|anti-?spoof|diarization|draft|lora|mmproj|projector|punctuation|refiner|speaker|vad|vocoder|query|rule|search|storage|template|for|of) "
	wordsThing         = "(?:audio|argument|dir|directory|emotion|field|file|filename|folder|format|function|grammar|id|image|input|key|lang|language|locale|option|parameter|path|preset|prompt|role|speaker|style|text|token|tool|uri|url|user|value|video|voice)(?: (?:file|id|name|path))?"
	wordsOfAUser       = "(?:^|[ \\t\\r\\n:;,(])(?:" + wordsThing + ": (?:[^'\\\"`]|\\w'\\w){0,500}|(?:" + wordsThing + "|at|bad|called|find|from|get|illegal|in|into|invalid|loading|lstat|missing|named|near|no|open|opening|parse|parsing|read|reading|stat|such|to|unexpected|unknown|unrecogni[sz]ed|unsupported|write|writing):? )"
	wordsOfAFile       = "\\b(?:no such file|permission denied|is a directory|not a directory|file name too long)\\b|\\b(?:not found|does not exist)\\.?$"
	wordsUsersFault    = "\\b(?:no such|n[o']t (?:be )?found|doe(?:s not|sn't) exist|(?:not|un)[ -]?supported|permission denied|(?:is|not) an? (?:file|directory)|too long|is(?: not|n't) (?:an?|in|one|the|valid)|(?:is|:) (?:an? )?(?:bad|invalid|unknown|unrecogni[sz]ed)|must be (?:an?|in|one)|not (?:allowed|readable)|(?:cannot|could not|can't) (?:be )?(?:find|found|open|opened|read|write|written)|there (?:are|is)|has no|choose)\\b"
	wordsAfterwards    = " (?:as|from|with)\\b|\\.[a-z0-9]{2,5}(?:\\W|$)"
)

var conditions = []*condition{
	{
		reason:     "MODEL_NOT_LOADED",
		code:       codes.FailedPrecondition,
		message:    "{backend}: model not loaded",
		codeAlone:  true,
		unexecuted: true,
		dialects: []dialect{
			said( // LocalAI and others
				[]codes.Code{codes.FailedPrecondition, codes.Unknown, codes.Internal, codes.Unavailable, noCode},
				[]string{"load", "initiali"},
				wordsLead+"(?:"+wordsNotLoaded+"|"+wordsNoModelLoaded+"|"+wordsLoadFirst+")",
				wordsOfAnotherKind+wordsNotLoaded+
					"|"+wordsOfAUser+"(?:"+wordsNotLoaded+"|"+wordsNoModelLoaded+"|"+wordsLoadFirst+")"+
					"|(?:"+wordsNotLoaded+"|"+wordsNoModelLoaded+")(?:"+wordsAfterwards+")"+
					"|\\bpipeline is not loaded yet"+
					"|\\bcalled with no models loaded"+
					"|"+wordsUsersFault,
				true,
			),
			said( // backends whose model went away under the call
				[]codes.Code{codes.FailedPrecondition, codes.Unknown, codes.Internal, codes.Unavailable},
				[]string{"unloaded", "evicted"},
				wordsLead+wordsGone,
				wordsOfAnotherKind+wordsGone+
					"|"+wordsOfAUser+wordsGone+
					"|"+wordsGone+"(?:"+wordsAfterwards+")"+
					"|"+wordsUsersFault,
				false,
			),
			said( // Python handlers that use what only LoadModel sets
				[]codes.Code{codes.Unknown, codes.Internal},
				[]string{"has no attribute"},
				"^(?:(?:[Aa]n )?[Ee]rror(?: (?:generating|processing|running|during|in|while) \\w{1,40}(?: \\w{1,40})?)?: |(?:\\w{1,20} )?(?:\\w{2,20}tion|TTS|[Ii]nference|[Ss]ynthesis) (?:error|failed): |AttributeError: )?(?:'\\w{0,100}Servicer' object has no attribute '\\w{1,100}'|'NoneType' object has no attribute '(?:generate|predict|synthesize|transcribe)')$",
				"",
				false,
			),
			said( // Triton Inference Server
				[]codes.Code{codes.Unavailable, codes.NotFound},
				[]string{"unknown model"},
				"^Request for unknown model: '[^'\\n]*'(?: version -?\\d+)? (?:is not found|has no available versions)\\.?$",
				"",
				true,
			),
			said( // TensorFlow Serving
				[]codes.Code{codes.NotFound},
				[]string{"servable not found", "could not find"},
				"^Servable not found for request: \\w{1,20}\\([^()\\n]{1,200}\\)$"+
					"|^Could not find (?:any versions|version \\d+) of model [^ \\t\\r\\n]{1,200}$",
				"",
				true,
			),
			said( // OpenVINO Model Server
				[]codes.Code{codes.NotFound},
				[]string{"with requested", "is retired"},
				"^(?:(?:Model|Mediapipe graph definition) with requested (?:name|version|name and/or version) is not found|(?:Model with requested version|Pipeline|Mediapipe) is retired)\\.?$",
				"",
				true,
			),
			said( // TorchServe
				[]codes.Code{codes.Internal, codes.NotFound},
				[]string{"model not found", "does not exist"},
				"^Model (?:not found: [^ \\t\\r\\n/]{1,200}|version: [^ \\t\\r\\n]{1,60} does not exist for model: [^ \\t\\r\\n]{1,200})(?:\\norg\\.pytorch\\.[\\w.]{1,200})?$",
				"",
				true,
			),
			said( // KServe
				[]codes.Code{codes.Unknown, codes.NotFound},
				[]string{"does not exist"},
				"^Model with name [^ \\t\\r\\n]+ does not exist\\.?$",
				"",
				true,
			),
			said( // KServe ModelMesh, NVIDIA Dynamo
				[]codes.Code{codes.NotFound},
				[]string{"model not found"},
				"^model not found$",
				"",
				true,
			),
			said( // Seldon MLServer
				[]codes.Code{codes.NotFound},
				[]string{"not found"},
				"^Model [^ \\t\\r\\n]+ (?:with version [^ \\t\\r\\n]+ )?not found\\.?$",
				"^Model file ",
				true,
			),
			said( // Caikit
				[]codes.Code{codes.NotFound},
				[]string{"not loaded"},
				"^Model (?:'[^'\\n]*'|[^ \\t\\r\\n]+ is) not loaded\\.?$",
				"",
				true,
			),
			said( // Ray Serve
				[]codes.Code{codes.NotFound},
				[]string{"/ray.serve."},
				"^Application '[^'\\n]*' not found\\. (?:Please ping|Ping) /ray\\.serve\\.[\\w./]{1,80} for available applications\\.?$",
				"",
				true,
			),
		},
	},
	{
		reason:     "MODEL_MISMATCH",
		code:       codes.NotFound,
		message:    "{backend}: model identity mismatch: loaded \"{loaded}\", requested \"{requested}\"",
		codeAlone:  false,
		unexecuted: true,
		dialects: []dialect{
			said( // the contract, and LocalAI in Go and Python
				[]codes.Code{codes.NotFound},
				[]string{"model identity mismatch"},
				"^(?P<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model identity mismatch: loaded "+wordsQuotedName+", requested "+wordsQuotedName+"$",
				wordsOfAUser+"model identity mismatch",
				true,
			),
		},
	},
	{
		reason:     "MODEL_LOADING",
		code:       codes.Unavailable,
		message:    "{backend}: model is loading",
		codeAlone:  false,
		unexecuted: true,
		dialects: []dialect{
			said( // the contract
				[]codes.Code{codes.Unknown, codes.Unavailable},
				[]string{"model is loading"},
				"^(?P<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model is loading$",
				wordsOfAUser+"model is loading",
				true,
			),
		},
	},
	{
		reason:     "LIVE_TRANSCRIPTION_UNSUPPORTED",
		code:       codes.Unimplemented,
		message:    "{backend}: live transcription unsupported: {reason}",
		codeAlone:  true,
		unexecuted: true,
		dialects: []dialect{
			said( // the contract
				[]codes.Code{codes.Unknown, codes.Unimplemented, noCode},
				[]string{"unsupported"},
				wordsLead+"live transcription unsupported\\b",
				wordsOfAUser+"live transcription unsupported"+
					"|"+wordsOfAFile,
				true,
			),
			said( // stubs older than the RPC
				[]codes.Code{codes.Unknown, noCode},
				[]string{"unimplemented"},
				wordsLead+"unimplemented\\b|^rpc error: code = unimplemented\\b",
				wordsOfAUser+"unimplemented"+
					"|"+wordsOfAFile,
				true,
			),
		},
	},
	{
		reason:     "STREAM_TRANSCRIPTION_UNSUPPORTED",
		code:       codes.Unimplemented,
		message:    "{backend}: streaming transcription unsupported: {reason}",
		codeAlone:  false,
		unexecuted: true,
		dialects: []dialect{
			said( // the contract
				[]codes.Code{codes.Unknown, codes.Unimplemented, noCode},
				[]string{"unsupported"},
				wordsLead+"streaming transcription unsupported\\b",
				wordsOfAUser+"streaming transcription unsupported"+
					"|"+wordsOfAFile,
				true,
			),
		},
	},
}

// END GENERATED

// ---- Reporting ----

// Error is an error of the contract, which a handler returns. The interceptors send its trailer,
// since grpc-go takes only the status from an error.
type Error struct {
	condition  *condition
	fields     map[string]string
	started    bool
	retryAfter *time.Duration
	status     *status.Status
}

// ModelNotLoaded reports that the backend does not hold the model. model is its identity, "" if
// unknown.
func ModelNotLoaded(backend, model string) *Error {
	return New(ReasonModelNotLoaded, map[string]string{"backend": backend, "model": model})
}

// ModelMismatch reports that the backend holds one model, and that the request names another.
func ModelMismatch(backend, loaded, requested string) *Error {
	fields := map[string]string{"backend": backend, "loaded": loaded, "requested": requested}
	return New(ReasonModelMismatch, fields)
}

// ModelLoading reports that the backend is loading the model, and asks the caller to wait for
// retryAfter before it tries again. model is the model's identity, "" if unknown.
func ModelLoading(backend, model string, retryAfter time.Duration) *Error {
	fields := map[string]string{"backend": backend, "model": model}
	return New(ReasonModelLoading, fields).WithRetryAfter(retryAfter)
}

// LiveTranscriptionUnsupported reports that the backend, or its model, cannot transcribe live;
// reason says why in a few words.
func LiveTranscriptionUnsupported(backend, reason string) *Error {
	fields := map[string]string{"backend": backend, "reason": reason}
	return New(ReasonLiveTranscriptionUnsupported, fields)
}

// StreamTranscriptionUnsupported reports that the backend, or its model, cannot stream a
// transcription; reason says why in a few words.
func StreamTranscriptionUnsupported(backend, reason string) *Error {
	fields := map[string]string{"backend": backend, "reason": reason}
	return New(ReasonStreamTranscriptionUnsupported, fields)
}

// New reports the condition of a reason with the fields that its message names, and others to send
// with it. Empty ones are left out, and too long ones are cut. It panics if the contract does not
// know the reason.
func New(reason string, fields map[string]string) *Error {
	known := byReason(reason)
	if known == nil {
		panic("grpcerrors: unknown reason " + reason)
	}
	e := Error{condition: known, fields: fields}
	return e.fitted()
}

// WithStarted returns the same error for a request that the handler had begun to work on. It proves
// nothing about what was executed, so no one may send the request again because of it.
func (e *Error) WithStarted() *Error {
	started := *e
	started.started = true
	return started.fitted()
}

// WithRetryAfter returns the same error with a google.rpc.RetryInfo: when the caller may try again.
func (e *Error) WithRetryAfter(delay time.Duration) *Error {
	delayed := *e
	delayed.retryAfter = &delay
	return delayed.fitted()
}

// Error returns the message.
func (e *Error) Error() string { return e.status.Message() }

// GRPCStatus returns the status with its details, which grpc-go sends.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Trailer returns the trailers to send with the status: UnexecutedTrailer, which a proxy can read,
// if the error proves that nothing was executed.
func (e *Error) Trailer() metadata.MD {
	if !e.condition.unexecuted || e.started {
		return nil
	}
	return metadata.Pairs(UnexecutedTrailer, e.condition.reason)
}

// Send sets the trailer of err, if it is or wraps an error of the contract, in the call of ctx, and
// returns what the handler must return. The interceptors do this for every handler.
func Send(ctx context.Context, err error) error {
	var ours *Error
	if !errors.As(err, &ours) {
		return err
	}
	if ours == nil { // a nil *Error in an error, which is not nil
		return nil
	}
	_ = grpc.SetTrailer(ctx, ours.Trailer()) // it fails only if the call has ended
	return ours                              // older versions of grpc-go do not unwrap err
}

// UnaryServerInterceptor sends the errors of the contract that handlers return.
func UnaryServerInterceptor(
	ctx context.Context, request interface{}, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (interface{}, error) {
	reply, err := handler(ctx, request)
	return reply, Send(ctx, err)
}

// StreamServerInterceptor sends the errors of the contract that handlers return.
func StreamServerInterceptor(
	server interface{}, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	return Send(stream.Context(), handler(server, stream))
}

// SetHeld vouches in the call of ctx that the model is still loaded, so that the handler's error
// has another cause. model is the model's identity, "" if it has none.
func SetHeld(ctx context.Context, model string) error {
	return grpc.SetTrailer(ctx, metadata.Pairs(HeldTrailer, heldValue(model)))
}

// fitted makes the status, with all fields cut to the same number of bytes if it is too long.
func (e Error) fitted() *Error {
	e.status = e.build(trailersLimit)
	if e.size(e.status) > trailersLimit {
		tooLong := sort.Search(trailersLimit, func(longest int) bool {
			return e.size(e.build(longest)) > trailersLimit
		})
		e.status = e.build(tooLong - 1)
	}
	return &e
}

func (e *Error) build(longest int) *status.Status {
	info := &errdetails.ErrorInfo{
		Reason: e.condition.reason, Domain: Domain, Metadata: map[string]string{},
	}
	var pairs []string
	for name, value := range e.fields {
		value = cut(value, longest)
		pairs = append(pairs, "{"+name+"}", value)
		if value != "" {
			info.Metadata[name] = value
		}
	}
	if e.started {
		info.Metadata["started"] = "true"
	}
	message := strings.NewReplacer(pairs...).Replace(e.condition.message)
	return withDetails(e.condition.code, message, info, e.retryAfter)
}

// withDetails returns a status with an ErrorInfo, and with a RetryInfo unless retryAfter is nil.
func withDetails(
	code codes.Code, message string, info *errdetails.ErrorInfo, retryAfter *time.Duration,
) *status.Status {
	details := []proto.Message{info}
	if retryAfter != nil {
		delay := *retryAfter
		if delay < 0 {
			delay = 0
		}
		details = append(details, &errdetails.RetryInfo{RetryDelay: ptypes.DurationProto(delay)})
	}
	plain := status.New(code, message)
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		return plain // the words and the code still say it
	}
	rich := detailed.Proto()
	buffer := proto.NewBuffer(nil)
	buffer.SetDeterministic(true) // else the order of a map differs from run to run
	if buffer.Marshal(info) == nil {
		rich.Details[0].Value = buffer.Bytes()
	}
	return status.FromProto(rich)
}

// size returns how many bytes the trailers take, as HPACK counts them.
func (e *Error) size(built *status.Status) int {
	size := len("grpc-status") + len("00") + headerOverhead
	size += len("grpc-message") + len(percentEncoded(built.Message(), ' ')) + headerOverhead
	size += len(detailsTrailer) + (proto.Size(built.Proto())+2)/3*4 + headerOverhead
	for name, values := range e.Trailer() {
		size += len(name) + len(values[0]) + headerOverhead
	}
	return size
}

// cut returns text as valid UTF-8 of at most limit bytes, cut between two characters.
func cut(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// percentEncoded encodes '%' and every byte that is not between first and '~'.
func percentEncoded(text string, first byte) string {
	var encoded strings.Builder
	for i := 0; i < len(text); i++ {
		if each := text[i]; each < first || each > '~' || each == '%' {
			encoded.WriteString("%" + strings.ToUpper(strconv.FormatUint(0x100|uint64(each), 16)[1:]))
		} else {
			encoded.WriteByte(each)
		}
	}
	return encoded.String()
}

// percentDecoded leaves alone what is not percent-encoded properly.
func percentDecoded(text string) string {
	var decoded []byte
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if value, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				decoded = append(decoded, byte(value))
				i += 2
				continue
			}
		}
		decoded = append(decoded, text[i])
	}
	return strings.ToValidUTF8(string(decoded), "\uFFFD")
}

func heldValue(model string) string {
	if model == "" {
		return "1"
	}
	value := percentEncoded(cut(model, heldLimit), '!')
	for limit := heldLimit - 1; len(value) > heldLimit; limit-- {
		value = percentEncoded(cut(model, limit), '!')
	}
	return value
}

// ---- Recognizing ----

// Evidence says what decided, strongest first.
type Evidence string

// The rungs of the contract.
const (
	Details Evidence = "details" // an ErrorInfo of the contract's domain
	Trailer Evidence = "trailer" // UnexecutedTrailer, where the details were lost on the way
	Text    Evidence = "text"    // the words of a system that sends neither
	Code    Evidence = "code"    // the bare code
)

// Verdict says what an error means. The zero value is that of an error that the contract does not
// know.
type Verdict struct {
	// Reason is that of the condition, "" for none.
	Reason string
	// Evidence says what decided, "" for nothing. Details and Trailer decide for no condition if
	// they give a reason that this version does not know.
	Evidence Evidence
	// Unexecuted is whether it is proved that the request was not executed: then it may be sent to
	// another replica, unless the first message of a stream has been delivered.
	Unexecuted bool
	// Metadata is that of the ErrorInfo; or "backend", if the words name it.
	Metadata map[string]string
	// RetryAfter is how long the sender asks to wait; nil if it does not ask.
	RetryAfter *time.Duration
}

// Classify returns what err, or an error that it wraps, means. trailer is that of the call; without
// it, only the status is read. The strongest evidence decides; between equals, the outermost error.
func Classify(err error, trailer ...metadata.MD) Verdict {
	if verdicts := judge(survey(err, trailer)); len(verdicts) > 0 {
		return verdicts[0]
	}
	return Verdict{}
}

// HeldModel returns the model that a guard still held when the handler failed; "1" is a model
// without an identity, "" none. Such an error does not mean that the model is gone.
func HeldModel(trailer metadata.MD) string { return readTrailer(trailer).held }

// IsModelNotLoaded reports whether err means MODEL_NOT_LOADED. Arguments as for Classify.
func IsModelNotLoaded(err error, trailer ...metadata.MD) bool {
	return says(ReasonModelNotLoaded, err, trailer)
}

// IsModelMismatch reports whether err means MODEL_MISMATCH. Arguments as for Classify.
func IsModelMismatch(err error, trailer ...metadata.MD) bool {
	return says(ReasonModelMismatch, err, trailer)
}

// IsModelLoading reports whether err means MODEL_LOADING. Arguments as for Classify.
func IsModelLoading(err error, trailer ...metadata.MD) bool {
	return says(ReasonModelLoading, err, trailer)
}

// IsLiveTranscriptionUnsupported reports whether err means LIVE_TRANSCRIPTION_UNSUPPORTED.
// Arguments as for Classify.
func IsLiveTranscriptionUnsupported(err error, trailer ...metadata.MD) bool {
	return says(ReasonLiveTranscriptionUnsupported, err, trailer)
}

// IsStreamTranscriptionUnsupported reports whether err means STREAM_TRANSCRIPTION_UNSUPPORTED.
// Arguments as for Classify.
func IsStreamTranscriptionUnsupported(err error, trailer ...metadata.MD) bool {
	return says(ReasonStreamTranscriptionUnsupported, err, trailer)
}

func says(reason string, err error, trailer []metadata.MD) bool {
	for _, verdict := range judge(survey(err, trailer)) {
		if verdict.Reason == reason {
			return true
		}
	}
	return false
}

// facts are what one error says of itself.
type facts struct {
	code  codes.Code
	text  string
	infos []info
	held  string
}

// info is an ErrorInfo with the delay of the RetryInfo beside it; or the plain trailer.
type info struct {
	domain, reason string
	metadata       map[string]string
	retryAfter     *time.Duration
	plain          bool
}

// survey reads err and all that it wraps, outermost first.
func survey(err error, trailers []metadata.MD) (found []facts) {
	coded, room := -1, textLimit
	pending := []error{err}
	for len(pending) > 0 && len(found) < chainLimit {
		node := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if node == nil {
			continue
		}
		said, wrapped := read(node)
		said.text = first(said.text, &room)
		if coded < 0 && said.code != noCode {
			coded = len(found)
		}
		found = append(found, said)
		for i := len(wrapped) - 1; i >= 0; i-- {
			pending = append(pending, wrapped[i])
		}
	}
	if len(found) > 0 { // the trailers are those of the outermost error that a call ended with
		if coded < 0 {
			coded = 0
		}
		found[coded].add(readTrailer(metadata.Join(trailers...)))
	}
	return found
}

// read returns what one error says of itself, and what it wraps; nothing more if a method panics.
func read(node error) (said facts, wrapped []error) {
	defer func() { _ = recover() }()
	if carrier, ok := node.(interface{ GRPCStatus() *status.Status }); ok {
		answer := carrier.GRPCStatus()
		said = facts{code: answer.Code(), text: answer.Message(), infos: decode(answer.Proto())}
	} else {
		said.text = node.Error()
	}
	if carrier, ok := node.(interface{ Trailer() metadata.MD }); ok {
		said.add(readTrailer(carrier.Trailer()))
	}
	switch wrapper := node.(type) {
	case interface{ Unwrap() error }:
		wrapped = []error{wrapper.Unwrap()}
	case interface{ Unwrap() []error }:
		wrapped = wrapper.Unwrap()
	}
	return said, wrapped
}

// first cuts a text to the room that is left for texts, in characters.
func first(text string, room *int) string {
	if utf8.RuneCountInString(text) > *room {
		text = string([]rune(text)[:*room])
	}
	*room -= utf8.RuneCountInString(text)
	return text
}

// trailerFacts are what trailers say.
type trailerFacts struct {
	infos   []info
	details bool // whether there are details among them, even if none can be read
	held    string
}

func (f *facts) add(trailer trailerFacts) {
	if trailer.details {
		f.infos = nil // grpc-go has read the same details
	}
	f.infos = append(f.infos, trailer.infos...)
	if f.held == "" {
		f.held = trailer.held
	}
}

func readTrailer(trailer metadata.MD) (read trailerFacts) {
	details, sent := agreed(trailer[detailsTrailer])
	read.details = sent
	if rich := new(statuspb.Status); proto.Unmarshal([]byte(details), rich) == nil {
		read.infos = decode(rich)
	}
	if plain, _ := agreed(trailer[UnexecutedTrailer]); strings.TrimSpace(plain) != "" {
		said := info{domain: Domain, reason: strings.TrimSpace(plain), plain: true}
		if slash := strings.LastIndex(said.reason, "/"); slash >= 0 { // another domain's reason
			if slash > 0 {
				said.domain = said.reason[:slash]
			}
			said.reason = said.reason[slash+1:]
		}
		if said.reason != "" {
			read.infos = append(read.infos, said)
		}
	}
	for _, value := range trailer[HeldTrailer] {
		if read.held == "" {
			read.held = percentDecoded(value)
		}
	}
	return read
}

// agreed returns the value on which all agree, "" if they contradict each other, and whether there
// are any.
func agreed(values []string) (value string, sent bool) {
	for _, each := range values {
		if each != values[0] {
			return "", true
		}
		value = each
	}
	return value, len(values) > 0
}

// decode returns every ErrorInfo of a status, leaving out what cannot be decoded.
func decode(rich *statuspb.Status) (infos []info) {
	var retryAfter *time.Duration
	for _, detail := range rich.GetDetails() {
		// Some senders and proxies write another prefix, or none: only the type's name counts.
		switch detail.TypeUrl[strings.LastIndex(detail.TypeUrl, "/")+1:] {
		case "google.rpc.ErrorInfo":
			each := new(errdetails.ErrorInfo)
			if proto.Unmarshal(detail.Value, each) == nil {
				infos = append(infos, info{domain: each.Domain, reason: each.Reason, metadata: each.Metadata})
			}
		case "google.rpc.RetryInfo":
			each := new(errdetails.RetryInfo)
			if retryAfter == nil && proto.Unmarshal(detail.Value, each) == nil {
				retryAfter = duration(each.GetRetryDelay().GetSeconds(), each.GetRetryDelay().GetNanos())
			}
		}
	}
	for i := range infos {
		infos[i].retryAfter = retryAfter
	}
	return infos
}

// duration returns nil for what no sender can mean.
func duration(seconds int64, nanos int32) *time.Duration {
	if seconds < 0 || seconds > longestDelay || nanos < 0 || nanos >= 1e9 {
		return nil
	}
	delay := time.Duration(math.MaxInt64)
	if seconds < math.MaxInt64/int64(time.Second) {
		delay = time.Duration(seconds)*time.Second + time.Duration(nanos)
	}
	return &delay
}

// judge returns the verdicts of the highest rung that decides anything, outermost error first.
func judge(found []facts) []Verdict {
	typed := map[Evidence][]Verdict{}
	held, foreign, coded := false, false, false
	for _, each := range found {
		if verdict, ok := each.typed(); ok {
			typed[verdict.Evidence] = append(typed[verdict.Evidence], verdict)
		}
		held = held || each.held != ""
		foreign = foreign || len(each.infos) > 0
		coded = coded || each.code != noCode
	}
	for _, rung := range []Evidence{Details, Trailer} {
		if len(typed[rung]) > 0 {
			return typed[rung]
		}
	}
	if held { // a guard vouches that the model was there: words and code mean something else
		return nil
	}
	var said, bare []Verdict
	for _, each := range found {
		// An error without a code may quote the one that it wraps, and only the code of that one
		// shows whether the words are a backend's or a user's.
		if each.code == noCode && coded {
			continue
		}
		if verdict, ok := byWords(each.code, each.text); ok {
			said = append(said, verdict)
		} else if known := byCode(each.code); known != nil {
			bare = append(bare, Verdict{Reason: known.reason, Evidence: Code})
		}
	}
	if len(said) > 0 || foreign { // with an ErrorInfo, the sender says what its code means
		return said
	}
	return bare
}

// typed judges by an ErrorInfo of the contract, else by the plain trailer, which comes last.
func (f facts) typed() (verdict Verdict, ok bool) {
	var known *info
	for i, each := range f.infos {
		switch {
		case each.domain != Domain:
		case known == nil:
			known = &f.infos[i]
		case each.reason != known.reason && !each.plain:
			return Verdict{}, false // they contradict each other
		}
	}
	if known == nil {
		return Verdict{}, false
	}
	verdict = Verdict{Evidence: Details, Metadata: known.metadata, RetryAfter: known.retryAfter}
	if condition := byReason(known.reason); condition != nil {
		verdict.Reason = condition.reason
		verdict.Unexecuted = condition.unexecuted && known.metadata["started"] != "true"
	}
	if known.plain {
		verdict.Evidence, verdict.Unexecuted = Trailer, true
	}
	return verdict, true
}

func byReason(reason string) *condition {
	for _, known := range conditions {
		if known.reason == reason {
			return known
		}
	}
	return nil
}

func byCode(code codes.Code) *condition {
	for _, known := range conditions {
		if known.codeAlone && known.code == code {
			return known
		}
	}
	return nil
}

// byWords judges by the condition whose words come first: what follows may be quoted by them.
func byWords(code codes.Code, text string) (verdict Verdict, ok bool) {
	text = notASCII.Replace(text)
	lowered := strings.ToLower(text)
	whole := exceptionPrefix.ReplaceAllString(strings.Trim(text, " \t\r\n"), "")
	rest := unquoted(whole)
	earliest := math.MaxInt
	for _, known := range conditions {
		for _, dialect := range known.dialects {
			if !dialect.counts(code, lowered) {
				continue
			}
			at, backend := dialect.find(whole, rest)
			if at < 0 || at >= earliest {
				continue
			}
			earliest, ok = at, true
			verdict = Verdict{
				Reason: known.reason, Evidence: Text, Unexecuted: known.unexecuted && dialect.unexecuted,
			}
			if backend != "" {
				verdict.Metadata = map[string]string{"backend": backend}
			}
		}
	}
	return verdict, ok
}

func (d dialect) counts(code codes.Code, lowered string) bool {
	for _, each := range d.codes {
		if each != code {
			continue
		}
		for _, hint := range d.hints {
			if strings.Contains(lowered, hint) {
				return true
			}
		}
	}
	return false
}

// find returns where a message has these words, -1 if nowhere, and the backend that it names.
func (d dialect) find(whole, unquoted string) (at int, backend string) {
	text := unquoted
	if d.whole {
		text = whole
	}
	match := d.pattern.FindStringSubmatchIndex(text)
	if match == nil || d.unless != nil && d.unless.MatchString(text) {
		return -1, ""
	}
	before := text[:match[0]]
	if group := d.pattern.SubexpIndex("backend"); group > 0 && match[2*group] >= 0 {
		before = text[match[2*group]:match[2*group+1]]
	}
	if strings.HasSuffix(before, ": ") {
		backend = strings.TrimSuffix(before, ": ")
	}
	return match[0], backend
}

var (
	exceptionPrefix = regexp.MustCompile(quotationPrefix) // what grpcio puts before an exception's text
	openingMark     = regexp.MustCompile(quotationOpening)
	closingMark     = regexp.MustCompile(quotationClosing)
	// These are an s and a k for Go's regular expressions, but not for those of other languages.
	notASCII = strings.NewReplacer("\u017F", "?", "\u212A", "?")
)

// unquoted returns a message without what is quoted in it: from the first opening mark to the last
// closing mark, whatever the marks are, because a user may write some too.
func unquoted(message string) string {
	opening := openingMark.FindStringIndex(message)
	if opening == nil {
		return message
	}
	_, mark := utf8.DecodeLastRuneInString(message[:opening[1]])
	before, after := message[:opening[1]-mark], ""
	rest := message[opening[1]:]
	if closing := closingMark.FindStringSubmatchIndex(rest); closing != nil {
		_, mark := utf8.DecodeRuneInString(rest[closing[2]:])
		after = rest[closing[2]+mark:]
	}
	return before + "''" + after
}
