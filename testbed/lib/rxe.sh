# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # me is set, and faults used, by the scripts that source this
# What softroce and faults know about rxe devices and the pair's two hosts.

# ip, tc and modprobe may be there, which not every user has on the path.
PATH=$PATH:/usr/sbin:/sbin

# state is softroce's record of what it made, one line each, written before it is
# made, so that "down" finds it after a kill at any point: netns NAME, rxe NAME,
# mtu N, rails N, whole.
state=/run/rdmaxfer-softroce

# faults is what testbed/faults has in force. What it did to a pair goes with that.
faults=/run/rdmaxfer-faults

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

# What the pair has is called by its end: the host, and a number from the second rail on.
# rxe_a2 is host a's second device, v_a2 the network device under it.
declare -A address=([a]=10.0.0.1 [b]=10.0.0.2 [a2]=10.0.1.1 [b2]=10.0.1.2
  [a3]=10.0.2.1 [b3]=10.0.2.2 [a4]=10.0.3.1 [b4]=10.0.3.2)
declare -A address6=([a]=fd00:aa::1 [b]=fd00:aa::2 [a2]=fd00:ab::1 [b2]=fd00:ab::2
  [a3]=fd00:ac::1 [b3]=fd00:ac::2 [a4]=fd00:ad::1 [b4]=fd00:ad::2)

# recorded_value WORD prints what the record's line of that word says.
recorded_value() {
  local word value
  [[ -e $state ]] || return 1
  while read -r word value; do
    [[ $word != "$1" ]] || { echo "$value" && return; }
  done <"$state"
  return 1
}

# ends RAILS prints the ends of a pair of so many rails, rail by rail.
ends() {
  local n
  echo a b
  for ((n = 2; n <= $1; n++)); do echo "a$n b$n"; done
}

require_root() {
  ((EUID == 0)) || die 1 "needs root" "mend: sudo $me ..., or testbed/vm --pair -- CMD, which needs none"
}

require_tools() {
  need ip iproute2
  need rdma iproute2
  need modprobe kmod
}

# "rdma link add", which makes devices, is what 5.1 brought.
require_kernel_for_rxe() {
  local major minor release
  release=$(uname -r)
  IFS=. read -r major minor _ <<<"$release"
  ((major > 5 || (major == 5 && ${minor%%[!0-9]*} >= 1))) ||
    die 1 "kernel $release: rxe devices can be made so from 5.1 on" "mend: boot a newer kernel, or testbed/vm -- CMD"
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

# load_rxe MODULE... loads those and what any rxe needs. crc32_generic is only
# there, and needed, in 6.x.
load_rxe() {
  modprobe -q crc32_generic || true
  load_modules rdma_rxe ib_uverbs rdma_ucm "$@"
}

# lock_state keeps two runs from making the same thing; held until we exit.
# The directory itself is locked: a lock file would be left behind.
lock_state() {
  exec {state_lock}<"${state%/*}"
  flock -w 60 "$state_lock" || die 1 "another testbed/softroce or testbed/faults has been at work for a minute"
}

remove_rxe() {
  [[ ! -e /sys/class/infiniband/$1 ]] || rdma link delete "$1"
}

# add_rxe END makes the end's device, await_rxe END waits until it is usable.
add_rxe() { ip netns exec "${1%[2-4]}" rdma link add "rxe_$1" type rxe netdev "v_$1"; }

await_rxe() {
  await_link "$1"
  await_gid "rxe_$1" "${address[$1]}"
  await_gid "rxe_$1" "${address6[$1]}"
}

require_pair() {
  recorded whole || die 1 "there is no pair" "mend: testbed/softroce pair"
}

# await_link END: a link whose other end came up later carries packets only when
# the kernel's link watcher, which takes its time, has seen that.
await_link() {
  local deadline=$((SECONDS + 20))
  until [[ $(ip -n "${1%[2-4]}" -o link show "v_$1") == *' state UP '* ]]; do
    ((SECONDS < deadline)) || die 1 "v_$1 is not up after 20 s" "see: ip -n ${1%[2-4]} link"
    sleep 0.02
  done
}

# gid_of ADDRESS prints the GID of an address as sysfs writes it.
gid_of() {
  local o word head tail=() gid=''
  if [[ $1 == *.* ]]; then
    IFS=. read -ra o <<<"$1"
    printf '0000:0000:0000:0000:0000:ffff:%02x%02x:%02x%02x\n' "${o[@]}"
    return
  fi
  # "::" stands for as many zero words as are missing of eight.
  IFS=: read -ra head <<<"${1%%::*}"
  [[ $1 != *::* ]] || IFS=: read -ra tail <<<"${1#*::}"
  while ((${#head[@]} + ${#tail[@]} < 8)); do head+=(0); done
  for word in "${head[@]}" "${tail[@]}"; do
    printf -v word '%04x' "0x$word"
    gid+=:$word
  done
  echo "${gid:1}"
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

# netdev_addresses NETDEV prints those that are usable: a tentative one may yet
# turn out to be somebody else's.
netdev_addresses() {
  ip -o addr show dev "$1" | awk '/ tentative| dadfailed/ { next } { sub("/.*", "", $4); print $4 }'
}

# require_addresses NETDEV: a device on any other could be made, and not be used.
require_addresses() {
  [[ $(ip -o link show dev "$1") =~ [,\<]UP[,\>] ]] || die 1 "$1 is down" "mend: ip link set $1 up"
  [[ -n $(ip -o addr show dev "$1") ]] || die 1 "$1 has no address" "mend: ip addr add ADDRESS/LENGTH dev $1"
}

# await_up NETDEV waits until the device that "up" made on it is usable: the port
# is active, and each address of the netdev is a GID.
await_up() {
  local device=rxe_$1 deadline=$((SECONDS + 20)) one
  while [[ $(ip -o addr show dev "$1") == *' tentative'* || $(port_state "$device") != ACTIVE ]]; do
    ((SECONDS < deadline)) || die 1 "$1 is not usable after 20 s: it has no carrier, or its address is not settled" "see: ip addr show dev $1"
    sleep 0.02
  done
  for one in $(netdev_addresses "$1"); do await_gid "$device" "$one"; done
}

port_state() {
  local state
  read -r state <"/sys/class/infiniband/$1/ports/1/state" && echo "${state#*: }"
}
