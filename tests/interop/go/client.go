package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

var shapes = []grpc.StreamDesc{
	{StreamName: "Unary"},
	{StreamName: "ServerStream", ServerStreams: true},
	{StreamName: "ClientStream", ClientStreams: true},
	{StreamName: "Bidi", ServerStreams: true, ClientStreams: true},
}

// What the client saw of one error.
type sighting struct {
	Row       string                  `json:"row"`
	Shape     string                  `json:"shape"`
	Received  int                     `json:"received"`
	Code      uint32                  `json:"code"`
	Message   string                  `json:"message"`
	Infos     []*errdetails.ErrorInfo `json:"infos"`
	Details   string                  `json:"details_hex"`
	Condition string                  `json:"condition"`
	Evidence  string                  `json:"evidence"`
}

func ask(address string, rows vectors) error {
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer connection.Close()
	var names []string
	for _, row := range rows.Build {
		names = append(names, "build/"+row.Name)
	}
	for _, row := range rows.Detect {
		names = append(names, "detect/"+row.Name)
	}
	output := json.NewEncoder(os.Stdout)
	for _, name := range names {
		for _, shape := range shapes {
			received, trailer, err := call(connection, shape, name)
			seen := see(err, trailer)
			seen.Row, seen.Shape, seen.Received = name, shape.StreamName, received
			if err := output.Encode(seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// call asks for the error of one row; it returns how many messages came before it, and its trailer.
func call(
	connection *grpc.ClientConn, shape grpc.StreamDesc, row string,
) (received int, trailer metadata.MD, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := connection.NewStream(ctx, &shape, "/interop.Errors/"+shape.StreamName)
	if err != nil {
		return 0, nil, err
	}
	err = stream.SendMsg(&wrappers.StringValue{Value: row})
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil || err == io.EOF { // EOF of a send: the error is there to be received
		if err = stream.RecvMsg(new(wrappers.StringValue)); err != nil {
			break
		}
		received++
	}
	if err == io.EOF {
		err = nil
	}
	return received, stream.Trailer(), err
}

func see(err error, trailer metadata.MD) (seen sighting) {
	answer, _ := status.FromError(err)
	seen.Code, seen.Message = uint32(answer.Code()), answer.Message()
	seen.Infos = errorInfos(answer)
	if rich := answer.Proto(); len(rich.GetDetails()) > 0 {
		bytes, _ := proto.Marshal(rich)
		seen.Details = hex.EncodeToString(bytes)
	}
	seen.Condition, seen.Evidence = detect(err, trailer)
	return seen
}
