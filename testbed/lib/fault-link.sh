# shellcheck shell=bash
# shellcheck disable=SC2154 # faults, verb: set by testbed/faults, which sources this
# Faults of the links and devices of the pair. An end is what rxe.sh calls so: a,
# b, and with two rails a2, b2.

# link_options ARG... sets from (a, b or ""), rail (1, 2 or "") and words, the rest.
link_options() {
  from='' rail='' words=()
  while (($# > 0)); do
    case $1 in
      --from | --rail)
        (($# > 1)) || usage_error "$verb: $1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
      -*) usage_error "$verb: unknown option $1" ;;
      *) words+=("$1") ;;
    esac
    shift
  done
  [[ $from == @(|a|b) ]] || usage_error "$verb: --from $from: a or b"
  [[ $rail == @(|[1-4]) ]] || usage_error "$verb: --rail $rail: 1 to 4"
}

# chosen_ends [HOST] prints the pair's ends that --rail leaves, of that host or of both.
chosen_ends() {
  local end rails
  rails=$(recorded_value rails)
  [[ ${rail:-1} -le $rails ]] ||
    die 2 "$verb: the pair has no rail $rail" "mend: testbed/softroce pair --rails $rail"
  for end in $(ends "$rails"); do
    [[ -z ${1:-} || ${end%[2-4]} == "$1" ]] || continue
    [[ -n $rail && ${end:1} != "${rail/#1/}" ]] || echo "$end"
  done
}

# set_netem END makes the end's outgoing queue what its files say: one file a kind,
# holding its arguments. The limit is far above what a window has in flight: a short
# queue would be a fault too.
set_netem() {
  local end=$1 file words=()
  for file in "$faults/netem/$end"/*; do
    # shellcheck disable=SC2207 # words, as they were given
    [[ ! -e $file ]] || words+=("${file##*/}" $(<"$file"))
  done
  if ((${#words[@]} == 0)); then
    tc -n "${end%[2-4]}" qdisc del dev "v_$end" root 2>/dev/null || true
    return
  fi
  tc -n "${end%[2-4]}" qdisc replace dev "v_$end" root netem limit 1000000 "${words[@]}"
}

# want_amount KIND WORD...: what tc would refuse, or take for something else.
want_amount() {
  local kind=$1 percent='^[0-9]+(\.[0-9]+)?%$' time='^[0-9]+(\.[0-9]+)?(us|ms|s)$' rate='^[0-9]+(\.[0-9]+)?[kmg]?bit$' good=0
  shift
  case $kind:$# in
    delay:1) [[ $1 =~ $time ]] && good=1 ;;
    delay:2) [[ $1 =~ $time && $2 =~ $time ]] && good=1 ;;
    rate:1) [[ $1 =~ $rate ]] && good=1 ;;
    rate:* | delay:*) ;;
    *:1) [[ $1 =~ $percent && ${1%%[.%]*} -le 100 ]] && good=1 ;;
  esac
  ((good)) && return
  case $kind in
    delay) usage_error "delay '$*': a time like 5ms, and perhaps its jitter, like 1ms" ;;
    rate) usage_error "rate '$*': a rate like 100mbit" ;;
    *) usage_error "$kind '$*': a percentage like 2%" ;;
  esac
}

netem() {
  local kind=$1 end from rail words
  shift
  link_options "$@"
  want_amount "$kind" "${words[@]}"
  local chosen
  chosen=$(chosen_ends "$from") || exit
  for end in $chosen; do
    [[ $kind != reorder || -e $faults/netem/$end/delay ]] ||
      die 2 "reorder: nothing is late, so nothing can overtake" "mend: testbed/faults delay 5ms, first"
  done
  load_modules sch_netem
  for end in $chosen; do
    mkdir -p "$faults/netem/$end"
    echo "${words[*]}" >"$faults/netem/$end/$kind"
    if ! set_netem "$end"; then
      rm -f -- "$faults/netem/$end/$kind"
      die 1 "$kind ${words[*]}: refused (above: why)" "mend: testbed/faults netem-off"
    fi
  done
}

netem_off() {
  local end
  for end in $(chosen_ends); do
    rm -rf -- "$faults/netem/$end"
    set_netem "$end"
  done
}

# cut_rdma: tc comes with iproute2, which is needed anyway; nft or iptables may
# not be there. Dropped where it arrives: a drop where it is sent is an error to
# rxe, which breaks the queue pair (the connection manager's own among them) as no
# network would.
cut_rdma() { rdma_filter act_gact 'drop'; }

# frames BYTES: longer packets of RDMA are dropped, as by a switch that has no jumbo
# frames. The rate is one that nobody reaches.
frames() { rdma_filter act_police "police rate 10gbit burst 100m mtu $1 conform-exceed drop/pipe"; }

# rdma_filter MODULE ACTION does that to the RDMA packets which arrive at the chosen ends;
# with --from a host, to those that it sends.
rdma_filter() {
  local end to=''
  [[ $from != a ]] || to=b
  [[ $from != b ]] || to=a
  load_modules sch_ingress cls_u32 "$1"
  for end in $(chosen_ends "$to"); do
    tc -n "${end%[2-4]}" qdisc replace dev "v_$end" clsact
    tc -n "${end%[2-4]}" -batch - <<BATCH
filter replace dev v_$end ingress protocol ip pref 4791 handle 800::1 u32 match ip protocol 17 0xff match ip dport 4791 0xffff action $2
filter replace dev v_$end ingress protocol ipv6 pref 4792 handle 801::1 u32 match ip6 protocol 17 0xff match ip6 dport 4791 0xffff action $2
BATCH
  done
}

heal() {
  local end
  for end in $(chosen_ends); do
    tc -n "${end%[2-4]}" qdisc del dev "v_$end" clsact 2>/dev/null || true
  done
}

link_down() {
  local end
  for end in $(chosen_ends "$1"); do ip -n "${end%[2-4]}" link set "v_$end" down; done
}

link_up() {
  local end
  for end in $(chosen_ends); do ip -n "${end%[2-4]}" link set "v_$end" up; done
  for end in $(chosen_ends); do
    # With the addresses come the device's GIDs back.
    if [[ -e /sys/class/infiniband/rxe_$end ]]; then await_rxe "$end"; else await_link "$end"; fi
    # A search for the neighbour that began while it was down would end in
    # failure, and take new packets with it.
    ip -n "${end%[2-4]}" neigh flush dev "v_$end"
  done
}

remove_device() {
  local end
  for end in $(chosen_ends "$1"); do remove_rxe "rxe_$end"; done
}

restore_device() {
  local end
  for end in $(chosen_ends "$1"); do
    [[ -e /sys/class/infiniband/rxe_$end ]] || add_rxe "$end"
    await_rxe "$end"
  done
}

link_status() {
  local end
  for end in $(chosen_ends); do
    [[ -e /sys/class/infiniband/rxe_$end ]] || echo "rxe_$end: removed"
    [[ $(ip -n "${end%[2-4]}" -o link show "v_$end") == *',UP'* ]] || echo "v_$end: down"
    tc -n "${end%[2-4]}" qdisc show dev "v_$end" | sed -n "/netem/s/^/v_$end: /p"
    case $(tc -n "${end%[2-4]}" filter show dev "v_$end" ingress 2>/dev/null) in
      '') ;;
      *police*) echo "v_$end: long packets of RDMA cut" ;;
      *) echo "v_$end: RDMA cut" ;;
    esac
  done
}
