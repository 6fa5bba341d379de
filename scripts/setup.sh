#!/usr/bin/env bash
# What a fresh machine needs before anything can be built or tested. Installs what it may (as root, with apt-get) and
# says plainly what is missing otherwise. Costs a few milliseconds when everything is there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

if ! have cargo || ! have rustc; then
  die "cargo and rustc are missing: install Rust with rustup (rust-toolchain.toml names the version; Debian's own is too old)"
fi

packages=()
# etcd-client generates its gRPC code while it is built, from .proto files that include google/protobuf/descriptor.proto,
# which is in another package than the compiler.
protoc=${PROTOC:-$(command -v protoc || true)}
if [ -z "$protoc" ]; then
  packages+=(protobuf-compiler libprotobuf-dev)
elif [ ! -e "${PROTOC_INCLUDE:-${protoc%/*}/../include}/google/protobuf/descriptor.proto" ]; then
  packages+=(libprotobuf-dev)
fi
# ring, and every link.
have cc || packages+=(gcc libc6-dev)

if [ ${#packages[@]} -gt 0 ]; then
  if can_apt; then
    apt_install "${packages[@]}" || die "apt-get could not install ${packages[*]}"
  else
    die "missing Debian packages (or what your system calls them): ${packages[*]}
As root: apt-get install ${packages[*]}"
  fi
fi

# etcd: the quick look first; etcd.sh does the rest.
if [ -z "${SETPOINT_ETCD:-}" ] && have etcd && have etcdctl; then
  exit 0
fi
exec "$here/etcd.sh" --quiet >/dev/null
