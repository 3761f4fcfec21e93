#!/usr/bin/env bash
# Runs in a machine with the pair: the peers' tools. test-faults.sh has it run too.
set -euo pipefail
testbed=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=check.sh
[[ -v passed ]] || source "$testbed/lib/check.sh"
peer=$testbed/peer

# number NAME prints the first field of that name in output.
number() { sed -n "s/^[^}]*\"$1\":\([0-9.]*\).*/\1/p" <<<"$output"; }
positive() { [[ $(number "$1") =~ [1-9] ]]; }
# packets DEVICE COUNTER prints the difference that the peer printed.
packets() { sed -n "s/.*\"$1\":{[^}]*\"$2\":\([0-9]*\).*/\1/p" <<<"$output"; }
at_least_packets() { (($(packets rxe_a sent_pkts) >= $1 && $(packets rxe_b rcvd_pkts) >= $1 || $(packets rxe_b sent_pkts) >= $1 && $(packets rxe_a rcvd_pkts) >= $1)); }
no_packets() { [[ $(packets rxe_a sent_pkts)$(packets rxe_a rcvd_pkts)$(packets rxe_b sent_pkts)$(packets rxe_b rcvd_pkts) == 0000 ]]; }
one_line() { [[ $output == '{"tool":"'* && $output == *'}}}' && $output != *$'\n'* ]]; }

# ran TOOL FIELD: it ended well, in one line, with a figure.
ran() {
  check "peer $1" equals "$status $errors" '0 '
  check "peer $1: one line of JSON" one_line
  check "peer $1: a figure" positive "$2"
}

over_tcp() {
  local tool
  for tool in socat rsync; do
    capture "$peer" "$tool" --bytes 20M
    ran "$tool" bytes_per_second
    check "peer $tool: all bytes" equals "$(number bytes)" $((20 << 20))
    check "peer $tool: none over RDMA" no_packets
  done
  capture "$peer" iperf3 --duration 1
  ran iperf3 bytes_per_second
  check 'peer iperf3: none over RDMA' no_packets
  capture "$peer" iperf3-zerocopy --duration 1
  ran iperf3-zerocopy bytes_per_second
  capture "$peer" qperf_tcp_bw --duration 1
  ran qperf_tcp_bw bytes_per_second
  capture "$peer" qperf_tcp_lat --duration 1
  ran qperf_tcp_lat microseconds_average
  check 'peer qperf_tcp_lat: none over RDMA' no_packets
}

over_rdma() {
  local tool
  for tool in ib_write_bw ib_send_bw ib_read_bw; do
    capture "$peer" "$tool" --size 65536 --iterations 200
    ran "$tool" bytes_per_second
    # In packets of 4 KiB.
    check "peer $tool: its packets" at_least_packets $((200 * 16))
  done
  for tool in ib_write_lat ib_send_lat ib_read_lat; do
    capture "$peer" "$tool" --iterations 200
    ran "$tool" microseconds_typical
    check "peer $tool: its packets" at_least_packets 200
  done
  capture "$peer" qperf_rc_bw --duration 1 --size 65536
  ran qperf_rc_bw bytes_per_second
  check 'peer qperf_rc_bw: its packets' at_least_packets 16
  capture "$peer" qperf_rc_lat --duration 1
  ran qperf_rc_lat microseconds_average
  check 'peer qperf_rc_lat: its packets' at_least_packets 1
  # It hangs now and then when it has moved everything: once more, then.
  capture "$peer" rcopy --bytes 16M --timeout 20
  ((status != 124)) || capture "$peer" rcopy --bytes 16M --timeout 20
  ran rcopy bytes_per_second
  check 'peer rcopy: all bytes' equals "$(number bytes)" $((16 << 20))
  check 'peer rcopy: its packets' at_least_packets $((16 << 8))
}

peer_world() { ls -d /dev/shm/* "$1"/* 2>/dev/null || true; }
processes_on() { ip netns pids a && ip netns pids b; }

# ends_well: files, failures and what is left.
ends_well() {
  local d=/tmp/full before
  "$testbed/faults" smallfs "$d" 4M
  before=$(peer_world "$d")
  head -c 3M /dev/urandom >'/tmp/a,file: 1'
  capture "$peer" socat --file '/tmp/a,file: 1' --destination "$d"
  ran socat bytes_per_second
  check 'peer --file: its bytes' equals "$(number bytes)" $((3 << 20))
  capture "$peer" socat --bytes 8M --destination "$d"
  check 'peer socat: a full destination fails' contains "$status $errors" '1 '
  check 'peer socat: it says why' contains "$errors" 'No space left'
  capture "$peer" rsync --bytes 8M --destination "$d"
  check 'peer rsync: a full destination fails' equals "$status" 1
  capture "$peer" iperf3 --duration 30 --timeout 1
  check 'peer: time-out' contains "$status $errors" 'not finished after 1 s'
  check 'peer: time-out, 124' equals "$status" 124
  check 'peer: no file is left' equals "$(peer_world "$d")" "$before"
  check 'peer: no process is left' equals "$(processes_on)" ''
  "$testbed/faults" smallfs-off "$d"
  capture "$peer" no-such-tool
  check 'peer: unknown tool' equals "$status" 2
  capture "$peer" socat --bytes many
  check 'peer: a bad size' equals "$status" 2
  capture "$peer" rcopy --destination /nowhere
  check 'peer: no destination' equals "$status" 2
  capture "$peer" ib_write_bw --size x
  check 'peer: a bad number' equals "$status" 2
}

over_tcp
over_rdma
ends_well
[[ ${BASH_SOURCE[0]} != "$0" ]] || verdict
