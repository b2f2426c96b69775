package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// What Go backends without the contract say.
var native = map[string]error{
	"words":    status.Errorf(codes.FailedPrecondition, "%s: model not loaded", "rfdetr"),
	"plain":    errors.New("rfdetr: model not loaded"),
	"wrapped":  fmt.Errorf("predict: %w", status.Error(codes.FailedPrecondition, "rfdetr: model not loaded")),
	"code":     status.Error(codes.FailedPrecondition, "warming up"),
	"mismatch": status.Errorf(codes.NotFound, "%s: model identity mismatch: loaded %q, requested %q", "rfdetr", "a", "b"),
	"quoted":   status.Errorf(codes.InvalidArgument, "cannot parse %q", "model not loaded"),
	"foreign":  typed(codes.FailedPrecondition, "quota", "QUOTA", "example.com", nil),
	"other":    errors.New("out of memory"),
}

func serve(rows vectors) error {
	answers := make(map[string]error)
	trailers := make(map[string]metadata.MD)
	for name, answer := range native {
		answers["native/"+name] = answer
	}
	for _, row := range rows.Build {
		given := map[string]string{}
		for key, value := range row.Fields {
			if value != "" {
				given[key] = value
			}
		}
		if row.Started {
			given["started"] = "true"
		}
		answers["build/"+row.Name] = typed(codes.Code(row.Code), row.Message, row.Condition, domain, given)
		answers["exact/"+row.Name] = raw(codes.Code(row.Code), row.Message, []string{row.Details})
	}
	for _, row := range rows.Detect {
		answers["detect/"+row.Name] = raw(codes.Code(row.Code), row.Message, row.Details)
		for _, trailer := range row.Trailers {
			trailers["detect/"+row.Name] = metadata.Pairs(trailer[0], trailer[1])
		}
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	service := grpc.ServiceDesc{ServiceName: "interop.Errors", HandlerType: (*interface{})(nil)}
	for _, desc := range shapes { // a unary call is a stream of one message each way
		streams := desc.ServerStreams
		desc.Handler = func(_ interface{}, stream grpc.ServerStream) error {
			return answer(stream, streams, answers, trailers)
		}
		service.Streams = append(service.Streams, desc)
	}
	server := grpc.NewServer()
	server.RegisterService(&service, nil)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Println(listener.Addr())
	return server.Serve(listener)
}

// answer sends the error that the call names; a streaming method sends a message first.
func answer(
	stream grpc.ServerStream, streams bool, answers map[string]error, trailers map[string]metadata.MD,
) error {
	var row wrappers.StringValue
	if err := stream.RecvMsg(&row); err != nil {
		return err
	}
	if streams {
		if err := stream.SendMsg(&row); err != nil {
			return err
		}
	}
	stream.SetTrailer(trailers[row.Value])
	if err, known := answers[row.Value]; known {
		return err
	}
	return status.Errorf(codes.OutOfRange, "no row %s", row.Value)
}

func typed(code codes.Code, message, reason, domain string, metadata map[string]string) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: domain, Metadata: metadata}
	answer, err := status.New(code, message).WithDetails(info)
	if err != nil {
		return err
	}
	return answer.Err()
}

// raw returns an error with these very trailers. Where grpc-go would send others it says so: it
// writes code, message and details from one google.rpc.Status, and only where that has details.
func raw(code codes.Code, message string, details []string) error {
	if len(details) == 0 {
		return status.Error(code, message)
	}
	trailer, err := hex.DecodeString(details[0])
	var rich spb.Status
	if err != nil || len(details) > 1 || proto.Unmarshal(trailer, &rich) != nil ||
		len(rich.Details) == 0 || codes.Code(rich.Code) != code || rich.Message != message {
		return status.Error(codes.DataLoss, "grpc-go cannot send this")
	}
	return status.ErrorProto(&rich)
}
