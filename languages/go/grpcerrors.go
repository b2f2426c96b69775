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
//	if grpcerrors.IsModelNotLoaded(err, trailer) { ... }
package grpcerrors

import (
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
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
	wordsQuotedName    = "(?:'[^']*'|\"[^\"]*\")"
	wordsName          = "(?: (?:''|``|\\\"\\\")| [a-z]{0,40}[^\\sa-z_'\\\"`]\\S{0,200})?"
	wordsModel         = "\\b(?:models?|engine|pipeline|weights)(?:(?:/| or | and )\\w+)?" + wordsName
	wordsNot           = "(?:(?:is|are|was|were|has|have)n't |(?:(?:is|are|was|were|has|have) )?(?:currently |still )?(?:not|never) )"
	wordsLoaded        = "(?:loaded|initiali[sz]ed)\\b"
	wordsNotLoaded     = wordsModel + " " + wordsNot + "(?:been |yet |currently ){0,2}" + wordsLoaded
	wordsNoModelLoaded = "\\bno (?:active |valid )?(?:models?|engine|pipeline) (?:(?:is|are|was|were|has|have|been|yet|currently) ){0,3}" + wordsLoaded
	wordsGone          = wordsModel + " (?:is |was |has been |got )?(?:unloaded|evicted)\\b"
	wordsOfAnotherKind = "\\b(?:adapter|alignment|anti-?spoof|diarization|draft|lora|mmproj|projector|punctuation|refiner|speaker|vad|vocoder|query|rule|search|storage|template|for|of) "
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
				wordsNotLoaded+
					"|"+wordsNoModelLoaded+
					"|\\bcall (?:\\w+\\.)?load_?model(?:\\(\\))? (?:first|before)\\b"+
					"|\\bload_?model(?:\\(\\))? (?:was|has) (?:not|never) (?:been )?called\\b"+
					"|\\bload (?:a|the) model (?:first|before)\\b",
				wordsOfAnotherKind+wordsNotLoaded+
					"|(?:"+wordsNotLoaded+"|"+wordsNoModelLoaded+")(?:"+wordsAfterwards+")"+
					"|\\bpipeline is not loaded yet"+
					"|\\bcalled with no models loaded"+
					"|\\bno such file or directory",
				true,
			),
			said( // backends whose model went away under the call
				[]codes.Code{codes.FailedPrecondition, codes.Unknown, codes.Internal, codes.Unavailable},
				[]string{"unloaded", "evicted"},
				wordsGone,
				wordsOfAnotherKind+wordsGone+
					"|"+wordsGone+"(?:"+wordsAfterwards+")",
				false,
			),
			said( // Python handlers that use what only LoadModel sets
				[]codes.Code{codes.Unknown, codes.Internal},
				[]string{"has no attribute"},
				"^(?:[\\w ]{1,60}: )?(?:'\\w{0,100}Servicer' object has no attribute '\\w{1,100}'|'NoneType' object has no attribute '(?:generate|predict|synthesize|transcribe)')$",
				"",
				false,
			),
			said( // Triton Inference Server
				[]codes.Code{codes.Unavailable, codes.NotFound},
				[]string{"unknown model"},
				"^Request for unknown model: '[^'\\n]*'",
				"^Request for unknown model: '[^'\\n]*' version -?\\d+ is not at ready state",
				true,
			),
			said( // TensorFlow Serving
				[]codes.Code{codes.NotFound},
				[]string{"servable not found", "could not find"},
				"^(?:Servable not found for request: |Could not find (?:any versions|version \\d+) of model )",
				"",
				true,
			),
			said( // OpenVINO Model Server
				[]codes.Code{codes.NotFound},
				[]string{"with requested", "is retired"},
				"^(?:(?:Model|Mediapipe graph definition) with requested (?:name|version|name and/or version) is not found|(?:Model with requested version|Pipeline|Mediapipe) is retired)\\b",
				"",
				true,
			),
			said( // TorchServe
				[]codes.Code{codes.Internal, codes.NotFound},
				[]string{"model not found", "does not exist"},
				"^(?:Model not found: [^\\s/]+(?:\\norg\\.pytorch\\.|$)|Model version: \\S+ does not exist for model: )",
				"",
				true,
			),
			said( // KServe
				[]codes.Code{codes.Unknown, codes.NotFound},
				[]string{"does not exist"},
				"^Model with name \\S+ does not exist\\.?$",
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
				"^Model \\S+ (?:with version \\S+ )?not found\\.?$",
				"^Model file ",
				true,
			),
			said( // Caikit
				[]codes.Code{codes.NotFound},
				[]string{"not loaded"},
				"^Model (?:'[^'\\n]*'|\\S+ is) not loaded\\.?$",
				"",
				true,
			),
			said( // Ray Serve
				[]codes.Code{codes.NotFound},
				[]string{"/ray.serve."},
				"^Application '[^'\\n]*' not found\\. (?:Please ping|Ping) /ray\\.serve\\.",
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
				"^(?P<backend>[^\\s'\\\"`]{0,100}: )?model identity mismatch: loaded "+wordsQuotedName+", requested "+wordsQuotedName+"$",
				"",
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
				"^(?P<backend>[^\\s'\\\"`]{0,100}: )?model is loading$",
				"",
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
				"live transcription unsupported",
				"",
				true,
			),
			said( // stubs older than the RPC
				[]codes.Code{codes.Unknown, noCode},
				[]string{"unimplemented"},
				"unimplemented",
				"",
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
				"streaming transcription unsupported",
				"",
				true,
			),
		},
	},
}

// END GENERATED
