// Command interop is the Go half of tests/interop: a client and a server on grpc-go.
//
//	interop client ADDRESS VECTORS  asks a server for every row; prints a line of JSON for each
//	interop server VECTORS          prints its address, serves every row until stdin ends
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
		err = ask(os.Args[2], read(os.Args[3]))
	case len(os.Args) == 3 && os.Args[1] == "server":
		err = serve(read(os.Args[2]))
	default:
		err = fmt.Errorf("usage: %s client ADDRESS VECTORS | server VECTORS", os.Args[0])
	}
	if err != nil {
		log.Fatal(err)
	}
}
