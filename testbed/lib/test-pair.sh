#!/usr/bin/env bash
# Runs in a machine that was started without --pair (see test.sh): softroce.
set -euo pipefail
testbed=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=check.sh
source "$testbed/lib/check.sh"
softroce=$testbed/softroce

# world prints what softroce could leave behind.
world() {
  ip -o link show | cut -d: -f2
  ip netns list
  ls /sys/class/infiniband /run/rdmaxfer* 2>/dev/null
  true
}

counter() { cat "/sys/class/infiniband/$1/ports/1/hw_counters/$2"; }

modprobe -a rdma_rxe veth # stay loaded; what they add to the world is not ours
before=$(world)

capture "$softroce" status
check 'status: no pair' equals "$status" 1
capture "$softroce" exec a true
check 'exec: no pair' equals "$status" 1
check 'exec: the mend' contains "$errors" 'softroce pair'

ip netns add a
capture "$softroce" pair
check "a foreign namespace is refused" contains "$errors" 'ip netns del a'
ip netns del a
check 'and nothing is left' equals "$(world)" "$before"

# Killed in the middle, at its first namespace: down finds the rest.
# shellcheck disable=SC2016 # expanded by that shell
capture bash -c 'rdma() { :; }; ip() { command ip "$@"; [[ $* != "netns add b" ]] || kill -KILL $$; }
  source "$0" pair' "$softroce"
check 'pair killed in the middle' equals "$status" 137
check 'pair killed in the middle left something' differs "$(world)" "$before"
capture "$softroce" down
check 'down removes it' equals "$(world)" "$before"

capture "$softroce" pair
check 'pair' equals "$status" 0
made=$(world)
capture "$softroce" pair
check 'pair again' equals "$status $errors" '0 '
check 'pair again changes nothing' equals "$(world)" "$made"
capture "$softroce" status --json
check 'status --json' contains "$output" '"host":"b","address":"10.0.0.2","address6":"fd00:aa::2","netdev":"v_b","device":"rxe_b","port":1,"gid_index":'
capture "$softroce" exec b -- sh -c 'cat; echo e >&2; exit 7' <<<'in and out'
check 'exec: status, input, output' equals "$status $output $errors" '7 in and out e'
capture "$softroce" exec a -- nothing-like-this
check 'exec: not found' equals "$status" 127
capture "$softroce" exec a -- busybox ping -c 1 -W 5 10.0.0.2
check 'a reaches b over IPv4' equals "$status" 0
capture "$softroce" exec b -- busybox ping -c 1 -W 5 fd00:aa::1
check 'b reaches a over IPv6' equals "$status" 0
capture "$softroce" exec a -- ibv_devinfo -d rxe_a
check 'path MTU 4096' contains "$output" 'active_mtu:		4096'

gid() { "$softroce" status --json | sed "s/.*\"device\":\"$1\",\"port\":1,\"gid_index\":\([0-9]*\).*/\1/"; }
sent=$(counter rxe_a sent_pkts) received=$(counter rxe_b rcvd_pkts)
"$softroce" exec b -- timeout 60 ib_send_bw -d rxe_b -x "$(gid rxe_b)" -F -s 65536 -n 200 >/tmp/server 2>&1 &
server=$!
listening() { "$softroce" exec b -- ss -Hltn 'sport = :18515' | grep -q .; }
check 'ib_send_bw listens' within 20 listening
capture "$softroce" exec a -- timeout 60 ib_send_bw -d rxe_a -x "$(gid rxe_a)" -F -s 65536 -n 200 10.0.0.2
check 'ib_send_bw from a to b' equals "$status" 0
rc=0
wait "$server" || rc=$?
check 'ib_send_bw, the other end' equals "$rc" 0
# 200 messages of 64 KiB in packets of 4 KiB.
check 'its packets left rxe_a' test $(($(counter rxe_a sent_pkts) - sent)) -ge 3200
check 'and came to rxe_b' test $(($(counter rxe_b rcvd_pkts) - received)) -ge 3200

# Somebody is still inside, and something of somebody else's is there.
ip link add other type dummy
theirs=$(ip -o link show other | cut -d: -f2)
ip netns exec a sleep 1000 &
sleeper=$!
capture "$softroce" down
check 'down' equals "$status" 0
check 'down leaves nothing of its own' equals "$(world | grep -v other)" "$before"
check 'down leaves what others made' equals "$(ip -o link show other | cut -d: -f2)" "$theirs"
kill "$sleeper"
capture "$softroce" down
check 'down again' equals "$status $errors" '0 '

capture "$softroce" pair --mtu 1500
check 'pair --mtu 1500' contains "$status $("$softroce" exec a -- ibv_devinfo -d rxe_a)" 'active_mtu:		1024'
capture "$softroce" pair --mtu 4200
check 'another MTU makes another pair' contains "$("$softroce" status)" 'MTU 4200'
capture "$softroce" up --netdev other
check 'up on a network device' test -e /sys/class/infiniband/rxe_other
capture "$softroce" down
check 'down removes that too' fails test -e /sys/class/infiniband/rxe_other
verdict
