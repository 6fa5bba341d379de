#!/usr/bin/env bash
# A whole cluster on this machine: three nodes, six web servers, one node killed, the work seen to move. Every step is
# verified; the first that fails ends the demo with its log. On a terminal it stays up until Ctrl-C; without one it ends
# by itself, with exit code 0 only when everything was as it should be.
#
#   SETPOINT_BIN   the binary to use; hello-http is taken from beside it (make demo sets it)
#   SETPOINT_ETCD  the etcd to use (default: what scripts/etcd.sh finds)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
. "$here/lib.sh"
. "$here/processes.sh"

setpoint=${SETPOINT_BIN:-$(command -v setpoint || true)}
[ -x "$setpoint" ] || die "no setpoint binary: run make demo, or set SETPOINT_BIN"
setpoint=$(readlink -f "$setpoint")
hello="$(dirname "$setpoint")/hello-http"
[ -x "$hello" ] || die "no hello-http beside $setpoint: cargo build -p hello-http"

interactive=''
[ -t 0 ] && [ -t 1 ] && interactive=1
bold='' dim='' green='' red='' reset=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' reset=$'\e[0m'
fi

step() { printf '\n%s== %s%s\n' "$bold" "$*" "$reset"; }
ok() { printf '%sok%s  %s\n' "$green" "$reset" "$*"; }
show() {
  printf '%s$ %s%s\n' "$dim" "$*" "$reset"
  "$@"
}
now_ms() {
  local us=${EPOCHREALTIME/[.,]/}
  echo $((us / 1000))
}
seconds() { printf '%d.%03d s' $(($1 / 1000)) $(($1 % 1000)); }

dir=$(mktemp -d "${TMPDIR:-/tmp}/setpoint-demo.XXXXXX")
log="$dir/dev.log"
data="$dir/data"
dev='' keep=''

fail() {
  printf '%sfailed%s  %s\n' "$red" "$reset" "$*" >&2
  local file
  for file in "$log" "$data"/logs/*; do
    [ -s "$file" ] || continue
    say "--- the last lines of $file"
    tail -n 20 "$file" >&2
  done
  keep=1
  exit 1
}

# Stops the cluster; prints nothing but complaints. What it leaves behind is killed and makes this fail.
stop_cluster() {
  [ -n "$dev" ] || return 0
  local pid=$dev processes left deadline
  dev=''
  mapfile -t processes < <(processes_of "$pid" "$data")
  kill -INT "$pid" 2>/dev/null || true
  deadline=$(($(now_ms) + 30000))
  left=("${processes[@]}")
  while [ ${#left[@]} -gt 0 ] && [ "$(now_ms)" -lt "$deadline" ]; do
    sleep 0.1
    mapfile -t left < <(still_running "${processes[@]}")
    # Once the cluster's own process is gone, nobody is left who would end the others: a moment of grace is enough.
    if ! kill -0 "$pid" 2>/dev/null && [ "$deadline" -gt $(($(now_ms) + 2000)) ]; then
      deadline=$(($(now_ms) + 2000))
    fi
  done
  wait "$pid" 2>/dev/null || true
  # What was started after the list was made names the directory.
  mapfile -t processes < <(processes_of "$data")
  left+=("${processes[@]}")
  [ ${#left[@]} -gt 0 ] || return 0
  for process in "${left[@]}"; do
    say "left behind: ${process%%:*} $(tr '\0' ' ' <"/proc/${process%%:*}/cmdline" 2>/dev/null || true)"
  done
  kill_processes "${left[@]}"
  return 1
}

finish() {
  local code=$?
  trap - EXIT
  trap '' INT TERM
  case $code in
    0 | 130 | 143) ;;
    *) [ -n "$keep" ] || say "the demo ended before its time" ;;
  esac
  [ -z "$dev" ] || [ -z "$interactive" ] || printf '\nstopping the cluster\n'
  stop_cluster || code=1
  if [ -n "$keep" ]; then
    say "logs and data are kept in $dir"
  else
    rm -rf "$dir"
  fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits until a command succeeds: wait_for SECONDS WHAT COMMAND...
wait_for() {
  local limit=$1 what=$2 begin shown=''
  shift 2
  begin=$(now_ms)
  until "$@"; do
    kill -0 "$dev" 2>/dev/null || fail "$what: the cluster has ended"
    [ $(($(now_ms) - begin)) -lt $((limit * 1000)) ] || fail "$what: not within $limit s"
    if [ -n "$interactive" ] && [ $(($(now_ms) - begin)) -gt 1000 ]; then
      shown=1
      printf '\r%swaiting: %s (%d s)%s ' "$dim" "$what" $((($(now_ms) - begin) / 1000)) "$reset"
    fi
    sleep 0.05
  done
  [ -z "$shown" ] || printf '\r\e[K'
}

# Prints "name node address ready" of each pod of the Deployment.
pods() {
  "$setpoint" get pods -l app=hello -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'
}
# Whether $1 pods are Ready, none of them on node $2, and the Deployment says the same.
all_ready() {
  local ready
  ready=$(pods 2>/dev/null | awk -v not="${2:-}" 'NF == 4 && $2 != not && $4 == "True"' | wc -l)
  [ "$ready" -eq "$1" ] &&
    [ "$("$setpoint" get deployment hello -o 'jsonpath={.status.availableReplicas}' 2>/dev/null)" = "$1" ]
}

# Asks every pod over HTTP and compares the answer with what the manifests say.
check_answers() {
  local name node address ready page count=0 token expected
  token=$(sed -n 's/^  TOKEN: //p' "$root/manifests/demo/secret.yaml")
  expected=$(printf %s "$token" | "$hello" --fingerprint)
  while read -r name node address ready; do
    page=$("$hello" --get "http://$address:$port/") || fail "pod $name does not answer"
    for line in "pod: $name" "node: $node" "greeting: Hello from a ConfigMap" \
      "secret: ${#token} bytes, fingerprint $expected" "message: This file came from the same ConfigMap, as a volume."; do
      grep -qxF "$line" <<<"$page" || fail "pod $name on $node answers without the line \"$line\":
$page"
    done
    count=$((count + 1))
  done < <(pods)
  [ "$count" -eq "$replicas" ] || fail "$count pods answered, $replicas were expected"
  printf '%s\n' "$page"
  ok "$count pods answer HTTP with their name and node, the ConfigMap's values and file, and the Secret's fingerprint"
}

etcd=$(SETPOINT_ETCD=${SETPOINT_ETCD:-} "$here/etcd.sh")
etcdctl=$(SETPOINT_ETCD=$etcd "$here/etcd.sh" --ctl --quiet)
etcdctl() { ETCDCTL_API=3 "$etcdctl" --endpoints "$endpoint" "$@"; }
setpoint() { "$setpoint" "$@"; }
replicas=$(sed -n 's/^  replicas: //p' "$root/manifests/demo/deployment.yaml")
port=$(sed -n 's/.*name: PORT, value: "\([0-9]*\)".*/\1/p' "$root/manifests/demo/deployment.yaml")

step "A cluster of three nodes"
printf '%s$ setpoint dev --nodes 3%s\n' "$dim" "$reset"
begin=$(now_ms)
mkdir "$data"
# In a session of its own, so that Ctrl-C reaches this script alone and the cluster is asked to stop once.
PATH="$(dirname "$setpoint"):$PATH" setsid "$setpoint" dev --nodes 3 --data-dir "$data" --etcd-bin "$etcd" >"$log" 2>&1 </dev/null &
dev=$!
wait_for 60 "three nodes to be ready" grep -qs '^setpoint dev: ready' "$log"
ok "ready after $(seconds $(($(now_ms) - begin)))"
# The file's layout may change, its fields do not.
state=$(tr -d '\n' <"$data/dev.json")
field() { sed -n "s/.*\"$1\" *: *\"\{0,1\}\([^\",}]*\).*/\1/p" | sed 's/ *$//'; }
endpoint=$(field endpoint <<<"$state")
[ -n "$endpoint" ] || fail "dev.json names no endpoint"
export SETPOINT_ENDPOINTS=$endpoint
show setpoint get nodes

step "A Deployment with a ConfigMap and a Secret"
begin=$(now_ms)
show setpoint apply -f "$root/manifests/demo"
wait_for 60 "$replicas pods to be available" all_ready "$replicas"
ok "$replicas pods available after $(seconds $(($(now_ms) - begin)))"
show setpoint get pods -o wide
check_answers

step "The same state in etcd, with plain etcdctl"
show etcdctl get --prefix --keys-only /setpoint/ | grep -v '^$' | grep -v '/events/'
show etcdctl get --prefix /setpoint/bindings/default/ | sed -n 1,20p
for tree in desired/pods/default bindings/default; do
  count=$(etcdctl get --prefix --keys-only "/setpoint/$tree/" | grep -c '/hello-') || true
  [ "$count" -eq "$replicas" ] || fail "$count keys of pods under /setpoint/$tree/, $replicas were expected"
done
ok "etcd holds what is wanted, where it runs and what is, for all $replicas pods"

step "A node dies"
victim=$(pods | awk '{ n[$2]++ } END { for (node in n) print n[node], node }' | sort -k1,1nr -k2 | awk 'NR == 1 { print $2 }')
entry=$(grep -o '{[^{}]*}' <<<"$state" | grep "\"name\" *: *\"$victim\"") || fail "dev.json does not name the agent of $victim"
agent=$(field pid <<<"$entry")
agent_dir=$(field data_dir <<<"$entry")
mapfile -t processes < <(processes_of "$agent" "$agent_dir")
moved=$(pods | awk -v node="$victim" '$2 == node' | wc -l)
echo "killing $victim: its agent (pid $agent), and with it ${#processes[@]} processes, with SIGKILL"
begin=$(now_ms)
kill -KILL "$agent"
# The list was made before; what the agent started since is caught by a second look.
kill_processes "${processes[@]}"
mapfile -t processes < <(processes_of "$agent_dir")
kill_processes "${processes[@]}"
wait_for 90 "$moved pods to run on other nodes" all_ready "$replicas" "$victim"
failover=$(($(now_ms) - begin))
show setpoint get nodes
show setpoint get pods -o wide
check_answers
ok "$moved pods of $victim run elsewhere, $(seconds "$failover") after the kill"

if [ -n "$interactive" ]; then
  step "Everything was verified. The cluster stays up until Ctrl-C"
  cat <<TEXT
In another terminal:

  export SETPOINT_ENDPOINTS=$endpoint PATH=$(dirname "$setpoint"):\$PATH
  setpoint get pods -w
  setpoint scale deployment hello --replicas 12
  setpoint logs -f deployment/hello
  setpoint describe node $victim
TEXT
  trap 'exit 0' INT
  wait "$dev" || true
  fail "the cluster has ended by itself"
fi

step "The end"
stop_cluster || fail "the cluster did not stop cleanly"
ok "stopped, and nothing is left running"
printf '\ndemo: every step verified\n'
