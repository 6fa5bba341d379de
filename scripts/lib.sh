# shellcheck shell=bash
# Shared by the scripts beside it; sourced, never run.

# Progress and complaints go to stderr: stdout of a script is its result.
say() { printf '%s\n' "$*" >&2; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

cache_dir() { printf '%s/setpoint\n' "${XDG_CACHE_HOME:-$HOME/.cache}"; }

can_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

# Installs Debian packages. A failed first try is repeated with a fresh list: new machines have none.
apt_install() {
  local log
  log=$(mktemp)
  say "installing $* (apt-get)"
  if DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1 </dev/null ||
    { apt-get update -q >>"$log" 2>&1 </dev/null &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; }; then
    rm -f "$log"
    return 0
  fi
  tail -n 20 "$log" >&2
  rm -f "$log"
  return 1
}
