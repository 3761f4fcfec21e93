# shellcheck shell=bash
# shellcheck disable=SC2154 # faults: set by testbed/faults, which sources this
# Faults of processes: a host's killed or stopped, one command short of memory.

# processes_of HOST prints the process numbers of the host's namespace, but ours.
processes_of() {
  local proc
  for proc in /proc/[0-9]*; do
    [[ ! $proc/ns/net -ef /run/netns/$1 || ${proc#/proc/} == "$$" ]] || echo "${proc#/proc/}"
  done
}

# process_stat PID sets process_state and process_start, when it began, which tells
# it from a later process of the same number.
process_stat() {
  local line fields
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return
  read -ra fields <<<"${line##*) }"
  process_state=${fields[0]} process_start=${fields[19]}
}

# kill_host HOST: until none is left, for a process may just be making another one.
kill_host() {
  local pids deadline=$((SECONDS + 10))
  while pids=$(processes_of "$1") && [[ -n $pids ]]; do
    # shellcheck disable=SC2086 # words
    kill -KILL $pids 2>/dev/null || true
    ((SECONDS < deadline)) || die 1 "kill $1: processes are still there after 10 s: ${pids//$'\n'/ }" "see: what they wait for in /proc/PID/stack"
    sleep 0.02
  done
  rm -f -- "$faults/stopped/$1"
}

# stop_host HOST: until all of them are stopped. What was stopped already is not
# ours to continue.
stop_host() {
  local pid running deadline=$((SECONDS + 10)) process_state process_start
  mkdir -p "$faults/stopped"
  while :; do
    running=''
    for pid in $(processes_of "$1"); do
      process_stat "$pid" || continue
      [[ $process_state != [TtZX] ]] || continue
      running+=" $pid"
      grep -qsx "$pid $process_start" "$faults/stopped/$1" || echo "$pid $process_start" >>"$faults/stopped/$1"
      kill -STOP "$pid" 2>/dev/null || true
    done
    [[ -n $running ]] || return 0
    ((SECONDS < deadline)) || die 1 "stop $1: not stopped after 10 s:$running" "mend: testbed/faults cont $1"
    sleep 0.02
  done
}

cont_host() {
  local pid start process_state process_start
  [[ -e $faults/stopped/$1 ]] || return 0
  while read -r pid start; do
    if process_stat "$pid" && [[ $process_start == "$start" ]]; then kill -CONT "$pid" 2>/dev/null || true; fi
  done <"$faults/stopped/$1"
  rm -f -- "$faults/stopped/$1"
}

# memlock SIZE CMD...: root may pin what it likes whatever the limit is, so the
# capability goes too.
memlock() {
  local size=$1
  shift
  exec setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock \
    prlimit --memlock="$(numfmt --from=iec -- "$size")" -- "$@"
}

# memory SIZE CMD... runs it in a control group of its own, whose end takes
# with it whatever it left running; and so does ours.
memory() {
  local size=$1 signal rc=0
  group='' child=''
  shift
  [[ -e /sys/fs/cgroup/cgroup.controllers ]] ||
    die 1 "no cgroup v2 at /sys/fs/cgroup" "mend: run this outside of softroce exec: faults memory SIZE -- softroce exec a -- CMD"
  echo +memory >/sys/fs/cgroup/cgroup.subtree_control
  for signal in TERM INT HUP; do
    # shellcheck disable=SC2064 # the name now, not later
    trap "memory_stop $signal" "$signal"
  done
  group=$(mktemp -d /sys/fs/cgroup/faults.XXXXXX)
  numfmt --from=iec -- "$size" >"$group/memory.max"
  # In the background, for of a signal bash would hear after its end; but not deaf to INT
  # and QUIT, as bash starts what it puts there.
  # shellcheck disable=SC2016 # expanded by that shell
  env --default-signal=INT,QUIT sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@" <&0 &
  child=$!
  wait "$child" || rc=$?
  child=''
  end_group "$group"
  return "$rc"
}

# memory_stop SIGNAL ends what runs, which may not be in its group yet, and us as the signal
# would have.
memory_stop() {
  trap - "$1"
  [[ -z $child ]] || { kill -KILL "$child" && wait "$child"; } 2>/dev/null || true
  [[ -z $group ]] || (end_group "$group") || true
  kill -"$1" "$BASHPID"
}

# end_group GROUP kills what is in it, and removes it when the last of that is gone.
end_group() {
  local deadline=$((SECONDS + 10))
  { echo 1 >"$1/cgroup.kill"; } 2>/dev/null || true
  until rmdir "$1" 2>/dev/null || [[ ! -e $1 ]]; do
    ((SECONDS < deadline)) || die 1 "memory: $1 is still in use after 10 s" "see: what those in its cgroup.procs wait for in /proc/PID/stack"
    sleep 0.02
  done
}

# memory_off ends what runs under memory, by those who still wait for it and by those who were
# killed outright; but for us, who may be run by one.
memory_off() {
  local group own rc=0
  own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/
  for group in /sys/fs/cgroup/faults.*/; do
    [[ ! -e $group || $own == "$group"* ]] || (end_group "${group%/}") || rc=1
  done
  return "$rc"
}

process_status() {
  local host group pid start process_state process_start
  for host in a b; do
    [[ -e $faults/stopped/$host ]] || continue
    while read -r pid start; do
      ! process_stat "$pid" || [[ $process_start != "$start" ]] || echo "$host: process $pid stopped"
    done <"$faults/stopped/$host"
  done
  for group in /sys/fs/cgroup/faults.*/; do
    [[ ! -e $group ]] || echo "memory: $(<"$group/memory.max") bytes for ${group%/}"
  done
}
