package main

import (
	"encoding/json"
	"log"
	"os"
)

// What vectors.json holds: how each error is built, and how each is read.
type vectors struct {
	Build []struct {
		Name      string
		Condition string
		Fields    map[string]string
		Started   bool
		Code      uint32
		Message   string
		Details   string `json:"details_hex"`
	}
	Detect []struct {
		Name     string
		Code     uint32
		Message  string
		Details  []string    `json:"details_hex"` // each value of grpc-status-details-bin
		Trailers [][2]string // other trailers:, name and value
	}
}

func read(path string) (rows vectors) {
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &rows)
	}
	if err != nil {
		log.Fatalf("cannot read the vectors in %s: %v", path, err)
	}
	return rows
}
