#!/usr/bin/env bash
# Install the tools that tests/interop needs: Go, Node, C++, Java and Rust with the gRPC libraries
# that there are, proxies, Prometheus' tool for rules, a browser, and what runs the containers, units
# and manifests of deploy/.
set -euo pipefail
cd "$(dirname "$0")"

declare -A packages=( # what shows that it is there, and the Debian package that brings it
  [go]=golang-go
  [/usr/share/gocode/src/google.golang.org/grpc]=golang-google-grpc-dev
  [/usr/share/gocode/src/google.golang.org/genproto]=golang-google-genproto-dev
  [node]=nodejs
  [npm]=npm
  [g++]=g++
  [pkg-config]=pkg-config
  [/usr/include/grpcpp/grpcpp.h]=libgrpc++-dev
  [/usr/include/google/protobuf/wrappers.proto]=libprotobuf-dev
  [protoc]=protobuf-compiler
  [grpc_cpp_plugin]=protobuf-compiler-grpc
  [javac]=default-jdk-headless
  [/usr/share/java/grpc-netty.jar]=libgrpc-java # which does not depend on what follows
  [/usr/share/java/protobuf.jar]=libprotobuf-java
  [/usr/share/java/netty-all.jar]=libnetty-java
  [/usr/share/java/guava.jar]=libguava-java
  [/usr/share/java/gson.jar]=libgoogle-gson-java
  [/usr/share/java/perfmark-api.jar]=libperfmark-java
  [/usr/share/java/error_prone_annotations.jar]=liberror-prone-java
  [rustc]=rustc
  [nginx]=nginx
  [haproxy]=haproxy
  [promtool]=prometheus
  [ip]=iproute2
  [openssl]=openssl
  [chromium]=chromium
  [/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf]=fonts-dejavu-core
  [podman]=podman
  [runc]=runc
  [/usr/lib/podman/netavark]=netavark
  [/usr/lib/podman/aardvark-dns]=aardvark-dns
  [iptables]=iptables
  [mmdebstrap]=mmdebstrap
  [kubectl]=kubernetes-client
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
echo "grpc++ $(pkg-config --modversion grpc++), $(g++ --version | sed -n 1p)"
echo "grpc-java $(basename "$(readlink -f /usr/share/java/grpc-netty.jar)"), $(javac -version 2>&1)"
rustc --version
nginx -v 2>&1
promtool --version | sed -n 1p
haproxy -v | sed -n 1p  # sed reads to the end: head would break the pipe
chromium --version
podman --version
kubectl version --client 2>&1 | sed -n 1p
