"""The Go code that docs/proposals/ offers compiles, and does what the text says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop.support.peers import GOPATH, SECONDS, needs

pytestmark = pytest.mark.interop

PAGE = Path(__file__).parents[2] / "docs/proposals/localai.md"
HEAD = """
package main

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)
"""
MAIN = """
func said(code codes.Code, reason, domain string) error {
	st, err := status.New(code, "said").WithDetails(
		&errdetails.ErrorInfo{Reason: reason, Domain: domain})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func main() {
	for _, err := range []error{
		ModelNotLoaded("x"),
		said(codes.Unknown, "MODEL_NOT_LOADED", "grpcerrors"),
		status.Error(codes.FailedPrecondition, "a bare code"),
		errors.New("x: Model not loaded"),
		nil,
		said(codes.FailedPrecondition, "MODEL_MISMATCH", "grpcerrors"),
		said(codes.FailedPrecondition, "QUOTA", "example.com"),
		status.Error(codes.NotFound, "no face detected"),
	} {
		fmt.Println(IsModelNotLoaded(err))
	}
	fmt.Println(status.Code(ModelNotLoaded("x")), status.Convert(ModelNotLoaded("x")).Message())
}
"""


def test_the_change_to_errors_go_does_what_it_says(tmp_path: Path) -> None:
    go = needs(shutil.which("go"), "Go")
    needs(f"{GOPATH}/src/google.golang.org/grpc", "grpc-go")
    blocks = re.findall(r"^```go\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "main.go").write_text("\n".join([HEAD, *blocks, MAIN]))
    done = subprocess.run(
        [go, "run", "main.go"],
        cwd=tmp_path,
        env={**os.environ, "GO111MODULE": "off", "GOPATH": GOPATH},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    *verdicts, sent = done.stdout.splitlines()
    assert verdicts == ["true"] * 4 + ["false"] * 4
    assert sent == "FailedPrecondition x: model not loaded"
