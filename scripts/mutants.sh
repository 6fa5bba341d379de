#!/usr/bin/env bash
# Checks the tests: takes one guard after another out of the code, and demands that the tests named for it fail.
#
# Each file hack/mutants/*.mutant is one mutation (hack/mutants/README.md says how it is written). They are applied one at
# a time to a copy of the checkout, whose files are compared first, so that only what has changed is built again. First
# the tests run on the copy as it is, and must pass.
#
#   scripts/mutants.sh [NAME...]   all, or the named ones
#   --list      print the list and end
#   --check     only see whether every mutation still finds its place, which takes a second; nothing is built
#   --keep      leave the logs also of what went as it should
#
# MUTANTS_COMMIT=<commit> takes the files of a commit rather than those of the checkout; MUTANTS_LIMIT=<seconds> is how
# long one test may take (default 600).
#
# The exit code is 0 when every mutation was caught; 1 when one survived or gave no verdict; 2 when the list is out of date
# or a test fails without any mutation.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
root=$(cd "$here/.." && pwd)
cd "$root"

names=() only='' keep=''
for arg in "$@"; do
  case $arg in
    --list | --check) only=$arg ;;
    --keep) keep=1 ;;
    -*) die "unknown option $arg (--list, --check, --keep)" ;;
    *) names+=("$arg") ;;
  esac
done
limit=${MUTANTS_LIMIT:-600}

# -- the list
declare -A removes file find replace note
declare -a mutants tests_of expect_of owner_of
out_of_date=0
complain() {
  say "mutants: $*"
  out_of_date=1
}

read_mutant() { # path
  local path=$1 name key value line part=head tests=0
  name=$(basename "$path" .mutant)
  while IFS= read -r line || [ -n "$line" ]; do
    case $part:$line in
      head:find:) part=find ;;
      find:replace:) part=replace ;;
      head:*)
        key=${line%%:*} value=${line#*: }
        case $key in
          removes) removes[$name]=$value ;;
          file) file[$name]=$value ;;
          note) note[$name]="${note[$name]:+${note[$name]} }$value" ;;
          test)
            tests_of+=("$value") expect_of+=('') owner_of+=("$name")
            tests=$((tests + 1))
            ;;
          says) expect_of[${#expect_of[@]} - 1]=$value ;;
          *) complain "$path: unknown line: $line" ;;
        esac
        ;;
      find:*) find[$name]="${find[$name]:+${find[$name]}$'\n'}$line" ;;
      replace:*) replace[$name]="${replace[$name]:+${replace[$name]}$'\n'}$line" ;;
    esac
  done <"$path"
  [ -n "${removes[$name]:-}" ] || complain "$path: no line \"removes:\""
  [ -n "${file[$name]:-}" ] || complain "$path: no line \"file:\""
  [ -n "${find[$name]:-}" ] || complain "$path: no text to find"
  [ "$part" = replace ] || complain "$path: no line \"replace:\""
  [ "$tests" -gt 0 ] || complain "$path: names no test"
  mutants+=("$name")
}

