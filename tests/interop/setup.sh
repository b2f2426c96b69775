#!/usr/bin/env bash
# Install the tools that tests/interop needs: Go with grpc-go, Node with @grpc/grpc-js, proxies.
set -euo pipefail
cd "$(dirname "$0")"

declare -A packages=( # what shows that it is there, and the Debian package that brings it
  [go]=golang-go
  [/usr/share/gocode/src/google.golang.org/grpc]=golang-google-grpc-dev
  [/usr/share/gocode/src/google.golang.org/genproto]=golang-google-genproto-dev
  [node]=nodejs
  [npm]=npm
  [nginx]=nginx
  [haproxy]=haproxy
)
PATH="$PATH:/usr/sbin"
missing=()
for what in "${!packages[@]}"; do
  [[ $what == /* && -e $what ]] || command -v "$what" >/dev/null || missing+=("${packages[$what]}")
done

if ((${#missing[@]})); then
  install=(apt-get install -y --no-install-recommends "${missing[@]}")
  if ((EUID)) || ! command -v apt-get >/dev/null; then
    echo "tests/interop needs more than this machine has. As root, on Debian: ${install[*]}" >&2
    exit 1
  fi
  echo "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq >/dev/null
fi

npm ci --prefix ../../languages/node --no-audit --no-fund --ignore-scripts --loglevel=error

go version
echo "grpc-go $(sed -n 's/^const Version = "\(.*\)"/\1/p' /usr/share/gocode/src/google.golang.org/grpc/version.go)"
echo "node $(node --version), @grpc/grpc-js $(node -p "require('../../languages/node/node_modules/@grpc/grpc-js/package.json').version")"
nginx -v 2>&1
haproxy -v | sed -n 1p  # sed reads to the end: head would break the pipe
