// Command peer is the Go half of tests/interop: a client and a server on grpc-go.
//
//	peer client ADDRESS VECTORS  asks a server for every row; prints a line for each
//	peer server VECTORS          prints its address, serves every row until stdin ends
//
// It is built together with rows.go of languages/go/vectors.
package main

import (
	"fmt"
	"log"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "client":
		err = ask(os.Args[2], readRows(os.Args[3]))
	case len(os.Args) == 3 && os.Args[1] == "server":
		err = serve(readRows(os.Args[2]))
	default:
		err = fmt.Errorf("usage: %s client ADDRESS VECTORS | server VECTORS", os.Args[0])
	}
	if err != nil {
		log.Fatal(err)
	}
}
