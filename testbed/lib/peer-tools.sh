# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # testbed/peer, which sources this, sets and uses them
# The peers' tools, a function run_FAMILY each. It starts the receiving
# end on b (serve), runs the sending one on a (client), and sets result: the JSON
# fields of what was measured.

# quotient BYTES SECONDS prints bytes a second.
quotient() { awk -v bytes="$1" -v seconds="$2" 'BEGIN { printf "%.0f", bytes / seconds }'; }

# perftest's two ends take the same options; the sending one has an address too.
run_perftest() {
  need "$tool" perftest
  local args row version unit=0
  [[ -n $size ]] || { [[ $tool == *_lat ]] && size=64 || size=65536; }
  args=(-F -p "$port" -s "$size" -n "$iterations")
  [[ $tool == *_lat ]] || args+=(-t "$depth")
  # A receiver may not have fewer requests posted than the sender has in flight.
  [[ $tool != ib_send_bw ]] || args+=(-r $((depth > 512 ? depth : 512)))
  args+=("${extra[@]}")
  serve "$tool" -d rxe_b -x "$(gid_index rxe_b 10.0.0.2)" "${args[@]}"
  await_tcp
  client "$tool" -d rxe_a -x "$(gid_index rxe_a 10.0.0.1)" "${args[@]}" 10.0.0.2
  await_server
  version=$("$tool" --version 2>&1 | sed -n 's/^Version: //p') || true # its status is 1
  # The one row that begins with our size; sizes are printed in bytes.
  row=$(awk -v size="$size" '$1 == size && NF >= 5' "$work/client" | tail -n 1)
  [[ -n $row ]] || no_result
  # Averages are printed in units of 2^20 bytes, under the label "MB/sec" by some versions and
  # "MiB/sec" by others, and with --report_gbits in 10^9 bits.
  if [[ $tool == *_bw ]]; then
    case $(grep -m 1 -oE 'BW average\[[^]]+\]' "$work/client") in
      *'[MB/sec]' | *'[MiB/sec]') unit=1048576 ;;
      *'[Gb/sec]') unit=125000000 ;;
      *) no_result ;;
    esac
  fi
  # bw: bytes iterations peak average rate.
  # lat: bytes iterations min max typical average deviation p99 p99.9
  result=$(awk -v tool="$tool" -v version="$version" -v depth="$depth" -v unit="$unit" '
    { printf "\"version\":\"%s\",\"size\":%d,\"iterations\":%d,", version, $1, $2 }
    tool ~ /_bw$/ { printf "\"depth\":%d,\"bytes\":%d,\"bytes_per_second\":%.0f", depth, $1 * $2, $4 * unit }
    tool ~ /_lat$/ {
      printf "\"microseconds_min\":%s,\"microseconds_typical\":%s,\"microseconds_average\":%s,\"microseconds_p99\":%s", $3, $5, $6, $8
    }' <<<"$row")
}

# qperf's name follows the underscore. With -cm1 the connection manager finds the
# device by its address; without, qperf takes the first device there is, which in
# the pair is the wrong one at one of the ends.
run_qperf() {
  need qperf qperf
  local test=${tool#qperf_} args value unit
  args=(-lp "$port" -t "$duration" -uu)
  [[ $test != rc_* ]] || args+=(-cm1)
  [[ -z $size ]] || args+=(-m "$size")
  serve qperf -lp "$port"
  await_tcp
  client qperf 10.0.0.2 "${args[@]}" "${extra[@]}" "$test"
  stop_server
  read -r _ _ value unit < <(grep -E '^ +(bw|latency) ' "$work/client") || no_result
  result="\"version\":\"$(qperf --version | awk '{ print $2 }')\",\"duration_seconds\":$duration,"
  case $unit in
    bytes/sec) result+="\"bytes_per_second\":$value" ;;
    ns) result+="\"microseconds_average\":$(awk -v ns="$value" 'BEGIN { printf "%.2f", ns / 1000 }')" ;;
    *) no_result ;;
  esac
}

run_iperf3() {
  need iperf3 iperf3
  local zerocopy=()
  [[ $tool != iperf3-zerocopy ]] || zerocopy=(-Z)
  serve iperf3 -s -1 -p "$port" "${extra[@]}"
  await_tcp
  client iperf3 -c 10.0.0.2 -p "$port" -t "$duration" -J "${zerocopy[@]}" "${extra[@]}"
  await_server
  # end.sum_received is the last object of that name; received is what counts.
  result=$(perl -0777 -ne '
    my ($sum) = /.*"sum_received":\s*\{(.*?)\}/s or exit 1;
    my ($bytes, $bits) = ($sum =~ /"bytes":\s*(\d+)/, $sum =~ /"bits_per_second":\s*([\d.eE+]+)/);
    my ($version) = /"version":\s*"iperf ([^"]*)"/;
    printf "\"version\":\"%s\",\"bytes\":%d,\"bytes_per_second\":%.0f", $version, $bytes, $bits / 8;' "$work/client") || no_result
}

# The movers of files have source and landed, a name that is not there yet, and
# say nothing of use about their speed: it is our clock around the sending end.

# moved compares what landed with what was sent.
moved() {
  cmp -- "$source" "$landed" >&2 || die 1 "$tool: what landed differs from what was sent"
  result="\"bytes\":$count,\"bytes_per_second\":$(quotient "$count" "$seconds")"
}

run_rcopy() {
  need rcopy rdmacm-utils
  serve rcopy -p "$port"
  # It listens on RDMA, which ss doesn't show.
  until rdma resource show cm_id | grep -q "state LISTEN .*:$port "; do
    kill -0 "$server" 2>/dev/null || server_failed
    sleep 0.02
  done
  client rcopy "$source" "10.0.0.2:$landed" -p "$port"
  stop_server
  moved
}

# By way of sh, for the files: socat's own addresses give commas and colons a meaning.
run_socat() {
  need socat socat
  # shellcheck disable=SC2016 # expanded by that shell
  serve sh -c 'exec socat -u -b 1048576 "$@" "TCP4-LISTEN:$0,reuseaddr" STDOUT >"$LANDED"' "$port" "${extra[@]}"
  await_tcp
  # shellcheck disable=SC2016
  client sh -c 'exec socat -u -b 1048576 "$@" STDIN "TCP4:10.0.0.2:$0" <"$SOURCE"' "$port" "${extra[@]}"
  await_server
  moved
}

run_rsync() {
  need rsync rsync
  printf '%s\n' 'uid = 0' 'gid = 0' 'use chroot = false' "log file = $work/rsyncd.log" \
    '[landing]' "path = ${landed%/*}" 'read only = false' >"$work/rsyncd.conf"
  serve rsync --daemon --no-detach --address 10.0.0.2 --port "$port" --config "$work/rsyncd.conf"
  await_tcp
  client rsync --whole-file "${extra[@]}" -- "$source" "rsync://10.0.0.2:$port/landing/${landed##*/}"
  stop_server
  moved
}
