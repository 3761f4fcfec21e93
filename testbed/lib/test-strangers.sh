#!/usr/bin/env bash
# Runs in a machine with the pair (see test.sh): rdma-core's own programs. On two
# machines, and other kernels, testbed/kernels runs them.
set -euo pipefail
testbed=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=check.sh
source "$testbed/lib/check.sh"
# shellcheck source=strangers.sh
source "$testbed/lib/strangers.sh"

for program in ibv_rc_pingpong ibv_ud_pingpong ibv_srq_pingpong; do
  capture pingpong "$program"
  check "$program" equals "$status" 0
done
capture rpings 10.0.0.2
check 'rping' equals "$status" 0
capture rpings fd00:aa::2
check 'rping over IPv6' equals "$status" 0
verdict
