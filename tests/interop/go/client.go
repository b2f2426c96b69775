package main

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strconv"

	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"grpcerrors"
)

var shapes = []grpc.StreamDesc{
	{StreamName: "Unary"},
	{StreamName: "ServerStream", ServerStreams: true},
	{StreamName: "ClientStream", ClientStreams: true},
	{StreamName: "Bidi", ServerStreams: true, ClientStreams: true},
}

func ask(address string, rows []row) error {
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer connection.Close()
	for _, each := range rows {
		if each.name == "" {
			continue
		}
		for _, shape := range shapes {
			name := each.kind + "/" + each.name
			received, trailer, err := call(connection, shape, name)
			fmt.Println(line(append([]string{name, shape.StreamName, strconv.Itoa(received)}, seen(err, trailer)...)))
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

// seen returns code, message and the answers of grpcerrors.go, and the metadata of the ErrorInfo.
func seen(err error, trailer metadata.MD) []string {
	answer := status.Convert(err)
	cells := append([]string{strconv.Itoa(int(answer.Code())), answer.Message()}, answers(err, trailer)...)
	var metadata [][2]string
	for name, value := range grpcerrors.Classify(err, trailer).Metadata {
		metadata = append(metadata, [2]string{name, value})
	}
	sort.Slice(metadata, func(i, j int) bool { return metadata[i][0] < metadata[j][0] })
	return append(cells, joined(metadata)...)
}
