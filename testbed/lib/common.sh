# shellcheck shell=bash
# Words that every testbed script shares: messages, mends, the cache directory.

# me is what messages are signed with; a script sets it before it sources this.
: "${me:=testbed}"
verbose=${verbose:-0}

say() { printf '%s: %s\n' "$me" "$*" >&2; }
note() { ((verbose == 0)) || say "$(since_start) s: $*"; }
started=$EPOCHREALTIME
since_start() { awk -v to="${EPOCHREALTIME/,/.}" -v from="${started/,/.}" 'BEGIN { printf "%.1f", to - from }'; }

# die CODE MESSAGE... prints each message on a line of its own and exits.
die() {
  local code=$1
  shift
  say "$1"
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit "$code"
}

usage_error() {
  die 2 "$1" "see: $me --help"
}

# need PROGRAM PACKAGE...: exits with the apt line that brings the program.
# The sbin directories are looked in too: they aren't on every user's PATH.
need() {
  local program=$1
  shift
  PATH=$PATH:/usr/sbin:/sbin command -v -- "$program" >/dev/null ||
    die 2 "$program not found" "mend: apt install $*"
}

# cache_dir prints where kernels, initramfs and probe answers are kept.
cache_dir() {
  printf '%s\n' "${RDMAXFER_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set; set RDMAXFER_CACHE}/.cache}/rdmaxfer}/testbed"
}

# with_cache_lock COMMAND... runs COMMAND holding the cache's lock, so that two
# runs never build the same thing; whoever waited looks again before building.
with_cache_lock() {
  local dir lock rc=0
  dir=$(cache_dir)
  mkdir -p "$dir" 2>/dev/null ||
    die 2 "can't create the cache directory $dir" "mend: set RDMAXFER_CACHE to a directory that is writable"
  exec {lock}>"$dir/lock" || die 2 "can't write in the cache directory $dir" "mend: set RDMAXFER_CACHE"
  if ! flock -n "$lock"; then
    note "another run is building in $dir, waiting for it"
    flock "$lock"
  fi
  "$@" || rc=$?
  exec {lock}>&-
  return "$rc"
}

# kernel_can_pair RELEASE: rxe receives in network namespaces other than the first
# from 7.1 on; before, a device there is made without complaint and gets no packet.
kernel_can_pair() {
  local major minor
  IFS=. read -r major minor _ <<<"$1"
  minor=${minor%%[!0-9]*}
  ((major > 7 || (major == 7 && minor >= 1)))
}

cannot_pair() {
  echo "kernel $1: rxe works in network namespaces from 7.1 on, so two hosts on one kernel can't be made"
}
