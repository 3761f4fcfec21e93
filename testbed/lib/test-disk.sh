#!/usr/bin/env bash
# Runs in a machine of any kernel, pair or not: disks with bad blocks, power cuts
# and small file systems. test-faults.sh has it run too.
set -euo pipefail
testbed=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# shellcheck source=check.sh
[[ -v passed ]] || source "$testbed/lib/check.sh"
faults=$testbed/faults

# disk_world prints what disks could leave behind.
disk_world() {
  losetup -a
  for name in /sys/block/dm-*/dm/name; do [[ ! -e $name ]] || cat "$name"; done
  grep -E '^/dev/(dm-|loop)|smallfs' /proc/mounts
  ls -d /run/rdmaxfer-faults "${TMPDIR:-/tmp}"/faults-* 2>/dev/null
  true
}

at_least() { (($1 >= $2)); }
at_most() { (($1 <= $2)); }
# written FILE counts the bytes that are not zero.
written() { tr -d '\0' <"$1" | wc -c; }
# overwrite FILE: 64 blocks, past the page cache, each a write of its own to the
# disk, and no flush.
overwrite() { head -c 256K /dev/zero | tr '\0' x | dd of="$1" bs=4k iflag=fullblock oflag=direct conv=notrunc status=none; }
count_of() { sed -n "s/.*$1: \([0-9]*\).*/\1/p" <<<"$output"; }

power_cuts() {
  local d=$1
  head -c 3M /dev/urandom >/tmp/kept
  cp /tmp/kept "$d/synced"
  head -c 256K /dev/zero >"$d/zeros"
  echo old >"$d/replaced"
  sync "$d/synced" "$d/zeros" "$d/replaced" "$d"
  head -c 1M /dev/urandom >"$d/unsynced"
  echo new >"$d/new"
  mv "$d/new" "$d/replaced"
  capture "$faults" power-cut "$d"
  check 'power-cut' equals "$status $errors" '0 '
  check 'power-cut: what was synced is whole' cmp /tmp/kept "$d/synced"
  check 'power-cut: what was not is gone' fails test -e "$d/unsynced"
  check 'power-cut: a rename without a sync is gone' equals "$(<"$d/replaced")" old

  echo data >"$d/tmp"
  mv "$d/tmp" "$d/renamed" # before its data is synced; the journal commits the name alone
  sync "$d/replaced" "$d"
  echo good >"$d/tmp"
  sync "$d/tmp"
  mv "$d/tmp" "$d/careful"
  sync "$d"
  overwrite "$d/zeros"
  exec {held}<"$d/synced"
  capture "$faults" power-cut "$d"
  check 'power-cut with a file open' equals "$status $errors" '0 '
  check 'power-cut: it counts what it forgets' at_least "$(count_of unflushed)" 64
  check 'power-cut: renamed before it was synced, the data is gone' equals "$(cat "$d/renamed")" ''
  check 'power-cut: synced, then renamed, it is there' equals "$(cat "$d/careful")" good
  check 'power-cut: direct writes without a flush are forgotten' equals "$(written "$d/zeros")" 0
  check 'power-cut: an open file is dead' fails head -c 1 <&"$held" 2>/dev/null
  exec {held}<&-

  overwrite "$d/zeros"
  capture "$faults" power-cut "$d" --reorder 7
  check 'power-cut --reorder: some survive' at_least "$(written "$d/zeros")" 4096
  check 'power-cut --reorder: not all do' at_most "$(written "$d/zeros")" $((63 * 4096))
  check 'power-cut --reorder: what was synced is whole' cmp /tmp/kept "$d/synced"
}

bad_blocks() {
  local d=$1 block
  block=$(filefrag -v "$d/synced" | awk '$1 == "0:" { print $4 + 0 }')
  capture "$faults" write-errors "$d" $((block + 1)) 2
  check 'write-errors' equals "$status $errors" '0 '
  capture dd if=/dev/zero of="$d/synced" bs=4k seek=1 count=1 conv=notrunc,fsync
  check 'write-errors: a write there fails' contains "$status $errors" 'Input/output error'
  capture dd if=/tmp/kept of="$d/synced" bs=4k count=1 conv=notrunc,fsync
  check 'write-errors: beside it none does' equals "$status" 0
  echo 1 >/proc/sys/vm/drop_caches
  check 'write-errors: reads do not fail' cmp /tmp/kept "$d/synced"
  capture "$faults" write-errors "$d" 0 2
  check 'write-errors: more of them' equals "$status" 0
  capture "$faults" status
  check 'status: the disk' contains "$output" "disk: $d, 32M on /dev/dm-"
  check 'status: its bad blocks' contains "$output" "disk: $d, writes to 2 blocks from $((block + 1)) fail"
  "$faults" write-errors-off "$d"
  check 'write-errors-off: no more of them' fails contains "$("$faults" status)" writes
  capture dd if=/dev/zero of="$d/synced" bs=4k seek=1 count=1 conv=notrunc,fsync
  check 'write-errors-off: writes pass' equals "$status" 0
}

