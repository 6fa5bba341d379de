#!/usr/bin/env bash
# Finds an etcd, or sets one up, and prints the path of the server (with --ctl: of etcdctl) on stdout.
#
# In this order: $SETPOINT_ETCD; one on PATH; one that was built before; built from hack/etcd where Go is present;
# Debian's packages where apt-get may be used. What it did and which version it is go to stderr.
#
#   --ctl       print the path of etcdctl that belongs to it
#   --current   pass over versions with known holes, as authentication and fencing need (docs/testing.md says which)
#   --debian    the one of Debian's package, unpacked beside the built ones if it is not installed
#   --quiet     say nothing that is not an error
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

want=etcd current='' debian='' quiet=''
for arg in "$@"; do
  case $arg in
    --ctl) want=etcdctl ;;
    --current) current=1 ;;
    --debian) debian=1 ;;
    --quiet) quiet=1 ;;
    *) die "unknown option $arg (--ctl, --current, --debian, --quiet)" ;;
  esac
done

module="$here/../hack/etcd"
pinned=$(sed -n 's|^[[:space:]]*go.etcd.io/etcd/server/v3 v\([0-9.]*\).*|\1|p' "$module/go.mod")
built="$(cache_dir)/etcd/$pinned"

version_of() { "$1" --version 2>/dev/null | sed -n 's/^etcd Version: *//p'; }

# Whether a version has none of the holes we know of. Open-ended watches passed range permissions before
# 3.5.33, 3.6.14 and 3.7.1; 3.4 never got that repair.
is_current() {
  local major minor patch
  IFS=. read -r major minor patch <<<"${1%%[-+]*}"
  patch=${patch:-0}
  case "$major.$minor" in
    3.5) [ "$patch" -ge 33 ] ;;
    3.6) [ "$patch" -ge 14 ] ;;
    3.7) [ "$patch" -ge 1 ] ;;
    *) [ "$major" -gt 3 ] || { [ "$major" = 3 ] && [ "$minor" -gt 7 ]; } ;;
  esac
}

# Prints the result for the server $1, and ends, unless it is not wanted.
use() {
  local server=$1 version ctl
  version=$(version_of "$server") || true
  [ -n "$version" ] || die "$server does not answer --version like an etcd"
  if ! is_current "$version"; then
    if [ -n "$current" ]; then
      [ -n "$quiet" ] || say "passing over $server: etcd $version has known holes"
      return 1
    fi
    [ -n "$quiet" ] || say "etcd $version at $server (for development only: this version has known holes, see docs/testing.md)"
  else
    [ -n "$quiet" ] || say "etcd $version at $server"
  fi
  if [ "$want" = etcd ]; then
    printf '%s\n' "$server"
  else
    ctl="$(dirname "$server")/etcdctl"
    [ -x "$ctl" ] || ctl=$(command -v etcdctl) || die "no etcdctl beside $server and none on PATH"
    printf '%s\n' "$ctl"
  fi
  exit 0
}

# Unpacked and not installed: that needs no root, and leaves the etcd on PATH what it is.
if [ -n "$debian" ]; then
  unpacked="$(cache_dir)/etcd/debian"
  if [ ! -x "$unpacked/etcd" ] && have apt-get && have dpkg-deb; then
    mkdir -p "$(dirname "$unpacked")"
    tmp=$(mktemp -d "$(dirname "$unpacked")/.debian.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    [ -n "$quiet" ] || say "unpacking Debian's etcd (apt-get download)"
    fetch() { (cd "$tmp" && apt-get download -q etcd-server etcd-client) >"$tmp/log" 2>&1; }
    if fetch || { can_apt && apt-get update -q >/dev/null 2>&1 </dev/null && fetch; }; then
      for package in "$tmp"/*.deb; do dpkg-deb -x "$package" "$tmp/root"; done
      chmod 755 "$tmp/root/usr/bin"
      mv -T "$tmp/root/usr/bin" "$unpacked" 2>/dev/null || [ -x "$unpacked/etcd" ] || die "cannot move the package to $unpacked"
    else
      tail -n 5 "$tmp/log" >&2
    fi
  fi
  [ -x "$unpacked/etcd" ] || die "Debian's packages etcd-server and etcd-client cannot be had here"
  use "$unpacked/etcd"
fi

# An explicit choice is not second-guessed.
if [ -n "${SETPOINT_ETCD:-}" ]; then
  [ -x "$SETPOINT_ETCD" ] || die "SETPOINT_ETCD is $SETPOINT_ETCD, which is not an executable file"
  use "$SETPOINT_ETCD" || die "SETPOINT_ETCD is $SETPOINT_ETCD: unset it or point it to a newer etcd"
fi

if have etcd && have etcdctl; then
  use "$(command -v etcd)" || true
fi

if [ -x "$built/etcd" ] && [ -x "$built/etcdctl" ]; then
  use "$built/etcd"
fi

if have go; then
  # Built beside its place and moved there in one step: a run that is cut short leaves nothing half-made behind.
  mkdir -p "$(dirname "$built")"
  tmp=$(mktemp -d "$(dirname "$built")/.build.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  log=$tmp/log
  say "building etcd $pinned and etcdctl from their published Go modules (about a minute, once)"
  # No toolchain is downloaded: where Go is too old this is a plain failure and the packages are next.
  if (cd "$module" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 nice go build -trimpath -ldflags='-s -w' -o "$tmp/" ./cmd/...) >"$log" 2>&1; then
    rm -f "$log"
    chmod 755 "$tmp"
    # Where two builds ran at once the first one stays.
    mv -T "$tmp" "$built" 2>/dev/null || [ -x "$built/etcd" ] || die "cannot move the build to $built"
    use "$built/etcd"
  fi
  tail -n 5 "$log" >&2
  say "etcd $pinned could not be built with $(GOTOOLCHAIN=local go version 2>/dev/null || echo "this Go")"
fi

if [ -z "$current" ] && can_apt && apt_install etcd-server etcd-client; then
  hash -r
  have etcd || die "etcd-server is installed and has no etcd on PATH"
  use "$(command -v etcd)"
fi

die "no usable etcd${current:+ without known holes}. One of these helps:
  - SETPOINT_ETCD=/path/to/etcd (etcdctl beside it or on PATH)
  - etcd and etcdctl on PATH
  - Go $(sed -n 's/^go //p' "$module/go.mod") or newer on PATH, and a way to its module proxy: etcd $pinned is then built
  - as root on Debian: apt-get install etcd-server etcd-client (for development only)"
