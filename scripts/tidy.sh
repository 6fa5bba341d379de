#!/usr/bin/env bash
# House rules that no compiler checks. Each finding is a line "path: what is wrong"; the exit code says whether there are
# any. Needs git, grep, awk and cargo.
set -euo pipefail
# The last part of a pipe runs in this shell, so that its findings are counted.
shopt -s lastpipe
cd "$(dirname "${BASH_SOURCE[0]}")/.."

findings=0
complain() {
  printf 'tidy: %s\n' "$*"
  findings=$((findings + 1))
}
# Reads "path:line:text" on stdin and complains about each.
complain_each() {
  local line
  while IFS= read -r line; do complain "$line: $1"; done
}

files() { git ls-files --cached --others --exclude-standard -- "$@" | while IFS= read -r f; do [ ! -f "$f" ] || printf '%s\n' "$f"; done; }
mapfile -t rust < <(files '*.rs')
mapfile -t manifests < <(files '*/Cargo.toml')
# Lock files name their registries, as they must.
mapfile -t texts < <(files | grep -vE '(^|/)(Cargo\.lock|go\.sum)$|\.(png|svg|ico|woff2)$')

# Lines of code: no comments. Not a parser; a string that holds // loses its end, which is good enough here.
code() { grep -nHE "$1" -- "${@:2}" | grep -vE '^[^:]+:[0-9]+:[[:space:]]*//' || true; }

# -- every crate opts in to the workspace's lints, and takes its dependencies from the workspace
for m in "${manifests[@]}"; do
  grep -qE '^\[package\]' "$m" || continue
  grep -A1 -E '^\[lints\]' "$m" | grep -qE '^workspace = true' || complain "$m: [lints] workspace = true is missing"
  awk '/^\[/ { deps = /dependencies\]$/ } deps && /=/ && !/workspace = true|path = "\."/ && !/^#/ { print FILENAME ":" FNR ": " $0 }' "$m" |
    complain_each "does not follow the workspace"
done

# -- no file that nothing compiles
declared() { # file that may declare it, module name
  [ -f "$1" ] && grep -qE "^[[:space:]]*(pub(\([a-z: ]+\))?[[:space:]]+)?mod[[:space:]]+(r#)?$2[[:space:]]*;" "$1"
}
orphan() {
  local file=$1 dir name parent
  dir=$(dirname "$file") name=$(basename "$file" .rs)
  case $file in
    build.rs | */build.rs | src/lib.rs | */src/lib.rs | */src/main.rs | */src/bin/*.rs) return 1 ;;
    */tests/*.rs | */benches/*.rs | */examples/*.rs)
      # Only the first level, and main.rs of the second, are targets of their own.
      case $(basename "$dir") in tests | benches | examples) [ -f "$(dirname "$dir")/Cargo.toml" ] && return 1 ;; esac
      [ "$name" != main ] || return 1
      ;;
  esac
  if [ "$name" = mod ]; then
    name=$(basename "$dir") dir=$(dirname "$dir")
  fi
  for parent in "$dir.rs" "$dir/mod.rs" "$dir/lib.rs" "$dir/main.rs" "$dir"/*.rs; do
    ! declared "$parent" "$name" || return 1
  done
  ! grep -qE "#\[path = \"([^\"]*/)?$name\.rs\"\]" "${rust[@]}" || return 1
  return 0
}
for f in "${rust[@]}"; do
  ! orphan "$f" || complain "$f: no mod declares it, so it is never compiled"
done

# -- every module says what it is for
for f in "${rust[@]}"; do
  [ "${f##*/}" != tests.rs ] || continue
  grep -qE '^//!' <(grep -vE '^(#!\[.*|[[:space:]]*)$' "$f" | sed -n 1p) || complain "$f: does not begin with a //! comment"
done