corrupted() {
  local d=$1
  capture "$faults" corrupt-writes "$d"
  case $(uname -r) in
    [1-5].* | 6.[0-4].*)
      check 'corrupt-writes: not on an old kernel' contains "$status $errors" 'mend: Linux 6.5'
      return
      ;;
  esac
  check 'corrupt-writes' equals "$status $errors" '0 '
  check 'corrupt-writes: it is in force' contains "$("$faults" status)" "disk: $d, writes are corrupted"
  dd if=/dev/zero of="$d/rotten" bs=64k count=4 conv=fsync status=none
  check 'corrupt-writes: memory has what was written' cmp -n 262144 /dev/zero "$d/rotten"
  echo 1 >/proc/sys/vm/drop_caches
  check 'corrupt-writes: the disk has something else' fails cmp -n 262144 /dev/zero "$d/rotten"
  "$faults" corrupt-writes-off "$d"
  dd if=/dev/zero of="$d/sound" bs=64k count=4 conv=fsync status=none
  echo 1 >/proc/sys/vm/drop_caches
  check 'corrupt-writes-off: no more of it' cmp -n 262144 /dev/zero "$d/sound"
}

# refused WORD ARG...: status 2, and a word of what was wrong.
refused() {
  local word=$1
  shift
  capture "$faults" "$@"
  check "refused: $*" contains "$status $errors" "$word"
  check "refused: $*: status 2" equals "$status" 2
}

disk_refusals() {
  local d=$1
  refused '16M or more' disk /tmp/other 1M
  refused 'a size like' disk /tmp/other much
  refused 'DIR SIZE' disk /tmp/other
  refused 'a block' write-errors "$d" x
  refused '8192 blocks' write-errors "$d" 8192
  refused 'a number' power-cut "$d" --reorder x
  refused 'mend: testbed/faults disk' power-cut /tmp
  refused 'no small file system' smallfs-off /tmp
  refused 'tmpfs or ext4' smallfs /tmp/other 1M xfs
}

# not_ours DIR: what somebody else has under a name that we would take.
not_ours() {
  local theirs=${TMPDIR:-/tmp}/faults-disk
  # Replaced, the shell has the process number that testbed/faults has.
  # shellcheck disable=SC2016 # expanded by that shell
  capture sh -c 'mkdir "$0.$$" && echo theirs >"$0.$$/data" && exec "$@"' "$theirs" "$faults" disk "$1" 16M
  check 'disk: beside a directory of that name' equals "$status $errors" '0 '
  capture "$faults" disk-off "$1"
  check 'disk-off: what it did not make is still there' equals "$(cat "$theirs".*/data)" theirs
  rm -rf -- "$theirs".*
}

disks() {
  local before d=/tmp/a\ disk
  before=$(disk_world)
  capture "$faults" disk "$d" 32M
  check 'disk' equals "$status $errors" '0 '
  check 'disk: ext4 is there' equals "$(stat -f -c %T "$d")" ext2/ext3
  power_cuts "$d"
  bad_blocks "$d"
  corrupted "$d"
  disk_refusals "$d"
  exec {held}<"$d/synced"
  capture "$faults" disk-off "$d"
  check 'disk-off: in use' contains "$status $errors" 'testbed/faults: /tmp/a disk is in use'
  exec {held}<&-
  "$faults" disk-off "$d"
  check 'disk-off leaves nothing' equals "$(disk_world)" "$before"
  check 'disk-off: nor the directory that it made' fails test -e "$d"

  not_ours /tmp/disk3

  "$faults" smallfs /tmp/small 1M
  check 'smallfs is small' fails dd if=/dev/zero of=/tmp/small/file bs=1M count=2 status=none 2>/dev/null
  "$faults" smallfs-off /tmp/small
  "$faults" smallfs /tmp/small 16M ext4
  check 'smallfs ext4' equals "$(stat -f -c %T /tmp/small)" ext2/ext3
  "$faults" smallfs /tmp/small2 1M
  "$faults" disk /tmp/disk1 16M
  "$faults" disk /tmp/disk2 16M
  capture "$faults" write-errors /tmp/disk2 100
  check 'two disks' equals "$status" 0
  capture "$faults" status
  check 'status: smallfs' contains "$output" 'smallfs: /tmp/small2'
  capture "$faults" off
  check 'off' equals "$status $errors" '0 '
  check 'off undoes all of them' equals "$(disk_world)" "$before"
}

disks
[[ ${BASH_SOURCE[0]} != "$0" ]] || verdict
