#!/usr/bin/env bash
# Runs on host a of a --two with --out $1 (see test.sh): softroce on two machines.
set -euo pipefail
testbed=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=check.sh
source "$testbed/lib/check.sh"
softroce=$testbed/softroce
out=$1

capture "$softroce" status
check 'status: both hosts' equals "$status $(grep -c 'a machine of its own' <<<"$output")" '0 2'
capture "$softroce" status --json
check 'status --json' contains "$output" '"host":"b","address":"10.0.0.2","address6":"fd00:aa::2","netdev":"v_b","device":"rxe_b","port":1,"gid_index":'
check 'we are a' equals "$(hostname) $("$softroce" exec a -- hostname)" 'a a'

export ASKED=$'two\nlines'
# shellcheck disable=SC2016 # expanded there
capture "$softroce" exec b -- sh -c '
  printf "[%s]" "$@"; echo "$ASKED"; pwd; hostname; cat; echo errors >&2; exit 7' it 'a b' '' '*' <<<'the input'
check 'exec b: status' equals "$status" 7
check 'exec b: arguments, environment, directory, host, input' equals "$output" "[a b][][*]$ASKED"$'\n'"$PWD"$'\nb\nthe input'
check 'exec b: error output is apart' equals "$errors" errors
capture "$softroce" exec b -- nothing-like-this
check 'exec b: not found' equals "$status" 127
# shellcheck disable=SC2016 # expanded there
capture "$softroce" exec b -- sh -c 'kill -USR1 $$'
check 'exec b: ended by a signal' equals "$status" $((128 + 10))
head -c 5000000 /dev/urandom >/tmp/bytes
check 'exec b: every byte, both ways' cmp /tmp/bytes <("$softroce" exec b -- cat </tmp/bytes)

mkfifo /tmp/stalled
"$softroce" exec b -- sh -c 'echo $$; exec yes' >/tmp/stalled &
stalled=$!
exec {reader}</tmp/stalled
read -r -u "$reader" yes
capture timeout 20 "$softroce" exec b -- echo passed
check 'a reader who stalls stalls nobody else' equals "$output" passed
kill -KILL "$stalled"
gone() { ! "$softroce" exec b -- test -e "/proc/$1"; }
check 'a killed exec takes its command along' within 20 gone "$yes"
exec {reader}<&-

"$softroce" exec b -- sh -c 'trap "exit 9" TERM; echo up; while :; do busybox sleep 0.1; done' >/tmp/trapped &
trapped=$!
within 20 grep -qs up /tmp/trapped
kill "$trapped"
rc=0
wait "$trapped" || rc=$?
check 'TERM is passed on' equals "$rc" 9
capture timeout 20 "$softroce" exec b -- sh -c 'sleep 1000 >&2 & echo done'
check 'what it leaves running is not waited for' equals "$status $output" '0 done'

echo a >/tmp/mine
check 'a write is seen by its machine alone' equals "$("$softroce" exec b -- cat /tmp/mine 2>/dev/null || echo none)" none
"$softroce" exec b -- sh -c "echo b >'$out/shared'"
check '--out is shared' equals "$(cat "$out/shared")" b

for device in rxe_a rxe_b; do
  capture "$softroce" exec "${device#rxe_}" -- ibv_devinfo
  check "$device alone, path MTU 4096" equals \
    "$(awk '/hca_id|active_mtu/ { print $2 }' <<<"$output" | tr '\n' ' ')" "$device 4096 "
done
capture busybox ping -c 1 -W 5 10.0.0.2
check 'a reaches b over IPv4' equals "$status" 0
capture "$softroce" exec b -- busybox ping -c 1 -W 5 fd00:aa::1
check 'b reaches a over IPv6' equals "$status" 0
ip link set v_a down
capture busybox ping -c 1 -W 1 10.0.0.2
check 'the link is down' equals "$status" 1
check 'exec b passes all the same' equals "$("$softroce" exec b -- hostname)" b
verdict