# -- decisions are pure: no runtime, no store, no clock, no generator that nobody seeded
mapfile -t pure < <(printf '%s\n' "${rust[@]}" | grep -E '(^|/)decide(/.*)?\.rs$|^controllers/(scheduler-core|what-if)/src/' || true)
if [ ${#pure[@]} -gt 0 ]; then
  code '\b(tokio|etcd_client|setpoint_store|setpoint_runtime)\b' "${pure[@]}" | complain_each "a decision does no IO"
  code '\b(SystemTime|Instant|Timestamp|Zoned)::now\b|\bfastrand::[a-z_0-9]+\(' "${pure[@]}" | complain_each "time and randomness are handed in"
fi

# -- the crates at the bottom stay free of the async stack
bare() { # package, crates that it must not depend on
  local tree
  tree=$(cargo tree --locked --quiet -p "$1" -e normal,build --prefix none --format '{p}') || complain "$1: cargo tree failed"
  { grep -E "^($2) " <<<"$tree" || true; } | sort -u | sed "s/^/$1: depends on /" | complain_each "it must not"
}
bare setpoint-apis 'tokio|tonic|etcd-client|hyper|setpoint-store|setpoint-runtime'
bare setpoint-scheduler-core 'tokio|tonic|etcd-client|hyper|setpoint-store|setpoint-runtime'
bare setpoint-what-if 'tokio|tonic|etcd-client|hyper|setpoint-store|setpoint-runtime'

# -- one module builds and splits keys. Tests from outside may spell keys out: they see them as users do.
mapfile -t keyed < <(printf '%s\n' "${rust[@]}" | grep -vE '^apis/src/keyspace\.rs$|^e2e/|(^|/)tests(/.*)?\.rs$')
code '"[^"]*/(actual|bindings|deletions|desired|fleet|intents|leaders|members|work)/' "${keyed[@]}" | complain_each "keys are built in apis/src/keyspace.rs alone"

# -- what reads our kinds is compiled once, in their crate
for f in $(printf '%s\n' "${rust[@]}" | grep -E '^apis/src/' | grep -vE '(^|/)tests(/.*)?\.rs$'); do
  kinds=$(grep -cE '^impl Kind for' "$f" || true)
  [ "$kinds" = "$(grep -cE '^ +crate::compile_reading_here!\(\);' "$f" || true)" ] || complain "$f: an impl Kind without compile_reading_here!()"
done

# -- exceptions carry a reason, tests run
code '#!?\[allow\(' "${rust[@]}" | complain_each 'use #[expect(..., reason = "...")]'
code '#\[ignore' "${rust[@]}" | complain_each "a test that is never run"

# -- nothing of one machine: no package registry or mirror by host, no home directory or checkout by absolute path
grep -nHE 'https?://[a-z0-9.-]*(registry|proxy|mirror|index|pypi|crates|npmjs|maven|debian|golang)[a-z0-9.-]*\.[a-z]+|sparse\+http|--index-url|GOPROXY=' -- "${texts[@]}" |
  grep -v '^scripts/tidy.sh:' | complain_each "names a package registry" || true
grep -nHE '(^|[^A-Za-z0-9_.>}-])/(root|home/[a-z]+|work/(main|shared))(/|[^A-Za-z0-9_/-]|$)' -- "${texts[@]}" |
  grep -v '^scripts/tidy.sh:' | complain_each "a path of one machine" || true

# -- a table of conformance names tests that there are. A name may end in an ellipsis.
tests=$(grep -hoE '\bfn [a-z0-9_]+' -- "${rust[@]}" | sed 's/^fn //' | sort -u)
for f in $(files 'docs/conformance/*.md'); do
  # The third column names our tests; what has no underscore is a file or a field.
  awk -F'|' 'NF > 5 { print $4 }' "$f" | { grep -oE '`[a-z0-9_]+…?`' || true; } | tr -d '`' | sort -u | while IFS= read -r name; do
    case $name in
      *_*…) grep -q "^${name%…}" <<<"$tests" || complain "$f: there is no test $name" ;;
      *_*) grep -qx "$name" <<<"$tests" || complain "$f: there is no test $name" ;;
    esac
  done
done

# -- texts
grep -nHE '[[:space:]]+$' -- "${texts[@]}" | sed 's/^\([^:]*:[0-9]*\):.*/\1/' | complain_each "space at the end of the line" || true
for f in $(files '*.sh' .ci/run); do
  bash -n "$f" || complain "$f: does not parse"
done

# -- for information: files where a seam may be waiting
wc -l "${rust[@]}" | awk '$2 != "total" && $1 > 800 { printf "tidy: note: %s has %d lines\n", $2, $1 }'

if [ "$findings" -gt 0 ]; then
  echo "tidy: $findings findings"
  exit 1
fi
