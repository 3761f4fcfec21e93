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
# with it whatever it left running.
memory() {
  local size=$1 group rc=0
  shift
  [[ -e /sys/fs/cgroup/cgroup.controllers ]] ||
    die 1 "no cgroup v2 at /sys/fs/cgroup" "mend: run this outside of softroce exec: faults memory SIZE -- softroce exec a -- CMD"
  echo +memory >/sys/fs/cgroup/cgroup.subtree_control
  group=$(mktemp -d /sys/fs/cgroup/faults.XXXXXX)
  numfmt --from=iec -- "$size" >"$group/memory.max"
  # shellcheck disable=SC2016 # expanded by that shell
  sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@" <&0 || rc=$?
  echo 1 >"$group/cgroup.kill" 2>/dev/null || true
  until rmdir "$group" 2>/dev/null; do sleep 0.02; done
  return "$rc"
}

# memory_off removes the groups of those that were killed outright.
memory_off() {
  local group
  for group in /sys/fs/cgroup/faults.*/; do rmdir "$group" 2>/dev/null || true; done
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
