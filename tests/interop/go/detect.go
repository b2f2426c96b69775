package main

import (
	"errors"
	"regexp"
	"strings"

	"github.com/golang/protobuf/proto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const domain = "grpcerrors"

type condition struct {
	reason    string
	code      codes.Code
	words     []string
	carriers  []codes.Code // codes in which the words count: never one whose text quotes the user
	codeAlone bool
}

// The mismatch comes first: its message quotes names, which may hold the words of another.
var catalogue = []condition{
	{"MODEL_MISMATCH", codes.NotFound, []string{"model identity mismatch: loaded"},
		[]codes.Code{codes.NotFound}, false},
	{"MODEL_NOT_LOADED", codes.FailedPrecondition, []string{"model not loaded", "no model loaded"},
		[]codes.Code{codes.FailedPrecondition, codes.Unknown, codes.Internal, codes.Unavailable}, true},
	{"STREAM_TRANSCRIPTION_UNSUPPORTED", codes.Unimplemented,
		[]string{"streaming transcription unsupported"},
		[]codes.Code{codes.Unimplemented, codes.Unknown}, false},
	{"LIVE_TRANSCRIPTION_UNSUPPORTED", codes.Unimplemented,
		[]string{"live transcription unsupported", "unimplemented"},
		[]codes.Code{codes.Unimplemented, codes.Unknown}, true},
}

// For each kind of quotation mark, all from the first that opens to the last that closes, or to the
// end: a user may write one too. An apostrophe inside a word is none.
var quotations = []*regexp.Regexp{
	regexp.MustCompile(`(?s)()".*"`), regexp.MustCompile(`(?s)()"[^"]+$`),
	regexp.MustCompile("(?s)()`.*`"), regexp.MustCompile("(?s)()`[^`]+$"),
	regexp.MustCompile(`(?s)(^|\W)'.*'(\W|$)`), regexp.MustCompile(`(?s)(^|\W)'[^']*$`),
	regexp.MustCompile("(?s)()[\u2018\u201c\u00ab].*"),
}

// detect returns the condition that err, or an error that it wraps, carries, and on what evidence:
// "details", "text" or "code"; details may decide for none. In trailer a guard may vouch that the
// model was there: then only details count.
func detect(err error, trailer metadata.MD) (reason, evidence string) {
	var carrier interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &carrier) {
		return "", ""
	}
	answer := carrier.GRPCStatus()
	infos := errorInfos(answer)
	for _, info := range infos {
		if info.Domain != domain {
			continue
		}
		for _, known := range catalogue {
			if info.Reason == known.reason {
				return known.reason, "details"
			}
		}
		return "", "details" // the contract's own word for something else
	}
	for _, held := range trailer.Get("grpcerrors-held") {
		if held != "" {
			return "", ""
		}
	}
	for _, known := range catalogue {
		if known.says(answer) {
			return known.reason, "text"
		}
	}
	for _, known := range catalogue {
		if known.codeAlone && answer.Code() == known.code && len(infos) == 0 {
			return known.reason, "code"
		}
	}
	return "", ""
}

func (known condition) says(answer *status.Status) bool {
	text := strings.ToLower(answer.Message())
	for _, quoted := range quotations {
		text = quoted.ReplaceAllString(text, "$1")
	}
	for _, carrier := range known.carriers {
		for _, words := range known.words {
			if answer.Code() == carrier && strings.Contains(text, words) {
				return true
			}
		}
	}
	return false
}

// errorInfos reads by the type's name alone: some senders write another prefix before it, or none.
func errorInfos(answer *status.Status) (infos []*errdetails.ErrorInfo) {
	for _, detail := range answer.Proto().GetDetails() {
		name := detail.TypeUrl[strings.LastIndex(detail.TypeUrl, "/")+1:]
		info := new(errdetails.ErrorInfo)
		if name == "google.rpc.ErrorInfo" && proto.Unmarshal(detail.Value, info) == nil {
			infos = append(infos, info)
		}
	}
	return infos
}
