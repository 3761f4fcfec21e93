#!/usr/bin/env bash
# Runs in a machine with the pair (see test.sh): faults, and then the peers.
set -euo pipefail
testbed=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=check.sh
source "$testbed/lib/check.sh"
faults=$testbed/faults softroce=$testbed/softroce

tcp_passes() { "$softroce" exec a -- busybox ping -c 1 -W 2 "${1:-10.0.0.2}" >/dev/null 2>&1; }
rping_listens() { rdma resource show cm_id | grep -q 'state LISTEN .*comm rping'; }
# rdma_passes [ADDRESS]: an RDMA CM connection to b, and a message both ways.
rdma_passes() {
  local to=${1:-10.0.0.2} size=${2:-64}
  (exec ip netns exec b timeout 20 rping -s -a "$to" -S "$size" -C 2 >/dev/null 2>&1) &
  local server=$! rc=0
  within 10 rping_listens || return
  "$softroce" exec a -- timeout 4 rping -c -a "$to" -S "$size" -C 2 >/dev/null 2>&1 || rc=$?
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  return "$rc"
}

# pings ARG...: 30 from a to b, nearly at once; output has their statistics.
pings() { capture "$softroce" exec a -- ping -c 30 -i 0.01 -W 4 "$@" 10.0.0.2; }
received() { sed -n 's/.* \([0-9]*\) received.*/\1/p' <<<"$output"; }
in_order() { sed -n 's/.*icmp_seq=\([0-9]*\) .*/\1/p' <<<"$output" | sort -nc 2>/dev/null; }
# fastest prints the least round trip in whole milliseconds.
fastest() { sed -n 's|^rtt [^=]* = \([0-9]*\)\..*|\1|p' <<<"$output"; }
# shellcheck disable=SC2016 # awk's own
checksum_errors() { "$softroce" exec b -- awk '$1 == "Icmp:" && $2 ~ /[0-9]/ { print $4 }' /proc/net/snmp; }

# netem: each kind has its effect, and without it there is none.
netem() {
  local wrong
  pings
  check 'no fault: all arrive' equals "$(received)" 30
  check 'no fault: in order' in_order
  "$faults" loss 50% --from a
  "$faults" delay 30ms --from b
  capture "$faults" status
  check 'status: loss' contains "$output" 'v_a: qdisc netem'
  check 'status: delay from b alone' equals "$(grep -c 'delay 30ms' <<<"$output")" 1
  pings
  check 'loss: some are lost' test "$(received)" -lt 30
  check 'loss: not all' test "$(received)" -gt 0
  check 'delay: each is late' test "$(fastest)" -ge 30
  "$faults" netem-off
  check 'netem-off' equals "$("$faults" status)" ''
  "$faults" delay 200ms 150ms --from a
  pings
  check 'delay with jitter: out of order' fails in_order
  check 'delay with jitter: none lost' equals "$(received)" 30
  "$faults" netem-off
  "$faults" delay 300ms --from a
  "$faults" reorder 50% --from a
  pings
  check 'reorder: out of order' fails in_order
  "$faults" netem-off
  "$faults" duplicate 50% --from a
  pings
  check 'duplicate' contains "$output" ' duplicates'
  "$faults" netem-off
  "$faults" rate 400kbit --from a
  capture "$softroce" exec a -- ping -c 1 -W 9 -s 20000 10.0.0.2
  check 'rate: 20 kB take their 400 ms' test "$(fastest)" -ge 400
  "$faults" netem-off
  wrong=$(checksum_errors)
  "$faults" corrupt 100% --from a
  pings -s 3000
  check 'corrupt: a checksum sees it' test "$(checksum_errors)" -gt "$wrong"
  "$faults" netem-off
  pings
  check 'netem-off: all arrive, in order' equals "$(received) $(in_order && echo in order)" '30 in order'
}

# refused WORD ARG...: status 2, a word of what was wrong, nothing in force.
refused_on_links() {
  local word=$1
  shift
  capture "$faults" "$@"
  check "refused: $*" equals "$status $("$faults" status)" '2 '
  check "refused: $*: says why" contains "$errors" "$word"
}