for path in hack/mutants/*.mutant; do read_mutant "$path"; done
if [ "${#names[@]}" -gt 0 ]; then
  for name in "${names[@]}"; do [ -n "${removes[$name]:-}" ] || die "there is no hack/mutants/$name.mutant"; done
  mutants=("${names[@]}")
fi
wanted() { [[ " ${mutants[*]} " == *" $1 "* ]]; }

# -- the files: of the checkout, or of a commit
source=$root
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
if [ -n "${MUTANTS_COMMIT:-}" ]; then
  source=$tmp/source
  mkdir "$source"
  git archive "$MUTANTS_COMMIT" | tar -x -C "$source"
fi
list_files() {
  if [ -n "${MUTANTS_COMMIT:-}" ]; then
    git ls-tree -r --name-only "$MUTANTS_COMMIT"
  else
    git ls-files --cached --others --exclude-standard
  fi
}

# The text of a file, whole: a command substitution alone would drop newlines at its end.
text_of() {
  local whole
  whole=$(cat "$1" && printf x)
  printf -v "$2" %s "${whole%x}"
}

# -- every mutation finds its place, exactly once
for name in "${mutants[@]}"; do
  [ -n "${find[$name]:-}" ] || continue
  if [ ! -f "$source/${file[$name]}" ]; then
    complain "$name: there is no ${file[$name]}"
    continue
  fi
  text_of "$source/${file[$name]}" text
  rest=${text//"${find[$name]}"/}
  count=$(((${#text} - ${#rest}) / ${#find[$name]}))
  [ "$count" = 1 ] || complain "$name: its text is found $count times in ${file[$name]}, not once"
done
if [ "$out_of_date" = 1 ]; then
  say "mutants: the list in hack/mutants is out of date. What it guards has moved or changed: mend the files named above."
  exit 2
fi

case $only in
  --check) exit 0 ;;
  --list)
    for name in "${mutants[@]}"; do
      printf '%s: %s (%s)\n' "$name" "${removes[$name]}" "${file[$name]}"
      for i in "${!tests_of[@]}"; do [ "${owner_of[$i]}" != "$name" ] || printf '    %s\n' "${tests_of[$i]}"; done
      [ -z "${note[$name]:-}" ] || printf '    note: %s\n' "${note[$name]}"
    done
    exit 0
    ;;
esac

# -- the copy, and a target folder of its own: one that is shared would take the mutated crates for those of the checkout
target=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$target/mutants"
work=$(cd "$target/mutants" && pwd)
exec 9>"$work/lock"
flock -n 9 || die "another run uses $work"
copy=$work/checkout
mkdir -p "$copy" "$work/log"
rm -f "$work"/log/*

# What others have built of the registry's crates serves here as well; without it the first run builds them itself. Files
# that cargo would write in place are copied, the big ones are links.
seed() {
  local from=$target/debug to=$work/target/debug kind entry
  [ -d "$from/.fingerprint" ] && [ ! -d "$to" ] || return 0
  say "taking over what has been built of other crates"
  mkdir -p "$to/deps"
  for kind in .fingerprint build; do
    mkdir "$to/$kind"
    find_foreign "$from/$kind" | xargs -0 -r cp -a -t "$to/$kind"
  done
  find_foreign "$from/deps" -name '*.d' | xargs -0 -r cp -a -t "$to/deps"
  find_foreign "$from/deps" -name 'lib*' ! -name '*.d' | xargs -0 -r cp -al -t "$to/deps"
}
find_foreign() {
  local folder=$1 member exclude=()
  shift
  for member in it main 'setpoint*' $(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml */Cargo.toml */*/Cargo.toml | sort -u); do
    exclude+=(! -name "$member-*" ! -name "${member//-/_}-*" ! -name "lib${member//-/_}-*")
  done
  command find "$folder" -mindepth 1 -maxdepth 1 "${exclude[@]}" "$@" -print0
}
if [ -e "$target/debug/.cargo-lock" ]; then
  # As cargo does, so that nothing is taken over half-written.
  exec 8<"$target/debug/.cargo-lock"
  flock 8
  seed
  exec 8<&-
fi
export CARGO_TARGET_DIR=$work/target CARGO_TERM_COLOR=never

# By content, and with a new time where it differs: cargo goes by times.
sync_copy() {
  local f
  list_files >"$tmp/files"
  while IFS= read -r f; do
    [ -f "$source/$f" ] || continue
    printf '%s\n' "$f"
    cmp -s "$source/$f" "$copy/$f" && continue
    mkdir -p "$copy/$(dirname "$f")"
    rm -f "$copy/$f"
    cp "$source/$f" "$copy/$f"
    [ ! -x "$source/$f" ] || chmod +x "$copy/$f"
  done <"$tmp/files" | sort >"$tmp/present"
  (cd "$copy" && command find . -type f -printf '%P\n') | sort | comm -23 - "$tmp/present" | while IFS= read -r f; do rm -f "$copy/$f"; done
}
sync_copy

# -- running a test: package, target (lib, bin for the binary of the package's name, or the name of a test target), name, then VARIABLE=value
selector() { # package target
  case $2 in lib) echo "-p $1 --lib" ;; bin) echo "-p $1 --bin $1" ;; *) echo "-p $1 --test $2" ;; esac
}
build() { # test, log
  local package target _rest
  read -r package target _rest <<<"$1"
  # shellcheck disable=SC2046
  (cd "$copy" && cargo test --locked --quiet --no-run $(selector "$package" "$target")) >"$2" 2>&1 9>&-
}
# Sets verdict to passed, failed, or a complaint.
run_test() { # test, log
  local package target name variables code=0
  read -r package target name variables <<<"$1"
  # shellcheck disable=SC2046,SC2086
  (cd "$copy" && env $variables timeout "$limit" cargo test --locked $(selector "$package" "$target") -- --exact "$name") >"$2" 2>&1 9>&- || code=$?
  if [ "$code" = 124 ]; then
    verdict="no verdict within $limit s"
  elif ! grep -q '^running 1 test$' "$2"; then
    verdict="there is no such test"
  elif [ "$code" = 0 ] && grep -qF "test $name ... ok" "$2"; then
    verdict=passed
  elif grep -qF "test $name ... FAILED" "$2" && grep -q 'panicked at' "$2"; then
    verdict=failed
  else
    verdict="ended without a verdict (exit code $code)"
  fi
}

# -- without a mutation everything passes
declare -A known
sound=1
say "without any mutation:"
for i in "${!tests_of[@]}"; do
  test=${tests_of[$i]}
  wanted "${owner_of[$i]}" && [ -z "${known[$test]:-}" ] || continue
  known[$test]=1 log=$work/log/unmutated-$i began=$SECONDS
  if ! build "$test" "$log"; then
    verdict="does not compile"
  else
    run_test "$test" "$log"
  fi
  say "  $test: $verdict ($((SECONDS - began)) s)"
  if [ "$verdict" != passed ]; then
    tail -n 40 "$log" >&2
    sound=0
  fi
done
if [ "$sound" = 0 ]; then
  say "mutants: these tests say nothing about mutations while they fail without any. Logs are in $work/log."
  exit 2
fi

# -- one at a time
rows=() caught=0 bad=0
for name in "${mutants[@]}"; do
  target_file=$copy/${file[$name]}
  text_of "$target_file" text
  printf %s "${text/"${find[$name]}"/"${replace[$name]:-}"}" >"$target_file"
  for i in "${!tests_of[@]}"; do
    [ "${owner_of[$i]}" = "$name" ] || continue
    test=${tests_of[$i]} log=$work/log/$name-$i began=$SECONDS
    if ! build "$test" "$log"; then
      verdict="error: does not compile" show=1
    else
      run_test "$test" "$log"
      show=1
      case $verdict in
        passed) verdict=SURVIVED ;;
        failed)
          if [ -n "${expect_of[$i]}" ] && ! grep -qF -- "${expect_of[$i]}" "$log"; then
            verdict="error: failed, but did not say \"${expect_of[$i]}\""
          else
            verdict=caught show=''
          fi
          ;;
        *) verdict="error: $verdict" ;;
      esac
    fi
    say "$name: $verdict by $test ($((SECONDS - began)) s)"
    rows+=("$name"$'\t'"${tests_of[$i]}"$'\t'"$verdict")
    if [ -n "$show" ]; then
      bad=$((bad + 1))
      tail -n 40 "$log" >&2
    else
      caught=$((caught + 1))
      [ -n "$keep" ] || rm -f "$log"
    fi
  done
  # As it was, and newer than what was built of it.
  rm -f "$target_file"
  cp "$source/${file[$name]}" "$target_file"
done

printf '%s\n' "${rows[@]}" | awk -F '\t' '
  { m[NR] = $1; t[NR] = $2; v[NR] = $3; if (length($1) > a) a = length($1); if (length($2) > b) b = length($2) }
  END { for (i = 1; i <= NR; i++) printf "%-" a "s  %-" b "s  %s\n", m[i], t[i], v[i] }'
echo "${#mutants[@]} mutations; $caught tests caught theirs, $bad did not"
[ "$bad" = 0 ] || {
  say "mutants: logs are in $work/log"
  exit 1
}
