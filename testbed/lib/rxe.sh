# shellcheck shell=bash
# shellcheck disable=SC2154 # me is set by the script that sources this
# What softroce and faults know about rxe devices and the pair's two hosts.

# ip, tc and modprobe may be there, which not every user has on the path.
PATH=$PATH:/usr/sbin:/sbin

# state is softroce's record of what it made, one line each, written before it is
# made, so that "down" finds it after a kill at any point: netns NAME, rxe NAME,
# mtu N, whole.
state=/run/rdmaxfer-softroce

record() { printf '%s\n' "$*" >>"$state"; }

# recorded WORDS: is this line in the record? No grep: programs are slow to start in emulation.
recorded() {
  local line
  [[ -e $state ]] || return 1
  while read -r line; do
    [[ $line != "$*" ]] || return 0
  done <"$state"
  return 1
}

# The pair's addresses, by host.
declare -A address=([a]=10.0.0.1 [b]=10.0.0.2)
declare -A address6=([a]=fd00:aa::1 [b]=fd00:aa::2)

require_root() {
  ((EUID == 0)) || die 1 "needs root" "mend: sudo $me ..., or testbed/vm --pair -- CMD, which needs none"
}

require_tools() {
  need ip iproute2
  need rdma iproute2
  need modprobe kmod
}

require_kernel_for_pair() {
  local release
  release=$(uname -r)
  kernel_can_pair "$release" || die 1 "$(cannot_pair "$release")" \
    "mend: testbed/vm --pair -- CMD, which boots kernel 7 unless told otherwise"
}

# In exclusive mode the connection manager doesn't work in a new namespace.
require_shared_mode() {
  [[ $(rdma system show) != *exclusive* ]] ||
    die 1 "RDMA is in exclusive network namespace mode" "mend: rdma system set netns shared"
}

# load_modules MODULE... loads those and what any rxe needs. They stay loaded:
# by the time of "down" somebody else may use them.
load_modules() {
  local module wanted=("$@" rdma_rxe ib_uverbs rdma_ucm)
  # All in one go, for speed; crc32_generic is only there, and needed, in 6.x.
  modprobe -qa crc32_generic "${wanted[@]}" || true
  for module in "${wanted[@]}"; do
    [[ -e /sys/module/$module ]] ||
      die 1 "this kernel ($(uname -r)) can't load the module $module" \
        "mend: apt install linux-modules-extra-$(uname -r) (Ubuntu), or use testbed/vm -- CMD"
  done
}

# lock_state keeps two runs from making the same thing; held until we exit.
# The directory itself is locked: a lock file would be left behind.
lock_state() {
  exec {state_lock}<"${state%/*}"
  flock -w 60 "$state_lock" || die 1 "another testbed/softroce has been at work for a minute"
}

remove_rxe() {
  [[ ! -e /sys/class/infiniband/$1 ]] || rdma link delete "$1"
}

# add_rxe HOST makes the host's device, await_rxe HOST waits until it is usable.
add_rxe() { ip netns exec "$1" rdma link add "rxe_$1" type rxe netdev "v_$1"; }

await_rxe() {
  await_link "$1"
  await_gid "rxe_$1" "${address[$1]}"
  await_gid "rxe_$1" "${address6[$1]}"
}

require_pair() {
  recorded whole || die 1 "there is no pair" "mend: testbed/softroce pair"
}

# await_link HOST: a link whose other end came up later carries packets only when
# the kernel's link watcher, which takes its time, has seen that.
await_link() {
  local deadline=$((SECONDS + 20))
  until [[ $(ip -n "$1" -o link show "v_$1") == *' state UP '* ]]; do
    ((SECONDS < deadline)) || die 1 "v_$1 is not up after 20 s" "see: ip -n $1 link"
    sleep 0.02
  done
}

# gid_of ADDRESS prints the GID of an address as sysfs writes it.
gid_of() {
  case $1 in
    *.*)
      local o
      IFS=. read -ra o <<<"$1"
      printf '0000:0000:0000:0000:0000:ffff:%02x%02x:%02x%02x\n' "${o[@]}"
      ;;
    fd00:aa::*) printf 'fd00:00aa:0000:0000:0000:0000:0000:%04x\n' "0x${1##*:}" ;;
  esac
}

# gid_index DEVICE ADDRESS prints the index of the address's RoCE v2 GID.
gid_index() {
  local port=/sys/class/infiniband/$1/ports/1 want gid type i=0
  want=$(gid_of "$2")
  while [[ -e $port/gids/$i ]]; do
    # Entries that are not in use can't be read: EINVAL.
    if read -r gid 2>/dev/null <"$port/gids/$i" && [[ $gid == "$want" ]] &&
      read -r type 2>/dev/null <"$port/gid_attrs/types/$i" && [[ $type == 'RoCE v2' ]]; then
      echo "$i"
      return
    fi
    # Used entries come first; the table has a thousand.
    ((i++ < 32)) || return 1
  done
  return 1
}

# await_gid DEVICE ADDRESS: the kernel fills the table from a work queue, and
# tells nobody in a way that a shell could wait on.
await_gid() {
  local deadline=$((SECONDS + 20))
  until gid_index "$1" "$2" >/dev/null; do
    ((SECONDS < deadline)) || die 1 "$1 has no RoCE v2 GID for $2 after 20 s" "see: rdma link; ip -all netns exec ip addr"
    sleep 0.02
  done
}

port_state() {
  local state
  read -r state <"/sys/class/infiniband/$1/ports/1/state" && echo "${state#*: }"
}
