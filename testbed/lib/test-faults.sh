#!/usr/bin/env bash
# Runs in a machine with the pair (see test.sh): faults and peer.
set -euo pipefail
testbed=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=check.sh
source "$testbed/lib/check.sh"
faults=$testbed/faults softroce=$testbed/softroce

counter() { cat "/sys/class/infiniband/$1/ports/1/hw_counters/$2"; }
tcp_passes() { "$softroce" exec a -- busybox ping -c 1 -W 2 10.0.0.2 >/dev/null; }
rping_listens() { rdma resource show cm_id | grep -q 'state LISTEN .*comm rping'; }
# rdma_passes: an RDMA CM connection to b, and a message both ways.
rdma_passes() {
  "$softroce" exec b -- timeout 20 rping -s -a 10.0.0.2 -C 2 >/dev/null 2>&1 &
  local server=$! rc=0
  within 10 rping_listens || return
  "$softroce" exec a -- timeout 4 rping -c -a 10.0.0.2 -C 2 >/dev/null 2>&1 || rc=$?
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  return "$rc"
}

"$faults" loss 2%
"$faults" delay 30ms --from b
capture "$faults" status
check 'loss, delay: both ways, one way' contains "$(tr '\n' ' ' <<<"$output")" 'loss 2%'
check 'delay: from b alone' equals "$(grep -c 'delay 30ms' <<<"$output")" 1
"$faults" netem-off
"$faults" delay 200ms --from b
capture "$softroce" exec a -- busybox ping -c 1 -W 5 10.0.0.2
check 'delay delays' test "$(sed -n 's/.*time=\([0-9]*\).*/\1/p' <<<"$output")" -ge 200
"$faults" netem-off
check 'netem-off' equals "$("$faults" status)" ''
capture "$faults" loss much
check 'a bad value is refused' equals "$status" 1
check 'and leaves nothing' equals "$("$faults" status)" ''

check 'RDMA passes' rdma_passes
"$faults" cut-rdma
check 'cut-rdma: TCP passes' tcp_passes
check 'cut-rdma: RDMA does not' fails rdma_passes
"$faults" cut-rdma
"$faults" heal
check 'heal' rdma_passes

"$faults" link-down b
check 'link-down' fails tcp_passes
"$faults" link-up
check 'link-up: TCP' tcp_passes
check 'link-up: RDMA' rdma_passes

"$softroce" exec a -- timeout 60 ib_send_bw -d rxe_a -x 1 -F >/tmp/waiting 2>&1 &
waiting=$!
listening() { "$softroce" exec a -- ss -Hltn 'sport = :18515' | grep -q .; }
check 'a user of the device is there' within 20 listening
capture "$faults" remove-device a
check 'remove-device: in use' equals "$status" 0
check 'remove-device: it is gone' fails test -e /sys/class/infiniband/rxe_a
kill "$waiting"
wait "$waiting" 2>/dev/null || true
"$faults" off
check 'off restores it' rdma_passes

"$faults" smallfs /tmp/small 1M
check 'smallfs is small' fails dd if=/dev/zero of=/tmp/small/file bs=1M count=2 status=none
"$faults" smallfs-off /tmp/small
"$faults" smallfs /tmp/small 16M ext4
check 'smallfs ext4' equals "$(stat -f -c %T /tmp/small)" ext2/ext3
"$faults" smallfs-off /tmp/small
check 'smallfs-off' differs "$(stat -f -c %T /tmp/small)" ext2/ext3

capture "$faults" memlock 64K -- sh -c 'ulimit -l; exit 4'
check 'memlock: limit and status' equals "$status $output" '4 64'
capture "$faults" memlock 64K -- "$softroce" exec a -- timeout 20 ibv_rc_pingpong -d rxe_a -g 1 -s 1048576
check 'memlock: a registration fails' contains "$output$errors" 'register MR'
capture "$faults" memory 64M -- sh -c 'head -c 200M /dev/zero | tail -c 150M | wc -c'
check 'memory: what needs more is killed' differs "$output" 157286400
capture "$faults" memory 64M -- sh -c 'exit 5'
check 'memory: status' equals "$status" 5

positive() { [[ $1 =~ \"$2\":([0-9]+) ]] && ((BASH_REMATCH[1] > 0)); }
for tool in ib_write_bw ib_send_bw ib_read_bw; do
  sent=$(counter rxe_a sent_pkts)$(counter rxe_b sent_pkts)
  capture "$testbed/peer" "$tool" --size 65536 --iterations 200
  check "peer $tool" positive "$output" bytes_per_second
  check "peer $tool used the devices" differs "$(counter rxe_a sent_pkts)$(counter rxe_b sent_pkts)" "$sent"
done
for tool in ib_write_lat ib_send_lat ib_read_lat; do
  capture "$testbed/peer" "$tool" --iterations 200
  check "peer $tool" positive "$output" microseconds_typical
done
capture "$testbed/peer" rcopy --bytes 16M
check 'peer rcopy' positive "$output" bytes_per_second
capture "$testbed/peer" iperf3 --duration 1
check 'peer iperf3' positive "$output" bytes_per_second
capture "$testbed/peer" iperf3-zerocopy --duration 1
check 'peer iperf3-zerocopy' positive "$output" bytes_per_second
capture "$testbed/peer" no-such-tool
check 'peer: unknown' equals "$status" 2
verdict
