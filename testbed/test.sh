#!/usr/bin/env bash
# testbed/test.sh [core|rest|SECTION]... tests vm, softroce, faults and peer by running
# them: all of it, or the sections that are named (they are at the end). It takes as few
# boots as it can; each check that needs no boot of its own is in lib/test-*.sh, which
# run inside, but for lib/test-functions.sh, which needs no machine.
set -euo pipefail
testbed=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=lib/check.sh
source "$testbed/lib/check.sh"
# shellcheck source=lib/common.sh
source "$testbed/lib/common.sh"
# shellcheck source=lib/gotest.sh
source "$testbed/lib/gotest.sh"
# shellcheck source=lib/kernel.sh
source "$testbed/lib/kernel.sh"
# shellcheck source=lib/machine.sh
source "$testbed/lib/machine.sh"
# shellcheck source=lib/test-functions.sh
source "$testbed/lib/test-functions.sh"

vm=$testbed/vm
scratch=$(mktemp -d "${TMPDIR:-/tmp}/testbed-test.XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT
cd "$scratch"

# inside NAME OPTION... runs lib/test-NAME.sh in a machine and counts its checks
# as ours. Its last line says that it came to its end. Two emulated machines have stood
# still for good in one of some runs, with nothing on their consoles, and nobody knows
# why: a time-out is said aloud and tried once more. What is the testbed's own comes again.
inside() {
  local name=$1
  shift
  capture "$vm" --again 2 "$@" -- bash "$testbed/lib/test-$name.sh" "$scratch/shared" </dev/null
  if [[ $status == 124 ]]; then
    grep '^FAIL  ' <<<"$output" || true # these count, whatever comes of it now
    failed=$((failed + $(grep -c '^FAIL  ' <<<"$output" || true)))
    echo "      $name: not finished in time, after: $(tail -n 1 <<<"$output"); once more in another machine"
    capture "$vm" --again 2 "$@" -- bash "$testbed/lib/test-$name.sh" "$scratch/shared" </dev/null
  fi
  grep -vE '^[0-9]+ passed, [0-9]+ failed$' <<<"$output" || true
  passed=$((passed + $(grep -c '^ok  ' <<<"$output" || true)))
  failed=$((failed + $(grep -c '^FAIL  ' <<<"$output" || true)))
  check "$name: all of it ran" contains "$output" ' passed, '
}

# machines [BELOW] prints the QEMU processes that were started from here.
machines() { pgrep -f "^qemu-system-x86_64 .*$scratch${1:-}" || true; }
export TMPDIR=$scratch # the machines' own files, by which they are known

# The first boot of all fetches a kernel and probes, and says so: not in a test.
first_boot() {
  "$vm" -- true </dev/null
  # That KVM is not for this user was said now.
  [[ ! -e /dev/kvm || (-r /dev/kvm && -w /dev/kvm) ]] || export RDMAXFER_VM_ACCEL=tcg
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
}

# side_by_side runs three machines at once, one of them two, which do not meet,
# and ends each by a signal.
side_by_side() {
  local signal pid pids=() options
  for signal in TERM INT KILL; do
    mkdir "$signal"
    options=()
    [[ $signal != TERM ]] || options=(--two)
    # Bash starts what it puts in the background deaf to INT.
    TMPDIR=$scratch/$signal env --default-signal=INT "$vm" "${options[@]}" -- \
      sh -c "echo '$signal' >/dev/shm/mine; ls /dev/shm; cat /dev/shm/mine; echo up; sleep 1000" \
      >"$signal/log" 2>&1 </dev/null &
    pids+=($!)
  done
  for signal in TERM INT KILL; do
    check "$signal: up beside others" within 120 grep -qs up "$signal/log"
    check "$signal: a world of its own" equals "$(head -n 2 "$signal/log" | tr '\n' ' ')" "mine $signal "
  done
  check 'four machines are there' equals "$(machines | wc -l)" 4
  for signal in TERM INT KILL; do
    pid=${pids[0]} pids=("${pids[@]:1}")
    kill -"$signal" "$pid"
    status=0
    wait "$pid" 2>/dev/null || status=$?
    check "$signal: ends as the signal would" equals "$status" $((128 + $(kill -l "$signal")))
    check "$signal: no process is left" within 5 none_left "$signal"
    [[ $signal == KILL ]] || check "$signal: no file is left" equals "$(ls -d "$signal"/testbed-vm.* 2>/dev/null)" ''
  done
}

none_left() { [[ -z $(machines "/${1:-}") ]]; }

two() {
  mkdir -p shared
  inside two --two --timeout 240 --out shared
  capture "$vm" --two -- "$testbed/softroce" exec b -- sh -c 'echo c >/proc/sysrq-trigger' </dev/null
  check 'a panic of b ends both: 125' equals "$status" 125
  check 'a panic of b: says which' contains "$errors" 'machine b ended by itself: Kernel panic'
  check 'a panic of b: nothing is left' equals "$(machines)$(ls -d testbed-vm.* 2>/dev/null)" ''
}

# typed TEXT types into the shell's terminal, shows TEXT waits until it is there.
typed() { printf '%b' "$1" >&"$keys"; }
shows() { within 30 grep -qsa -- "$1" screen; }

interactive() {
  local driver
  mkfifo keys
  script -qefc "stty rows 33 cols 99; stty -g >cooked; tty >terminal; '$vm'; echo \$? >status; stty -g >after; '$vm' --two; read -r _" \
    screen <keys >/dev/null &
  driver=$!
  exec {keys}>keys
  # What is typed is echoed: expressions tell what was run from what was typed.
  # shellcheck disable=SC2016 # expanded inside
  typed 'stty size; echo $((40 + 2)) $(tty)\r'
  check 'shell: a terminal of its own' within 60 grep -qsa '^42 /dev/pts/' screen
  check "shell: the terminal's size" shows '^[^#]*33 99'
  typed "sh -c 'echo slee\"\"ping; exec sleep 1000'\r"
  check 'shell: a command runs' shows '^[^#]*sleeping'
  typed '\x03'
  typed 'echo it was $? indeed\r'
  check 'shell: Ctrl-C goes inside' shows '^[^#]*it was 130 indeed'
  stty rows 44 cols 55 -F "$(<terminal)"
  typed 'stty size\r'
  check 'shell: a change of size goes inside' shows '^[^#]*44 55'
  typed 'exit 5\r'
  check 'shell: its status' within 20 grep -qsx 5 status
  check 'shell: the terminal is as it was' within 5 cmp -s cooked after
  # The next one, on two machines, is killed outright.
  # shellcheck disable=SC2016 # expanded inside
  typed 'hostname; echo $((50 + 2)) $(tty)\r'
  check 'shell: on two machines' within 90 grep -qsa '^52 /dev/pts/' screen
  check 'shell: raw outside' fails is_cooked
  kill -KILL "$(pgrep -P "$(pgrep -P "$driver")")"
  check 'shell: restored after a kill' within 5 is_cooked
  check 'shell: no process is left' within 5 none_left
  typed '\r'
  wait "$driver" || true
  exec {keys}>&-
  rm -rf testbed-vm.*
}
is_cooked() { [[ $(stty -g -F "$(<terminal)") == "$(<cooked)" ]]; }

go_test() {
  # Run as the manual says: from a module's root, at which its packages need not be.
  mkdir -p module/package
  ln -s "$testbed" module/testbed
  cd module
  cat >go.mod <<'GO'
module example.com/sum
go 1.21
GO
  cat >package/sum.go <<'GO'
package sum

// Sum is wrong for one input.
func Sum(data []byte) (n int) {
	for _, b := range data {
		n += int(b)
	}
	if len(data) == 3 {
		n++
	}
	return n
}
GO
  cat >package/sum_test.go <<'GO'
package sum

import (
	"os"
	"testing"
)

func TestWhere(t *testing.T) {
	name, _ := os.Hostname()
	t.Log("ran on", name, "sum", Sum(nil))
}

func FuzzSum(f *testing.F) {
	f.Add([]byte("four"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 3 && Sum(data) != int(data[0])+int(data[1])+int(data[2]) {
			t.Fatal("wrong")
		}
	})
}
GO
  capture go test -exec "$PWD/testbed/vm --" -v -run TestWhere -coverprofile cover.out ./...
  check 'go test -exec: ran inside' contains "$output" 'ran on testbed sum 0'
  check 'go test -exec: a coverage profile comes back' contains "$(cat cover.out)" 'example.com/sum/package/sum.go:4.31,5.25 1 1'
  capture go test -exec "$PWD/testbed/vm --" -run none -fuzz FuzzSum -fuzztime 60s ./...
  check 'go test -exec: the fuzzer fails' equals "$status" 1
  check 'go test -exec: its input comes back' contains "$(cat package/testdata/fuzz/FuzzSum/* 2>/dev/null)" '[]byte('
  cd ..
}

# agree COUNT...: two of them are within 1 %.
agree() {
  printf '%s\n' "$@" | sort -n |
    awk 'NR > 1 && ($1 - last) * 100 <= last { found = 1 } { last = $1 } END { exit !found }'
}

# The same command in two boots: one instruction in a hundred may differ. A busy host is
# felt even here, so a third count may be needed for two that agree.
counts() {
  local file counted=()
  for file in first second third; do
    capture "$vm" --deterministic --count "$file" -- sh -c 'head -c 64M /dev/zero | sha256sum' </dev/null
    check "counted: $file run" equals "$output" '3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351  -'
    counted+=("$(grep -oE '[0-9]+' "$file" | head -n 1)")
    ! agree "${counted[@]}" || break
  done
  check 'counted: says what it is good for' contains "$errors" 'with its earlier self, for nothing else'
  check 'counted: something' test "${counted[0]}" -gt 64000000
  check "counted: two of ${counted[*]} are within 1 %" agree "${counted[@]}"
}

refusals() {
  local word
  for word in --bogus --cpus=0 --memory=x --accel=x --kernel=5 --out=/nonexistent --timeout= --again=x; do
    capture "$vm" "$word" -- true </dev/null
    check "usage: $word" equals "$status" 2
  done
  capture "$vm" </dev/null
  check 'usage: no command' equals "$status" 2
  capture "$vm" --pair --two -- true </dev/null
  check 'usage: --pair and --two' equals "$status" 2
  capture "$vm" --deterministic --two -- true </dev/null
  check 'usage: --deterministic and --two' equals "$status" 2
  mkdir bin
  ln -s /usr/bin/* /bin/* bin/ 2>/dev/null || true
  rm bin/qemu-system-x86_64
  capture env PATH="$scratch/bin" "$vm" -- true </dev/null
  check 'no QEMU: 2' equals "$status" 2
  check 'no QEMU: the mend' contains "$errors" 'apt install qemu-system-x86'
  capture env RDMAXFER_CACHE=/proc/nowhere "$vm" -- true </dev/null
  check 'no cache: 2' equals "$status" 2
  check 'no cache: the mend' contains "$errors" RDMAXFER_CACHE
  capture env RDMAXFER_CACHE="$scratch/empty" RDMAXFER_VM_ARCHIVE=http://127.0.0.1:9/ "$vm" -- true </dev/null
  check 'no network and no kernel: 2' equals "$status" 2
  check 'no network and no kernel: the mend' contains "$errors" 'check the network'
  check 'no network and no kernel: nothing is kept' equals "$(find empty -mindepth 2 ! -name lock)" ''
  capture full_cache "$vm" -- true </dev/null
  check 'no space in the cache: 2' equals "$status" 2
  check 'no space in the cache: the mend' contains "$errors" 'mend: make room there, or set RDMAXFER_CACHE'
}

# full_cache COMMAND... runs it with a cache on a file system of 1 MiB.
full_cache() {
  local as_root=()
  ((EUID == 0)) || as_root=(sudo -E)
  mkdir small
  # shellcheck disable=SC2016 # expanded there
  "${as_root[@]}" unshare --mount sh -c 'mount -t tmpfs -o size=1M small small && RDMAXFER_CACHE=$PWD/small exec "$@"' sh "$@"
}

# nobody: outside no right is needed but to read; softroce says that it needs root.
nobody() {
  local cache as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
  ((EUID == 0)) || as=()
  cache=$(cache_dir)
  mkdir -p nobody/tmp "nobody/a cache/testbed"
  cp -r -- "$testbed" nobody/
  # What is fetched and what was found out about this host; not what is built of it.
  cp -rL -- "$cache/kernel-7.$kernel_layout" 'nobody/a cache/testbed/'
  rm -f -- "nobody/a cache/testbed/kernel-7.$kernel_layout"/initramfs-*
  find "$cache" -maxdepth 1 -name 'kvm-*' -exec cp -t 'nobody/a cache/testbed' -- {} +
  chmod 755 .
  ((EUID != 0)) || chown -R 65534:65534 nobody
  # No network either: what is in the cache needs none.
  capture env RDMAXFER_VM_ARCHIVE=http://127.0.0.1:9/ RDMAXFER_CACHE="$scratch/nobody/a cache" \
    TMPDIR="$scratch/nobody/tmp" HOME=/nonexistent "${as[@]}" nobody/testbed/vm -- whoami </dev/null
  check 'without root, without network: root inside' equals "$status $output" '0 root'
  ((EUID != 0)) || as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
  capture "${as[@]}" nobody/testbed/softroce pair </dev/null
  check 'softroce without root: 1' equals "$status" 1
  check 'softroce without root: the mend' contains "$errors" 'mend: sudo testbed/softroce ..., or testbed/vm'
  rm -rf nobody
}

# strangers: what rdma-core's programs do on all kernels is in the table of the
# manual; a difference is an error on one side or the other.
strangers() {
  local program
  inside strangers --pair
  for program in ibv_rc_pingpong ibv_ud_pingpong ibv_srq_pingpong rping; do
    check "$program passes on all kernels" grep -qE "$program.*\| yes \| yes \| yes \|$" "$testbed/../docs/testbed.md"
  done
  capture "$testbed/kernels" --check "$testbed/../docs/testbed.md"
  check 'kernels: the table in docs/testbed.md is true' equals "$status" 0
}

# again: a machine that says what a failed emulation says, and dies, is started again,
# as often as it was asked for; one that dies otherwise is not.
again() {
  mkdir again
  cat >again/command <<'COMMAND'
echo run >>again/runs
[ "$(wc -l <again/runs)" -lt 2 ] || exit 7
# By way of the kernel's log, which the crash flushes: a terminal's output may be lost.
echo "<0>$1: 0000" >/dev/kmsg
echo c >/proc/sysrq-trigger
sleep 100
COMMAND
  capture "$vm" --accel tcg --again 1 --out again -- sh again/command 'Oops: int3' </dev/null
  check '--again: the second run counts' equals "$status $(wc -l <again/runs)" '7 2'
  check '--again: says so' contains "$errors" 'emulation failed'
  rm again/runs
  capture "$vm" --accel tcg --again 1 --out again -- sh again/command 'Oops: null pointer' </dev/null
  check '--again: not after a fault of its own' equals "$status $(wc -l <again/runs)" '125 1'
}

inside_pair() { inside pair; }
inside_faults() { inside faults --pair; }

# What a change most often breaks, and the rest.
core=(functions refusals first_boot one_boot statuses ends two)
rest=(first_boot nobody again side_by_side interactive go_test counts inside_pair inside_faults strangers)
sections=()
for section in "${@:-core rest}"; do
  case $section in
    core) sections+=("${core[@]}") ;;
    rest) sections+=("${rest[@]}") ;;
    'core rest') sections+=("${core[@]}" "${rest[@]}") ;;
    *) sections+=("$section") ;;
  esac
done
for section in "${sections[@]}"; do
  began=$SECONDS
  "$section"
  echo "      $section: $((SECONDS - began)) s"
done
verdict
