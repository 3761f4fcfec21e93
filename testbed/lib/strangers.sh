# shellcheck shell=bash
# shellcheck disable=SC2154 # testbed is set by the script that sources this
# Programs that are not ours between hosts a and b, whichever way these were made.

on_a=("$testbed/softroce" exec a --) on_b=("$testbed/softroce" exec b --)

sent() { cat "/sys/class/infiniband/$1/ports/1/hw_counters/sent_pkts"; }

# exchange SERVER -- CLIENT: both must succeed, and packets leave a's device.
# A server that needs a moment is found by trying again.
exchange() {
  local server=() before deadline=$((SECONDS + 20)) pid
  while [[ $1 != -- ]]; do
    server+=("$1")
    shift
  done
  shift
  before=$(sent rxe_a)
  "${on_b[@]}" timeout 30 "${server[@]}" </dev/null &
  pid=$!
  until "${on_a[@]}" timeout 20 "$@" </dev/null; do
    if ! kill -0 "$pid" 2>/dev/null || ((SECONDS >= deadline)); then
      wait "$pid"
      return 1
    fi
  done
  wait "$pid" && (($(sent rxe_a) > before))
}

# pingpong PROGRAM: rdma-core's all take the same options.
pingpong() { exchange "$1" -d rxe_b -g 1 -n 100 -e -- "$1" -d rxe_a -g 1 -n 100 -e 10.0.0.2; }

# rpings ADDRESS-OF-B
rpings() { exchange rping -s -a "$1" -C 10 -- rping -c -a "$1" -C 10; }
