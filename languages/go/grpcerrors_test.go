package grpcerrors

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// several wraps more than one error, as errors.Join of Go 1.20 does.
type several []error

func (s several) Error() string   { return fmt.Sprint([]error(s)) }
func (s several) Unwrap() []error { return s }

func TestClassifyReadsWhatAnErrorWraps(t *testing.T) {
	typed := ModelNotLoaded("rfdetr", "base.gguf")
	bare := status.Error(codes.FailedPrecondition, "no")
	words := status.Error(codes.Unknown, "vad: model not loaded")
	plain := metadata.Pairs(UnexecutedTrailer, ReasonModelMismatch)
	for name, each := range map[string]struct {
		err      error
		trailer  metadata.MD
		reason   string
		evidence Evidence
	}{
		"nil":                     {nil, nil, "", ""},
		"nil in an error":         {(*Error)(nil), nil, "", ""},
		"our own":                 {typed, nil, ReasonModelNotLoaded, Details},
		"wrapped":                 {fmt.Errorf("predict: %w", typed), nil, ReasonModelNotLoaded, Details},
		"among several":           {several{nil, errors.New("x"), typed}, nil, ReasonModelNotLoaded, Details},
		"the stronger, inside":    {several{bare, words}, nil, ReasonModelNotLoaded, Text},
		"without a code":          {errors.New("vad: model not loaded"), nil, ReasonModelNotLoaded, Text},
		"quoted by a wrapper":     {fmt.Errorf("model not loaded: %w", status.Error(codes.NotFound, "no")), nil, "", ""},
		"the trailer of the call": {fmt.Errorf("x: %w", bare), plain, ReasonModelMismatch, Trailer},
		"a held model":            {words, metadata.Pairs(HeldTrailer, "m"), "", ""},
	} {
		verdict := Classify(each.err, each.trailer)
		if verdict.Reason != each.reason || verdict.Evidence != each.evidence {
			t.Errorf("%s: %+v", name, verdict)
		}
		if IsModelNotLoaded(each.err, each.trailer) != (each.reason == ReasonModelNotLoaded) {
			t.Errorf("%s: the predicate disagrees", name)
		}
	}
}

func TestThePredicatesKnowTheirConditions(t *testing.T) {
	predicates := map[string]func(error, ...metadata.MD) bool{
		ReasonModelNotLoaded:                 IsModelNotLoaded,
		ReasonModelMismatch:                  IsModelMismatch,
		ReasonModelLoading:                   IsModelLoading,
		ReasonLiveTranscriptionUnsupported:   IsLiveTranscriptionUnsupported,
		ReasonStreamTranscriptionUnsupported: IsStreamTranscriptionUnsupported,
	}
	built := []*Error{
		ModelNotLoaded("b", "m"), ModelMismatch("b", "m", "n"), ModelLoading("b", "m", time.Second),
		LiveTranscriptionUnsupported("b", "offline"), StreamTranscriptionUnsupported("b", "offline"),
	}
	if len(built) != len(conditions) {
		t.Fatalf("the contract has %d conditions", len(conditions))
	}
	for i, err := range built {
		if err.condition != conditions[i] {
			t.Errorf("%v is %s", err, err.condition.reason)
		}
		for reason, predicate := range predicates {
			if predicate(err) != (reason == err.condition.reason) {
				t.Errorf("%v as %s", err, reason)
			}
		}
	}
}

func TestWordsNameTheBackend(t *testing.T) {
	for message, backend := range map[string]string{
		"vad: model not loaded": "vad",
		"model not loaded":      "",
	} {
		if got := Classify(status.Error(codes.Unknown, message)).Metadata["backend"]; got != backend {
			t.Errorf("%s: %q", message, got)
		}
	}
	mismatch := status.Error(codes.NotFound, `vllm: model identity mismatch: loaded "a", requested "b"`)
	if got := Classify(mismatch).Metadata["backend"]; got != "vllm" {
		t.Error(got)
	}
}

func TestSendReturnsWhatGRPCKnows(t *testing.T) {
	var none *Error
	other, ours := errors.New("x"), ModelNotLoaded("b", "m")
	for err, sent := range map[error]error{
		none: nil, other: other, ours: ours, fmt.Errorf("predict: %w", ours): ours,
	} {
		if got := Send(context.Background(), err); got != sent {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func TestInvalidTextIsSentAsUTF8(t *testing.T) {
	if got := ModelNotLoaded("a\xffb", "").Error(); got != "a\uFFFDb: model not loaded" {
		t.Errorf("%q", got)
	}
}

func TestTheHeldModelFits(t *testing.T) {
	for model, value := range map[string]string{
		"":                       "1",
		"tiny.en":                "tiny.en",
		"a b%":                   "a%20b%25",
		strings.Repeat("a", 999): strings.Repeat("a", 255),
		strings.Repeat("語", 99):  strings.Repeat("%E8%AA%9E", 28),
		strings.Repeat("a", 200) + strings.Repeat("語", 9): strings.Repeat("a", 200) +
			strings.Repeat("%E8%AA%9E", 6),
	} {
		if got := heldValue(model); got != value {
			t.Errorf("%.20q: %q", model, got)
		}
	}
}
