#!/usr/bin/env bash
# The etcd servers that the model of etcd is held against beside the one of all tests, as shell code for the caller to
# evaluate: SETPOINT_ETCD_CURRENT, SETPOINT_ETCD_OLDEST, and in SETPOINT_ETCD_SKIPPED what is not compared, and why.
#
# One that could be had (Go is there to build the current one, apt-get to fetch Debian's) and is not to be had is an error.
# Where there is no way to get it the variable is `none`, which the tests take for a no; so may the caller say.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

skipped=''

# want VARIABLE WHAT TOOL FLAG: `TOOL` is what it takes to get one with `etcd.sh FLAG`.
want() {
  local variable=$1 what=$2 tool=$3 flag=$4 server=${!1:-}
  if [ "$server" = none ]; then
    skipped+="SKIPPED: the model of etcd is not compared with $what: $variable is none"$'\n'
  elif [ -n "$server" ]; then
    [ -x "$server" ] || die "$variable is $server, which is not an executable file"
  elif ! server=$(env -u SETPOINT_ETCD "$here/etcd.sh" "$flag" --quiet); then
    ! have "$tool" || die "$what could not be had, though $tool is there. The model of etcd is to be compared with it: mend \
that, name one with $variable=/path/to/etcd, or say $variable=none to leave it out"
    server=none
    skipped+="SKIPPED: the model of etcd is not compared with $what: there is none, and no $tool to get it with"$'\n'
  fi
  printf 'export %s=%q\n' "$variable" "$server"
}

want SETPOINT_ETCD_CURRENT "a current etcd" go --current
want SETPOINT_ETCD_OLDEST "the oldest etcd (Debian's)" apt-get --debian
printf '%s' "$skipped" >&2
printf 'export SETPOINT_ETCD_SKIPPED=%q\n' "$skipped"
