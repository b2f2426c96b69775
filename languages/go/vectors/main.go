// Command vectors prints the lines of vectors.tsv with the answers of grpcerrors.go in them. Nothing
// may differ from the file:
//
//	vectors vectors.tsv | diff vectors.tsv -
//
// It imports grpcerrors.go as the package grpcerrors.
package main

import (
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"strconv"

	"github.com/golang/protobuf/proto"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: vectors FILE")
	}
	for _, each := range readRows(os.Args[1]) {
		fmt.Println(line(answered(each)))
	}
}

func answered(each row) []string {
	switch each.kind {
	case "build":
		built := each.built()
		sent := built.GRPCStatus()
		bytes, err := proto.Marshal(sent.Proto())
		if err != nil {
			log.Fatal(err)
		}
		trailers := [][2]string{{"grpc-status-details-bin", hex.EncodeToString(bytes)}}
		for name, values := range built.Trailer() {
			trailers = append(trailers, [2]string{name, values[0]})
		}
		cells := append(each.cells[:5:5], strconv.Itoa(int(sent.Code())), sent.Message())
		return append(append(cells, joined(trailers)...), joined(each.fields)...)
	case "detect":
		cells := append(each.cells[:4:4], answers(each.received())...)
		return append(cells, joined(each.trailers)...)
	}
	return each.cells
}
