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

# one_of VALUE CHOICE...
one_of() {
  local choice
  for choice in "${@:2}"; do [[ $1 != "$choice" ]] || return 0; done
  return 1
}

# mends: what brings a module, by distribution and kernel.
mends() {
  local id place release want
  # shellcheck source=modules.sh
  source "$testbed/lib/modules.sh"
  while read -r id place release want; do
    check "mend: $id $place $release" contains "$(module_mend rdma_rxe "$release" "$id" "$place")" "$want"
  done <<'MENDS'
debian whole 6.1.0-50-amd64 --reinstall linux-image-6.1.0-50-amd64,
debian none 6.12.107+deb13-amd64 apt install linux-image-6.12.107+deb13-amd64,
debian without 6.12.107+deb13-cloud-amd64 Debian's cloud kernel (6.12.107+deb13-cloud-amd64) has no rdma_rxe
debian whole 6.1.0-50-cloud-arm64 apt install linux-image-arm64 and boot that
ubuntu whole 6.8.0-45-generic apt install linux-modules-extra-6.8.0-45-generic,
ubuntu whole 6.14.0-1015-aws apt install linux-modules-extra-6.14.0-1015-aws,
ubuntu none 6.8.0-45-generic apt install linux-modules-6.8.0-45-generic linux-modules-extra-6.8.0-45-generic,
ubuntu without 6.11.0-1018-azure Ubuntu's kernel for this cloud (6.11.0-1018-azure) has no rdma_rxe
ubuntu whole 5.15.0-1040-kvm apt install linux-image-generic and boot that
fedora whole 6.15.4-200.fc42.x86_64 testbed/vm -- CMD
MENDS
}

# devices prints their names in one line.
devices() { (cd /sys/class/infiniband && echo *); }
counter() { cat "/sys/class/infiniband/$1/ports/1/hw_counters/$2"; }

# shellcheck disable=SC2016 # expanded by that shell
capture unshare --mount sh -c 'mount -t tmpfs none /lib/modules && exec "$0" pair' "$softroce"
check 'no modules: the mend' contains "$status $errors" '1 testbed/softroce: the running kernel'
check 'no modules: nothing is left' equals "$(ls /run/rdmaxfer* 2>/dev/null)" ''
capture env PATH=/nowhere "$BASH" "$softroce" pair
check 'no rdma tool: the mend' contains "$status $errors" '2 testbed/softroce: rdma not found
  mend: apt install iproute2'
modprobe -a rdma_rxe ib_uverbs rdma_ucm veth # stay loaded; what they add to the world is not ours
before=$(world)

mends
capture "$softroce" status
check 'status: no pair' equals "$status" 1
for word in '--rails 5' '--rails' '--mtu 100' '--mtu x' --bogus; do
  # shellcheck disable=SC2086 # words
  capture "$softroce" pair $word
  check "usage: pair $word" contains "$status $errors" '2 testbed/softroce: '
done
capture setpriv --reuid 65534 --clear-groups "$softroce" pair
check 'not root' contains "$status $errors" '1 testbed/softroce: needs root'
capture "$softroce" exec a true
check 'exec: no pair' equals "$status" 1
check 'exec: the mend' contains "$errors" 'softroce pair'

ip netns add a
capture "$softroce" pair
check "a foreign namespace is refused" contains "$errors" 'ip netns del a'
ip netns del a
check 'and nothing is left' equals "$(world)" "$before"

# shellcheck disable=SC2016 # expanded by that shell
capture bash -c 'ip() { [[ $* != *"rdma link add rxe_b"* ]] || return 9; command ip "$@"; }
  source "$0" pair' "$softroce"
check 'pair: what fails on the way' differs "$status" 0
check 'pair: what fails on the way leaves nothing' equals "$(world)" "$before"

# step N COMMAND... runs softroce with COMMAND and kills it before its N-th ip or
# rdma command, each link of a batch being one; what that is to make is recorded,
# and not made.
step() {
  # shellcheck disable=SC2016 # expanded by that shell
  capture bash -c '
    left=$1
    step() { [[ $BASH_SUBSHELL != 0 || $((--left)) != 0 ]] || kill -KILL $$; }
    rdma() { step; command rdma "$@"; }
    ip() {
      local line
      if [[ $* != "-batch -" ]]; then step; command ip "$@"; return; fi
      while read -r -a line; do step; command ip "${line[@]}"; done
    }
    shopt -s lastpipe # the batches run in this shell, and are counted
    source "$0" "${@:2}"' "$softroce" "$@"
}

# killed_at_every_step: whatever the step, down takes away what there is; and when
# down itself is killed, the next one does.
killed_at_every_step() {
  local n wrong=''
  for ((n = 1; n < 60; n++)); do
    step "$n" pair --rails 2
    ((status == 137)) || break
    "$softroce" down || wrong+=" $n"
    [[ $(world) == "$before" ]] || wrong+=" $n"
  done
  check 'pair: killed at each of its steps, down removes it' equals "$wrong" ''
  check 'pair: there were more than 12 steps' test "$n" -gt 12
  check 'pair: a last step, after which it is whole' equals "$status" 0
  wrong=''
  for ((n = 1; n < 30; n++)); do
    "$softroce" pair >/dev/null
    step "$n" down
    ((status == 137)) || break
    "$softroce" down || wrong+=" $n"
    [[ $(world) == "$before" ]] || wrong+=" $n"
  done
  check 'down: killed at each of its steps, down finishes it' equals "$wrong" ''
  check 'down: there were more than 4 steps' test "$n" -gt 4
  check 'down: a last step, after which nothing is left' equals "$(world)" "$before"
}
killed_at_every_step

