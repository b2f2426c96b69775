package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"grpcerrors"
)

const details = "grpc-status-details-bin"

// What Go backends without the contract say.
var native = map[string]error{
	"words":    status.Errorf(codes.FailedPrecondition, "%s: model not loaded", "rfdetr"),
	"plain":    errors.New("rfdetr: model not loaded"),
	"wrapped":  fmt.Errorf("predict: %w", status.Error(codes.FailedPrecondition, "rfdetr: model not loaded")),
	"code":     status.Error(codes.FailedPrecondition, "warming up"),
	"mismatch": status.Errorf(codes.NotFound, "%s: model identity mismatch: loaded %q, requested %q", "rfdetr", "a", "b"),
	"quoted":   status.Errorf(codes.InvalidArgument, "cannot parse %q", "model not loaded"),
	"foreign":  foreign(),
	"other":    errors.New("out of memory"),
}

// An answerer is what a handler does for one row.
type answerer func(context.Context) error

func serve(rows []row) error {
	answers := map[string]answerer{}
	for name, err := range native {
		err := err
		answers["native/"+name] = func(context.Context) error { return err }
	}
	for _, each := range rows {
		each := each
		switch each.kind {
		case "build":
			build := func(context.Context) error { return each.built() }
			answers["build/"+each.name], answers["refuse/"+each.name] = build, build
		case "detect":
			answers["detect/"+each.name] = each.send
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	service := grpc.ServiceDesc{ServiceName: "interop.Errors", HandlerType: (*interface{})(nil)}
	service.Methods = []grpc.MethodDesc{{MethodName: "Unary", Handler: unary(answers)}}
	for _, desc := range shapes[1:] {
		desc.Handler = streaming(answers, desc.ServerStreams)
		service.Streams = append(service.Streams, desc)
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor),
		grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor))
	server.RegisterService(&service, nil)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Println(listener.Addr())
	return server.Serve(listener)
}

type unaryHandler = func(
	interface{}, context.Context, func(interface{}) error, grpc.UnaryServerInterceptor,
) (interface{}, error)

// unary does what generated code does for a unary method.
func unary(answers map[string]answerer) unaryHandler {
	return func(
		server interface{}, ctx context.Context, read func(interface{}) error,
		intercept grpc.UnaryServerInterceptor,
	) (interface{}, error) {
		var row wrappers.StringValue
		if err := read(&row); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, _ interface{}) (interface{}, error) {
			return nil, answer(ctx, answers, row.Value)
		}
		return intercept(ctx, &row, &grpc.UnaryServerInfo{Server: server}, handle)
	}
}

// streaming sends a message before the error, unless the row is a refusal.
func streaming(answers map[string]answerer, sends bool) grpc.StreamHandler {
	return func(_ interface{}, stream grpc.ServerStream) error {
		var row wrappers.StringValue
		if err := stream.RecvMsg(&row); err != nil {
			return err
		}
		if sends && !strings.HasPrefix(row.Value, "refuse/") {
			if err := stream.SendMsg(&row); err != nil {
				return err
			}
		}
		return answer(stream.Context(), answers, row.Value)
	}
}

func answer(ctx context.Context, answers map[string]answerer, row string) error {
	if model := strings.TrimPrefix(row, "held/"); model != row {
		if err := grpcerrors.SetHeld(ctx, model); err != nil {
			return err
		}
		return errors.New("x: model not loaded")
	}
	if answer, known := answers[row]; known {
		return answer(ctx)
	}
	return status.Errorf(codes.OutOfRange, "no row %s", row)
}

func foreign() error {
	answer, err := status.New(codes.FailedPrecondition, "quota").
		WithDetails(&errdetails.ErrorInfo{Reason: "QUOTA", Domain: "example.com"})
	if err != nil {
		return err
	}
	return answer.Err()
}

// send answers with these very trailers. Where grpc-go would send others it says so: it writes code,
// message and details from one google.rpc.Status, and only where that has details.
func (r row) send(ctx context.Context) error {
	err, trailer := r.received()
	sent := trailer[details]
	delete(trailer, details)
	if failed := grpc.SetTrailer(ctx, trailer); failed != nil {
		return failed
	}
	if len(sent) == 0 {
		return err
	}
	var rich spb.Status
	answer := status.Convert(err)
	if len(sent) > 1 || proto.Unmarshal([]byte(sent[0]), &rich) != nil || len(rich.Details) == 0 ||
		codes.Code(rich.Code) != answer.Code() || rich.Message != answer.Message() {
		return status.Error(codes.DataLoss, "grpc-go cannot send this")
	}
	return status.ErrorProto(&rich)
}
