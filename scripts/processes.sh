# shellcheck shell=bash
# Finding the processes of a cluster by what /proc says of them; sourced, never run. A process is written pid:start, with
# its start time in clock ticks, so that a number that was used again is not mistaken for it.

# Prints "pid ppid state start" of every process.
process_table() {
  local file stat pid rest fields
  for file in /proc/[0-9]*/stat; do
    { read -r stat <"$file"; } 2>/dev/null || continue
    pid=${stat%% *}
    # The name in parentheses may hold anything, spaces and parentheses included.
    rest=${stat##*) }
    read -r -a fields <<<"$rest"
    printf '%s %s %s %s\n' "$pid" "${fields[1]}" "${fields[0]}" "${fields[19]}"
  done
}

# Prints, as pid:start, the processes given by pid, those whose command line names a path in one of the directories
# (arguments that begin with /), and all descendants of both. Zombies are left out.
processes_of() {
  local roots=() dirs=() arg args file pid joined
  for arg in "$@"; do
    case $arg in /*) dirs+=("$arg") ;; *) roots+=("$arg") ;; esac
  done
  if [ ${#dirs[@]} -gt 0 ]; then
    for file in /proc/[0-9]*/cmdline; do
      pid=${file#/proc/} pid=${pid%/cmdline}
      if [ "$pid" = "$BASHPID" ] || [ "$pid" = $$ ]; then continue; fi
      { mapfile -d '' -t args <"$file"; } 2>/dev/null || continue
      printf -v joined '%s\n' "${args[@]}"
      for arg in "${dirs[@]}"; do
        if [[ "$joined" == *"$arg/"* || "$joined" == *"$arg"$'\n'* ]]; then roots+=("$pid"); fi
      done
    done
  fi
  process_table | awk -v roots="${roots[*]}" '
    BEGIN { n = split(roots, r, " "); for (i = 1; i <= n; i++) take[r[i]] = 1 }
    { parent[$1] = $2; state[$1] = $3; start[$1] = $4 }
    END {
      do { more = 0; for (p in parent) if (!(p in take) && (parent[p] in take)) { take[p] = 1; more = 1 } } while (more)
      for (p in take) if (p in parent && state[p] != "Z") print p ":" start[p]
    }'
}

# Prints those of the given pid:start that still run.
still_running() {
  [ $# -gt 0 ] || return 0
  process_table | awk -v wanted="$*" '
    BEGIN { n = split(wanted, w, " "); for (i = 1; i <= n; i++) want[w[i]] = 1 }
    $3 != "Z" && ($1 ":" $4) in want { print $1 ":" $4 }'
}

# Kills the given pid:start that still run, and no other.
kill_processes() {
  local process
  for process in $(still_running "$@"); do
    kill -KILL "${process%%:*}" 2>/dev/null || true
  done
}
