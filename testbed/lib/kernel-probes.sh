#!/usr/bin/env bash
# Runs on host a of testbed/vm --two (see testbed/kernels): finds out by trying
# what this kernel can do, and prints a line "feature<TAB>answer" for each.
# Nothing here looks at the kernel's version.
# shellcheck disable=SC2016 # backticks are Markdown's
set -euo pipefail
testbed=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=check.sh
source "$testbed/lib/check.sh"
# shellcheck source=strangers.sh
source "$testbed/lib/strangers.sh"
PATH=$PATH:/usr/sbin:/sbin
log=/tmp/probes # what the programs said

answer() { printf '%s\t%s\n' "$1" "$2"; }
# tried FEATURE COMMAND...: whether it succeeds.
tried() {
  local feature=$1 result=no
  shift
  echo "== $feature: $*" >>$log
  ! "$@" </dev/null >>$log 2>&1 || result=yes
  answer "$feature" "$result"
}

# netdev_up NAMESPACE NETDEV ADDRESS
netdev_up() {
  ip -n "$1" addr add "$3/24" dev "$2"
  ip -n "$1" link set "$2" up
}

# in_namespaces: RDMA between two namespaces of this one kernel.
in_namespaces() {
  local gid
  modprobe veth
  ip netns add n1 && ip netns add n2
  ip link add w1 netns n1 mtu 4200 type veth peer name w2 netns n2 mtu 4200
  netdev_up n1 w1 10.1.0.1
  netdev_up n2 w2 10.1.0.2
  ip netns exec n1 rdma link add rxe_n1 type rxe netdev w1 || return
  ip netns exec n2 rdma link add rxe_n2 type rxe netdev w2 || return
  gid=0000:0000:0000:0000:0000:ffff:0a01:0002
  within 10 grep -qx "$gid" /sys/class/infiniband/rxe_n2/ports/1/gids/1 || return
  ip netns exec n2 timeout 10 ibv_rc_pingpong -d rxe_n2 -g 1 -n 10 -e &
  within 8 listening n2 || return
  ip netns exec n1 timeout 8 ibv_rc_pingpong -d rxe_n1 -g 1 -n 10 -e 10.1.0.2 || return
  wait "$!"
}
listening() { ss -N "$1" -Hltn 'sport = :18515' | grep -q .; }

undo_namespaces() {
  local device
  for device in rxe_n1 rxe_n2; do
    [[ ! -e /sys/class/infiniband/$device ]] || rdma link delete $device
  done
  ip netns del n1 && ip netns del n2
}

# moved: the other way to give a namespace a device; it needs exclusive mode.
moved() {
  rdma system set netns exclusive || return
  ip netns add n3
  local rc=0
  rdma dev set rxe_a netns n3 || rc=$?
  if ((rc == 0)); then
    ip netns exec n3 rdma dev show rxe_a || rc=$?
    ip netns exec n3 rdma dev set rxe_a netns 1 || true
  fi
  ip netns del n3
  within 5 test -e /sys/class/infiniband/rxe_a || true
  rdma system set netns shared || true
  return "$rc"
}

# removable: a device goes although a program has it open, rather than waiting.
removable() {
  local user remover rc=0
  timeout 30 ibv_rc_pingpong -d rxe_a -g 1 &
  user=$!
  # It listens when it has the device open.
  within 10 bash -c 'ss -Hltn "sport = :18515" | grep -q .' || return
  rdma link delete rxe_a &
  remover=$!
  within 5 test ! -e /sys/class/infiniband/rxe_a || rc=1
  # That it went on without it is no use if the remover waits.
  ((rc)) || within 5 fails kill -0 "$remover" 2>/dev/null || rc=1
  kill "$user" 2>/dev/null || true
  wait "$user" "$remover" || true
  return "$rc"
}

echo "release $(uname -r)" >&2
tried 'RC: `ibv_rc_pingpong`' pingpong ibv_rc_pingpong
tried 'UD: `ibv_ud_pingpong`' pingpong ibv_ud_pingpong
tried 'shared receive queue: `ibv_srq_pingpong`' pingpong ibv_srq_pingpong
tried 'XRC: `ibv_xsrq_pingpong`' pingpong ibv_xsrq_pingpong
tried 'RDMA CM: `rping`' rpings 10.0.0.2
tried 'RDMA CM over IPv6: `rping`' rpings fd00:aa::2
tried 'atomics: `ib_atomic_bw`' exchange ib_atomic_bw -d rxe_b -x 1 -F -n 5 -t 1 -- ib_atomic_bw -d rxe_a -x 1 -F -n 5 -t 1 10.0.0.2
tried 'on-demand paging: `ibv_devinfo -v`' bash -c 'ibv_devinfo -v -d rxe_a | grep -A 1 general_odp_caps | grep -w ODP_SUPPORT'
tried 'two hosts as namespaces (`--pair`)' in_namespaces
undo_namespaces >>$log 2>&1 || true
tried '`rdma dev set DEV netns NS` (exclusive mode)' moved
tried 'a device in use can be removed' removable
tried '`netem` (`faults loss`, `delay`, …)' bash -c 'modprobe sch_netem && tc qdisc add dev lo root netem loss 1%'
tried '`dm-flakey`' modprobe dm_flakey
tried '`dm-log-writes`' modprobe dm_log_writes
tried '`siw` (iWARP)' modprobe siw
# For whoever asks why.
[[ -z ${RDMAXFER_PROBES:-} ]] || sed 's/^/  /' $log >&2
