package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"grpcerrors"
)

// A row is a line of vectors.tsv: an error as the contract builds it (kind "build"), or as a client
// meets it (kind "detect").
type row struct {
	cells      []string // all of them, as they stand in the file
	kind, name string

	condition  string // of an error to build
	started    bool
	retryAfter *time.Duration
	fields     [][2]string

	code     *codes.Code // of an error to detect
	message  string
	trailers [][2]string
}

var (
	escapes   = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`, "\x00", `\0`)
	unescapes = strings.NewReplacer(`\\`, `\`, `\t`, "\t", `\n`, "\n", `\r`, "\r", `\0`, "\x00")
)

// readRows reads the file; a line of another kind, such as a comment, is a row of that kind.
func readRows(path string) (rows []row) {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		cells := strings.Split(lines.Text(), "\t")
		for i, cell := range cells {
			cells[i] = unescapes.Replace(cell)
		}
		read := row{cells: cells, kind: cells[0]}
		switch read.kind {
		case "build":
			read.name, read.condition, read.started = cells[1], cells[2], cells[3] == "1"
			if seconds, err := strconv.ParseFloat(cells[4], 64); err == nil {
				delay := time.Duration(seconds * float64(time.Second))
				read.retryAfter = &delay
			}
			read.trailers, cells = pairs(cells[7:])
			read.fields, _ = pairs(cells)
		case "detect":
			read.name, read.message = cells[1], cells[3]
			if number, err := strconv.Atoi(cells[2]); err == nil {
				code := codes.Code(number)
				read.code = &code
			}
			read.trailers, _ = pairs(cells[9:])
		}
		rows = append(rows, read)
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
	return rows
}

// built returns the error that grpcerrors makes of a row to build.
func (r row) built() *grpcerrors.Error {
	fields := map[string]string{}
	for _, field := range r.fields {
		fields[field[0]] = field[1]
	}
	built := grpcerrors.New(r.condition, fields)
	if r.started {
		built = built.WithStarted()
	}
	if r.retryAfter != nil {
		built = built.WithRetryAfter(*r.retryAfter)
	}
	return built
}

// received returns the error and the trailers of a row to detect.
func (r row) received() (error, metadata.MD) {
	trailer := metadata.MD{}
	for _, pair := range r.trailers {
		value := pair[1]
		if strings.HasSuffix(pair[0], "-bin") {
			bytes, err := hex.DecodeString(value)
			if err != nil {
				log.Fatal(err)
			}
			value = string(bytes)
		}
		trailer.Append(pair[0], value)
	}
	if r.code == nil {
		return errors.New(r.message), trailer
	}
	return status.Error(*r.code, r.message), trailer
}

// answers returns what grpcerrors says of an error, as the cells of a row to detect.
func answers(err error, trailer metadata.MD) []string {
	verdict := grpcerrors.Classify(err, trailer)
	unexecuted, retryAfter := "0", ""
	if verdict.Unexecuted {
		unexecuted = "1"
	}
	if delay := verdict.RetryAfter; delay != nil {
		retryAfter = strconv.FormatFloat(delay.Seconds(), 'g', -1, 64)
	}
	held := grpcerrors.HeldModel(trailer)
	return []string{verdict.Reason, string(verdict.Evidence), unexecuted, retryAfter, held}
}

// pairs reads a count and as many pairs of cells; it returns what follows, too.
func pairs(cells []string) (read [][2]string, rest []string) {
	count, err := strconv.Atoi(cells[0])
	if err != nil {
		log.Fatal(err)
	}
	rest = cells[1:]
	for ; count > 0; count-- {
		read = append(read, [2]string{rest[0], rest[1]})
		rest = rest[2:]
	}
	return read, rest
}

// joined returns what pairs reads.
func joined(pairs [][2]string) []string {
	cells := []string{strconv.Itoa(len(pairs))}
	for _, pair := range pairs {
		cells = append(cells, pair[0], pair[1])
	}
	return cells
}

// line returns cells as they stand in the file.
func line(cells []string) string {
	escaped := make([]string, len(cells))
	for i, cell := range cells {
		escaped[i] = escapes.Replace(cell)
	}
	return strings.Join(escaped, "\t")
}
