#!/usr/bin/env bash
# testbed/test.sh tests vm, softroce, faults and peer by running them. It takes
# as few boots as it can; each check that needs no boot of its own is in
# lib/test-*.sh, which run inside.
set -euo pipefail
testbed=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=lib/check.sh
source "$testbed/lib/check.sh"
# shellcheck source=lib/common.sh
source "$testbed/lib/common.sh"
# shellcheck source=lib/gotest.sh
source "$testbed/lib/gotest.sh"

vm=$testbed/vm
scratch=$(mktemp -d "${TMPDIR:-/tmp}/testbed-test.XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT
cd "$scratch"

# inside NAME OPTION... runs lib/test-NAME.sh in a machine and counts its checks
# as ours. Its last line says that it came to its end.
inside() {
  local name=$1
  shift
  capture "$vm" "$@" -- bash "$testbed/lib/test-$name.sh" </dev/null
  grep -vE '^[0-9]+ passed, [0-9]+ failed$' <<<"$output" || true
  passed=$((passed + $(grep -c '^ok  ' <<<"$output" || true)))
  failed=$((failed + $(grep -c '^FAIL  ' <<<"$output" || true)))
  check "$name: all of it ran" contains "$output" ' passed, '
}

# machines prints the QEMU processes that were started from here.
machines() { pgrep -f "^qemu-system-x86_64 .*$scratch" || true; }
export TMPDIR=$scratch # the machines' own files, by which they are known

# The first boot of all fetches a kernel and probes, and says so: not in a test.
"$vm" -- true </dev/null

# functions tests what needs no machine.
functions() {
  local release
  for release in 7.1.0 7.1-rc1 7.3.4+deb13-amd64 7.10.0 10.0; do
    check "a pair on kernel $release" kernel_can_pair "$release"
  done
  for release in 6.1.0-50-amd64 6.12.107 7.0.9 5.15.0-generic; do
    check "no pair on kernel $release" fails kernel_can_pair "$release"
  done
  outs() { go_test_outs "$@" | tr '\0' ' '; }
  check 'go test: profiles come back' equals "$(outs /b/x.test -test.v=true -test.outputdir=/o -test.coverprofile=/w/c -test.cpuprofile=cpu)" '/w /o '
  check 'go test: fuzzing' equals "$(outs /b/x.test -test.fuzz=F -test.fuzzcachedir=/c)" '. /c '
  check 'go test: nothing asked for' equals "$(outs /b/x.test -test.v=true -test.fuzz=)" ''
  check 'no go test' equals "$(outs cat -test.coverprofile=/w/c)" ''
}

one_boot() {
  mkdir out
  echo before >file
  export RDMAXFER_TEST=$'two\nlines' NOT_PASSED=1 ASKED="it's"
  printf 'in\0put' >input
  # shellcheck disable=SC2016 # expanded inside
  capture "$vm" --out out --env ASKED -- bash -c '
    printf "[%s]" "$@"
    echo to-errors >&2
    echo "cwd=$PWD, $RDMAXFER_TEST, ${NOT_PASSED-unset}, $ASKED"
    od -An -c
    echo after >file; cat file
    echo kept >out/kept
    hostname; whoami; ulimit -l; nproc
    awk "\$2 == \"/dev/shm\" || \$2 == \"/run\" { print \$2, \$3 }" /proc/mounts
    busybox ping -c 1 -W 5 127.0.0.1 >/dev/null && echo lo up
    (sleep 1000 &)
    exit 3' it 'a b' "q'\"" $'new\nline' '' '*' <input
  check 'exit status' equals "$status" 3
  check 'arguments are exact' contains "$output" "[a b][q'\"]["$'new\nline][][*]'
  check 'current directory and environment' contains "$output" "cwd=$scratch, "$'two\nlines, unset, it\'s\n'
  check 'input' contains "$output" '  i   n  \0   p   u   t'
  check 'error output is apart' equals "$errors" to-errors
  check 'writes are seen inside' contains "$output" $'\nafter\n'
  check 'writes are gone outside' equals "$(<file)" before
  check '--out keeps what is written' equals "$(cat out/kept)" kept
  check 'host name, root, memlock, CPUs' contains "$output" $'\ntestbed\nroot\nunlimited\n2\n'
  check '/dev/shm is a tmpfs' contains "$output" $'\n/dev/shm tmpfs'
  check '/run is a tmpfs' contains "$output" $'\n/run tmpfs'
  check 'lo is up' contains "$output" $'\nlo up'
  check 'nothing is left' equals "$(machines)$(ls -d "$scratch"/testbed-vm.* 2>/dev/null)" ''
}

statuses() {
  capture "$vm" -- no-such-command </dev/null
  check 'not found: 127' equals "$status" 127
  check 'not found: says so' contains "$errors" no-such-command
  # Every byte must come although nobody reads for a while; and a signal's
  # status must come after it.
  # shellcheck disable=SC2016 # expanded inside
  capture stalled_reader "$vm" -- bash -c 'yes | head -c 60000000; kill -KILL $$'
  check 'a stalled reader loses nothing' equals "$output" '60000000 137'
}

# stalled_reader COMMAND... prints how many bytes it wrote and its status; it
# reads nothing until the command's pipe has been full for two seconds.
stalled_reader() {
  mkfifo stalled
  "$@" </dev/null >stalled &
  local pid=$! count rc=0
  exec {reader}<stalled
  read -r -N 1 -u "$reader" _
  sleep 2 # a stall, not a synchronisation
  count=$(($(wc -c <&"$reader")))
  wait "$pid" || rc=$?
  echo "$((count + 1)) $rc"
}

# panics runs a machine that panics once what it printed has come out.
panics() {
  mkfifo go
  {
    within 60 grep -qs half-way half-way || true
    echo go
  } >go &
  # shellcheck disable=SC2016 # expanded inside
  "$vm" -- sh -c 'echo half-way; read -r _; echo c >/proc/sysrq-trigger; sleep 100' <go >half-way && return
  local rc=$?
  cat half-way
  return "$rc"
}

ends() {
  capture "$vm" --timeout 9 -- sleep 1000 </dev/null
  check 'time-out: 124' equals "$status" 124
  check 'time-out: says so' contains "$errors" 'not finished after 9 s'
  capture panics
  check 'panic: 125' equals "$status" 125
  check 'panic: what was written before it came' equals "$output" half-way
  check 'panic: the last lines of the console' contains "$errors" 'sysrq triggered crash'
  local signal pid
  for signal in TERM INT; do
    # Bash starts what it puts in the background deaf to INT.
    env --default-signal=INT "$vm" -- sh -c 'echo up; sleep 1000' >"$signal.log" 2>&1 </dev/null &
    pid=$!
    within 60 grep -qs up "$signal.log"
    kill -"$signal" "$pid"
    status=0
    wait "$pid" || status=$?
    check "$signal: ends as the signal would" equals "$status" $((128 + $(kill -l "$signal")))
    check "$signal: nothing is left" equals "$(machines)$(ls -d testbed-vm.* 2>/dev/null)" ''
  done
  "$vm" -- sh -c 'echo up; sleep 1000' >kill.log 2>&1 </dev/null &
  pid=$!
  within 60 grep -qs up kill.log
  kill -KILL "$pid"
  wait "$pid" 2>/dev/null || true
  check 'KILL: no process is left' within 5 none_left
}

none_left() { [[ -z $(machines) ]]; }

refusals() {
  local word
  for word in --bogus --cpus=0 --memory=x --accel=x --kernel=5 --out=/nonexistent --timeout=; do
    capture "$vm" "$word" -- true </dev/null
    check "usage: $word" equals "$status" 2
  done
  capture "$vm" </dev/null
  check 'usage: no command' equals "$status" 2
  mkdir bin
  ln -s /usr/bin/* /bin/* bin/ 2>/dev/null || true
  rm bin/qemu-system-x86_64
  capture env PATH="$scratch/bin" "$vm" -- true </dev/null
  check 'no QEMU: 2' equals "$status" 2
  check 'no QEMU: the mend' contains "$errors" 'apt install qemu-system-x86'
  capture env RDMAXFER_CACHE=/proc/nowhere "$vm" -- true </dev/null
  check 'no cache: 2' equals "$status" 2
  check 'no cache: the mend' contains "$errors" RDMAXFER_CACHE
}

functions
refusals
one_boot
statuses
ends
inside pair
inside faults --pair
verdict