# Two at once: one waits for the other.
pids=() rcs=''
for _ in 1 2 3; do
  "$softroce" pair --rails 2 2>/tmp/errors &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" && rcs+=0 || rcs+=1; done
check 'three pairs at once' equals "$rcs $(devices)" '000 rxe_a rxe_a2 rxe_b rxe_b2'
capture "$softroce" status
check 'three pairs at once: it is whole' equals "$status" 0
"$softroce" pair &
pids=($!)
"$softroce" down
wait "${pids[@]}"
rc=0
"$softroce" status >/dev/null || rc=$?
check 'pair and down at once: one or the other' one_of "$rc $(devices)" '0 rxe_a rxe_b' '1 *'
"$softroce" down
check 'pair and down at once: nothing is left' equals "$(world)" "$before"

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

capture "$softroce" pair --mtu 1500 --rails 2
for end in a a2 b b2; do
  check "pair --mtu 1500 --rails 2: rxe_$end" contains "$status $(ibv_devinfo -d "rxe_$end")" 'active_mtu:		1024'
done
capture "$softroce" exec a -- busybox ping -c 1 -W 5 10.0.1.2
check 'the second rail, IPv4' equals "$status" 0
capture "$softroce" exec b -- busybox ping -c 1 -W 5 fd00:ab::1
check 'the second rail, IPv6' equals "$status" 0
capture "$softroce" status --json
check 'status --json: the second rail' contains "$output" '"host":"b","address":"10.0.1.2","address6":"fd00:ab::2","netdev":"v_b2","device":"rxe_b2","port":1,"gid_index":'
# The demo takes it as it is. That the program is none ends it once it has.
mkdir -p "$testbed/../bin"
printf '#!/bin/sh\nexit 1\n' >"$testbed/../bin/rdmaxfer"
chmod +x "$testbed/../bin/rdmaxfer"
made=$(world && "$softroce" status)
capture "$testbed/demo" "$testbed/demo"
check "demo: a pair of the user's own is left as it is" equals "$(world && "$softroce" status)" "$made"
# On a device of the machine's own, whose first address may be one that nobody can connect to
# by itself.
cat >"$testbed/../bin/rdmaxfer" <<'FAKE'
#!/bin/sh
case $1 in
  devices) echo 'rxe_a 1 ACTIVE 4096 10 v_a 0 RoCE fe80::1 yes' ;;
  recv) echo listening ;;
  send) echo "$@" >/tmp/sent && exit 1 ;;
esac
FAKE
capture "$testbed/demo" "$testbed/demo"
check 'demo: a device of its own is found by any address' contains "$(cat /tmp/sent)" ' 127.0.0.1'
capture "$softroce" pair --rails 4
check 'four rails' equals "$(devices)" 'rxe_a rxe_a2 rxe_a3 rxe_a4 rxe_b rxe_b2 rxe_b3 rxe_b4'
capture "$softroce" exec a -- busybox ping -c 1 -W 5 10.0.3.2
check 'the fourth rail' equals "$status" 0
check 'status: the fourth rail' contains "$("$softroce" status)" 'b: 10.0.3.2 fd00:ad::2, device rxe_b4 port 1 gid '
capture "$softroce" pair --mtu 4200
check 'another MTU makes another pair' contains "$("$softroce" status)" 'MTU 4200'
check 'and another number of rails' equals "$(devices)" 'rxe_a rxe_b'

capture "$softroce" up --netdev other
check 'up: a netdev that is down' contains "$status $errors" 'mend: ip link set other up'
ip link set other addrgenmode none
ip link set other up
capture "$softroce" up --netdev other
check 'up: a netdev without an address' contains "$status $errors" 'mend: ip addr add'
capture "$softroce" up --netdev nowhere
check 'up: no such netdev' equals "$status" 1
ip addr add 10.9.0.1/24 dev other
ip addr add fd09::9/64 dev other
capture "$softroce" up --netdev other
check 'up' equals "$status $errors" '0 '
capture "$softroce" status
check 'up: IPv4 is usable when it is done' contains "$output" '10.9.0.1 gid '
check 'up: IPv6 too' contains "$output" 'fd09::9 gid '
capture "$softroce" up --netdev other
check 'up again' equals "$status $errors" '0 '
capture "$softroce" down
check 'down removes that too' equals "$(devices)" '*'
rdma link add rxe_b2 type rxe netdev other
capture "$softroce" pair
check 'a foreign device is refused' contains "$status $errors" 'mend: rdma link delete rxe_b2'
check 'and stays' equals "$(devices)" rxe_b2
verdict