link_refusals() {
  refused_on_links 'a percentage like' loss much
  refused_on_links 'a percentage like' loss 101%
  refused_on_links 'a percentage like' loss
  refused_on_links 'a time like' delay 5
  refused_on_links 'a rate like' rate fast
  refused_on_links 'mend: testbed/faults delay' reorder 5%
  refused_on_links '--from c' loss 1% --from c
  refused_on_links '--rails 2' loss 1% --rail 2
  refused_on_links '1 to 4' loss 1% --rail 5
  refused_on_links '--rails 3' loss 1% --rail 3
  refused_on_links 'like 2000' frames
  refused_on_links 'like 2000' frames many
  refused_on_links 'which host' stop
  refused_on_links 'which host' link-down c
  refused_on_links 'unknown verb' break
  refused_on_links 'unknown option' heal --hard
  capture "$faults" --help
  check '--help names every verb' contains "$output" 'power-cut DIR'
}

links() {
  check 'RDMA passes' rdma_passes
  "$faults" cut-rdma
  check 'status: cut' contains "$("$faults" status)" 'v_b: RDMA cut'
  check 'cut-rdma: TCP passes' tcp_passes
  check 'cut-rdma: RDMA does not' fails rdma_passes
  "$faults" cut-rdma
  "$faults" heal
  check 'heal' rdma_passes
  "$faults" link-down b
  check 'status: down' equals "$("$faults" status)" 'v_b: down'
  check 'link-down' fails tcp_passes
  "$faults" link-up
  check 'link-up: TCP' tcp_passes
  check 'link-up: RDMA' rdma_passes
}

devices() {
  (exec ip netns exec a timeout 60 ib_send_bw -d rxe_a -x 1 -F >/tmp/waiting 2>&1) &
  local waiting=$!
  listening() { "$softroce" exec a -- ss -Hltn 'sport = :18515' | grep -q .; }
  check 'a user of the device is there' within 20 listening
  capture "$faults" remove-device a
  check 'remove-device: in use' equals "$status" 0
  check 'remove-device: it is gone' fails test -e /sys/class/infiniband/rxe_a
  check 'status: removed' contains "$("$faults" status)" 'rxe_a: removed'
  kill "$waiting"
  wait "$waiting" 2>/dev/null || true
  "$faults" off
  check 'off restores it' rdma_passes
}

process_state() { sed -n 's/^State:[^A-Z]*\([A-Z]\).*/\1/p' "/proc/$1/status"; }
is_stopped() { [[ $(process_state "$1") == T ]]; }
sleeps() { [[ $(process_state "$1") == S ]]; }
alive() { kill -0 "$1" 2>/dev/null; }

processes() {
  local in_a in_b held
  (exec ip netns exec a sh -c 'sleep 1000 & exec sleep 1000') &
  in_a=$!
  (exec ip netns exec b sleep 1000) &
  in_b=$!
  (exec ip netns exec a sleep 1001) &
  held=$!
  disown -a # no word from the shell about how they end
  at_sleep() { [[ $(tr '\0' ' ' <"/proc/$1/cmdline") == "sleep "* ]]; }
  check 'processes on a and b' within 10 at_sleep "$in_a"
  within 10 at_sleep "$in_b"
  within 10 at_sleep "$held"
  kill -STOP "$held"
  within 10 is_stopped "$held"
  capture "$faults" stop a
  check 'stop' equals "$status $errors" '0 '
  check 'stop: it is stopped' is_stopped "$in_a"
  check 'stop: the other host is not' sleeps "$in_b"
  check 'status: stopped, both' equals "$("$faults" status | grep -c '^a: process [0-9]* stopped$')" 2
  "$faults" cont a
  check 'cont: it goes on' within 5 sleeps "$in_a"
  check 'cont: what was stopped before is not' is_stopped "$held"
  "$faults" stop b
  "$faults" off
  check 'off continues, too' within 5 sleeps "$in_b"
  capture "$faults" kill a
  check 'kill' equals "$status $errors" '0 '
  check 'kill: no process is left on a' equals "$(ip netns pids a)" ''
  check 'kill: the other host lives' alive "$in_b"
  "$faults" stop b
  "$softroce" down
  check 'cont: also when the pair is gone' "$faults" cont b
  check 'cont: it goes on then' within 5 sleeps "$in_b"
  kill "$in_b"
  "$softroce" pair
}

limits() {
  capture "$faults" memlock 64K -- sh -c 'ulimit -l; exit 4'
  check 'memlock: limit and status' equals "$status $output" '4 64'
  capture "$faults" memlock 64K -- "$softroce" exec a -- timeout 20 ibv_rc_pingpong -d rxe_a -g 1 -s 1048576
  check 'memlock: a registration fails' contains "$output$errors" 'register MR'
  capture "$faults" memory 32M -- sh -c 'head -c 80M /dev/zero | tail -c 64M | wc -c'
  check 'memory: what needs more is killed' differs "$output" 67108864
  capture "$faults" memory 64M -- sh -c 'exit 5'
  check 'memory: status' equals "$status" 5
  capture "$faults" memory 64M -- "$faults" status
  check 'status: memory' contains "$output" 'memory: 67108864 bytes'
  # shellcheck disable=SC2016 # expanded by that shell
  capture "$faults" memory 64M -- sh -c '"$0" off && echo goes on' "$faults"
  check 'memory: off does not end its own' equals "$status $output" '0 goes on'
  for signal in TERM INT HUP KILL; do
    killed_memory "$signal"
    [[ $signal != KILL ]] || "$faults" off
    check "memory, $signal: no process and no group is left" fails compgen -G '/sys/fs/cgroup/faults.*'
  done
}

memory_holds() { (($(cat /sys/fs/cgroup/faults.*/cgroup.procs 2>/dev/null | wc -l) == $1)); }

# killed_memory SIGNAL: while its command and that one's child run.
killed_memory() {
  local pid rc=0
  # Bash starts what it puts in the background deaf to INT.
  env --default-signal=INT "$faults" memory 64M -- sh -c 'sleep 1000 & exec sleep 1000' &
  pid=$!
  check "memory, $1: it runs" within 20 memory_holds 2
  kill -"$1" "$pid"
  check "memory, $1: it ends" within 20 fails alive "$pid"
  wait "$pid" 2>/dev/null || rc=$?
  check "memory, $1: as the signal would" equals "$rc" $((128 + $(kill -l "$1")))
}

# rails: each verb of the links on the second alone.
rails() {
  "$softroce" pair --rails 2
  check 'rails: RDMA on both' rdma_passes
  check 'rails: RDMA on the second' rdma_passes 10.0.1.2
  "$faults" loss 3%
  check 'rails: a fault is on all of them' equals "$("$faults" status | grep -c 'loss 3%')" 4
  "$faults" netem-off --rail 1
  check 'rails: undone on one' equals "$("$faults" status | sed 's/:.*//' | tr '\n' ' ')" 'v_a2 v_b2 '
  "$faults" netem-off
  "$faults" cut-rdma --rail 2
  check 'cut-rdma --rail 2: the first is whole' rdma_passes
  check 'cut-rdma --rail 2: the second is not' fails rdma_passes 10.0.1.2
  "$faults" heal
  "$faults" cut-rdma --rail 2 --from a
  check 'cut-rdma --from a: what arrives at b' equals "$("$faults" status)" 'v_b2: RDMA cut'
  check 'cut-rdma --from a: the second is cut' fails rdma_passes 10.0.1.2
  "$faults" heal
  "$faults" frames 2000 --rail 2
  check 'frames: status' equals "$("$faults" status | sort | tr '\n' ' ')" 'v_a2: long packets of RDMA cut v_b2: long packets of RDMA cut '
  check 'frames: the first is whole' rdma_passes
  check 'frames: short ones pass' rdma_passes 10.0.1.2
  check 'frames: long ones do not' fails rdma_passes 10.0.1.2 4000
  "$faults" link-down a --rail 1
  check 'link-down --rail 1: the first is down' fails tcp_passes
  check 'link-down --rail 1: the second is up' tcp_passes 10.0.1.2
  "$faults" remove-device b --rail 2
  check 'remove-device --rail 2' equals "$(cd /sys/class/infiniband && echo *)" 'rxe_a rxe_a2 rxe_b'
  "$faults" off
  check 'off: the first' rdma_passes
  check 'off: the second' rdma_passes 10.0.1.2
  check 'off: nothing in force' equals "$("$faults" status)" ''
  check 'off: no record' fails test -e /run/rdmaxfer-faults
  "$faults" loss 1%
  "$softroce" pair --rails 1
  check "a pair's faults go with it" equals "$("$faults" status)" ''
}

netem
link_refusals
links
devices
processes
limits
rails
# shellcheck source=test-disk.sh
source "$testbed/lib/test-disk.sh"
# shellcheck source=test-peer.sh
source "$testbed/lib/test-peer.sh"
verdict
