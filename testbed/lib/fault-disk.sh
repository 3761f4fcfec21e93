# shellcheck shell=bash
# shellcheck disable=SC2154 # faults, me: set by testbed/faults, which sources this
# Faults of files: small file systems, blocks that can't be written, power cuts.
#
# A disk is a stack, from below: an image file and a log file, a loop device each;
# the device-mapper target log-writes, which writes to both; a linear device, the
# one that is mounted, in which write-errors puts bad ranges. $faults/disk/N says
# what there is, written before it is made, but for work: what we did not make is not
# ours to remove.
#   dir    where it is mounted      size   its bytes
#   work   directory of its images  made   there if we made DIR
#   bad    ranges of bad blocks     cuts   how often the power was cut
#   rotten there if what is written gets wrong bytes
# The device's names carry the number of cuts: a program that still holds a file
# keeps the old one, which goes when the program lets go.

disk_block=4096

# node NAME prints the device file of a device-mapper device.
node() {
  local file
  for file in /sys/block/dm-*/dm/name; do
    [[ -e $file && $(<"$file") == "$1" ]] || continue
    file=${file%/dm/name}
    echo "/dev/${file##*/}"
    return
  done
  return 1
}

# disk_of DIR prints the number of the disk that is mounted there.
disk_of() {
  local dir=$1 file
  dir=$(readlink -f -- "$dir") || dir=$1
  for file in "$faults"/disk/*/dir; do
    [[ ! -e $file || $(<"$file") != "$dir" ]] || {
      file=${file%/dir}
      echo "${file##*/}"
      return
    }
  done
  die 2 "no disk of ours at $1" "mend: testbed/faults disk $1 SIZE"
}

# disk_name N prints the name of its upper device, of this or an earlier power cut.
disk_name() { echo "faults-$1.$(<"$faults/disk/$1/cuts")"; }

disk_needs() {
  need mkfs.ext4 e2fsprogs
  need dmsetup dmsetup
  need losetup mount
  need perl perl-base
  load_modules loop dm_mod dm_log_writes dm_delay ext4
}

# disk DIR SIZE. The images are sparse; the log can take eight times the disk.
disk() {
  local dir=$1 size n=0 home work
  size=$(numfmt --from=iec -- "$2" 2>/dev/null) || usage_error "disk: a size like 64M, not '$2'"
  size=$((size / disk_block * disk_block))
  ((size >= 16 << 20)) || usage_error "disk: $2 is too small for ext4 with a journal: 16M or more"
  disk_needs
  ! mountpoint -q -- "$dir" || die 1 "disk: something is mounted on $dir" "mend: name another directory"
  while [[ -e $faults/disk/$n ]]; do n=$((n + 1)); done
  home=$faults/disk/$n
  mkdir -p "$home"
  : >"$home/bad"
  echo 0 >"$home/cuts"
  echo "$size" >"$home/size"
  if [[ ! -e $dir ]]; then
    : >"$home/made"
    mkdir -p -- "$dir"
  fi
  dir=$(readlink -f -- "$dir")
  echo "$dir" >"$home/dir"
  if ! work=$(mktemp -d "${TMPDIR:-/tmp}/faults-disk.XXXXXX") || ! echo "$work" >"$home/work" ||
    ! make_base "$work" "$size" || ! raise_disk "$n"; then
    disk_off "$n"
    tidy
    die 1 "disk $dir: can't be made (above: why)" "mend: a TMPDIR with space, on a file system that loop devices work on"
  fi
}

# make_base WORK SIZE makes the new file system. All of that is written now: nothing is to
# come later and be lost.
make_base() {
  truncate -s "$2" "$1/base" &&
    mkfs.ext4 -q -F -m 0 -b "$disk_block" -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$1/base"
}

# raise_disk N builds the stack on its base and mounts it.
raise_disk() {
  local home=$faults/disk/$1 name work size data log
  name=$(disk_name "$1") work=$(<"$home/work") size=$(<"$home/size")
  cp --sparse=always -- "$work/base" "$work/data" || return
  rm -f -- "$work/log"
  truncate -s $((8 * size + (64 << 20))) "$work/log" || return
  data=$(losetup -f --show "$work/data") || return
  log=$(losetup -f --show "$work/log") || return
  dmsetup create "$name-log" --table "0 $((size / 512)) log-writes $data $log" || return
  dmsetup create "$name" --table "0 $((size / 512)) linear $(node "$name-log") 0" || return
  # What is not synced would be committed every 5 s: here it is lost, and not
  # kept by luck.
  mount -t ext4 -o commit=3600 "$(node "$name")" "$(<"$home/dir")" || return
  [[ ! -s $home/bad && ! -e $home/rotten ]] || set_table "$1"
}

# swap_table NAME reads the device's new table. No lock of the file system: that
# would sync it.
swap_table() {
  local table
  table=$(cat)
  dmsetup suspend --noflush --nolockfs "$1" || return
  dmsetup load "$1" --table "$table" || { dmsetup resume "$1" && return 1; }
  dmsetup resume "$1"
}

# set_table N makes the upper device's table: of a disk that corrupts one of dm-flakey,
# which does it all the time, else of its bad ranges. A bad range is one
# of dm-delay without a delay, which takes a device each for reads, writes and
# flushes: of dm-flakey, flushes would fail too, and with them every fsync.
set_table() {
  local home=$faults/disk/$1 name lower bad='' at=0 block count end size
  name=$(disk_name "$1") size=$(($(<"$home/size") / 512))
  lower=$(node "$name-log")
  if [[ -e $home/rotten ]]; then
    echo "0 $size flakey $lower 0 0 86400 5 corrupt_bio_byte 1000 w 255 0" | swap_table "$name"
    return
  fi
  if [[ -s $home/bad ]]; then
    node "$name-bad" >/dev/null || dmsetup create "$name-bad" --table "0 $size error"
    bad=$(node "$name-bad")
  fi
  {
    while read -r block count; do
      block=$((block * disk_block / 512)) end=$((block + count * disk_block / 512))
      ((end > at)) || continue # ranges may overlap; they come sorted
      ((block >= at)) || block=$at
      ((block == at)) || echo "$at $((block - at)) linear $lower $at"
      echo "$block $((end - block)) delay $lower $block 0 $bad $block 0 $lower $block 0"
      at=$end
    done < <(sort -n "$home/bad")
    ((at == size)) || echo "$at $((size - at)) linear $lower $at"
  } | swap_table "$name"
  [[ -n $bad ]] || ! node "$name-bad" >/dev/null || dmsetup remove --retry "$name-bad"
}

# write_errors DIR BLOCK [COUNT]
write_errors() {
  local n block=$2 count=${3:-1} home
  n=$(disk_of "$1") || exit
  home=$faults/disk/$n
  [[ $block =~ ^(0|[1-9][0-9]{0,11})$ && $count =~ ^[1-9][0-9]{0,11}$ ]] ||
    usage_error "write-errors: a block and a count of blocks, not '$block' '$count'"
  (((block + count) * disk_block <= $(<"$home/size"))) ||
    usage_error "write-errors: $1 has $(($(<"$home/size") / disk_block)) blocks of $disk_block bytes, from 0"
  [[ ! -e $home/rotten ]] || die 1 "write-errors: $1 corrupts what is written" "mend: testbed/faults corrupt-writes-off $1"
  echo "$block $count" >>"$home/bad"
  set_table "$n"
}

write_errors_off() {
  local n
  n=$(disk_of "$1") || exit
  : >"$faults/disk/$n/bad"
  set_table "$n"
}

# corrupts_disks_alone RELEASE: from Linux 6.5 on dm-flakey corrupts a copy (tried: 6.1
# doesn't).
corrupts_disks_alone() {
  local major minor
  IFS=.- read -r major minor _ <<<"$1"
  ((major > 6 || (major == 6 && minor >= 5)))
}

# corrupt_writes DIR
corrupt_writes() {
  local n
  n=$(disk_of "$1") || exit
  corrupts_disks_alone "$(uname -r)" ||
    die 1 "corrupt-writes: Linux $(uname -r) would corrupt what is in memory, too" "mend: Linux 6.5 or later"
  [[ ! -s $faults/disk/$n/bad ]] || die 1 "corrupt-writes: $1 has blocks that can't be written" "mend: testbed/faults write-errors-off $1"
  load_modules dm_flakey
  : >"$faults/disk/$n/rotten"
  set_table "$n"
}

corrupt_writes_off() {
  local n
  n=$(disk_of "$1") || exit
  rm -f -- "$faults/disk/$n/rotten"
  set_table "$n"
}

# fell_disk N takes the stack down, as much as is there of it.
fell_disk() {
  local name work file device
  name=$(disk_name "$1") work=$(<"$faults/disk/$1/work")
  # A program may still hold a file; its device has nothing below it by then.
  ! node "$name" >/dev/null || dmsetup remove --deferred "$name"
  for device in "$name-bad" "$name-log"; do
    ! node "$device" >/dev/null || dmsetup remove --retry "$device" || return
  done
  for file in "$work/data" "$work/log"; do
    [[ -e $file ]] || continue
    for device in $(losetup -n -O NAME -j "$file"); do losetup -d "$device"; done
  done
}

# power_cut DIR [SEED]: first every way to the disk is closed, then what it was
# told before is sorted into kept and forgotten.
power_cut() {
  local n home name dir work size words
  n=$(disk_of "$1") || exit
  home=$faults/disk/$n name=$(disk_name "$n")
  dir=$(<"$home/dir") work=$(<"$home/work") size=$(<"$home/size")
  echo "0 $((size / 512)) error" | swap_table "$name"
  # Shut down, it writes nothing back and answers every call with EIO
  # (EXT4_IOC_SHUTDOWN, 2: without flushing the journal). One that its bad blocks
  # have shut down already can't be again.
  perl -e 'open my $d, "<", $ARGV[0] or die "$ARGV[0]: $!\n"; ioctl($d, 0x8004587d, my $how = pack("L", 2)) or die "shut down $ARGV[0]: $!\n"' "$dir" ||
    true
  words=$(dmsetup status "$name-log")
  [[ $words != *logging_disabled* ]] ||
    die 1 "power-cut: the log of $dir was too short for what was written: nobody knows what to forget" "mend: testbed/faults disk-off $dir, and a larger disk"
  dmsetup message "$name-log" 0 mark cut
  umount -l -- "$dir"
  fell_disk "$n"
  perl "$testbed/lib/replay-log.pl" "$work/log" "$work/base" "${@:2}"
  echo $(($(<"$home/cuts") + 1)) >"$home/cuts"
  raise_disk "$n" || die 1 "power-cut: $dir can't be mounted again (above: why)" "mend: testbed/faults disk-off $dir"
}

# disk_off N
disk_off() {
  local home=$faults/disk/$1 dir='' work=''
  [[ ! -e $home/dir ]] || dir=$(<"$home/dir")
  [[ ! -e $home/work ]] || work=$(<"$home/work")
  # A verb that was killed may have left it suspended: umount would wait for ever.
  ! node "$(disk_name "$1")" >/dev/null || dmsetup resume "$(disk_name "$1")"
  if [[ -n $dir ]] && mountpoint -q -- "$dir"; then
    umount -- "$dir" || die 1 "$dir is in use" "mend: end those that use it: fuser -vm '$dir'"
  fi
  if [[ -n $work ]]; then
    fell_disk "$1" || die 1 "$dir: its device is in use" "see: dmsetup ls --tree"
    rm -rf -- "$work"
  fi
  [[ ! -e $home/made || -z $dir ]] || rmdir -- "$dir" 2>/dev/null || true
  rm -rf -- "$home"
}

smallfs() {
  local dir=$1 size=$2 type=${3:-tmpfs} image
  numfmt --from=iec -- "$size" >/dev/null 2>&1 || usage_error "smallfs: a size like 64M, not '$size'"
  [[ $type == @(tmpfs|ext4) ]] || usage_error "smallfs: $type? tmpfs or ext4"
  mkdir -p -- "$dir" "$faults"
  dir=$(readlink -f -- "$dir")
  ! mountpoint -q -- "$dir" || die 1 "smallfs: something is mounted on $dir" "mend: name another directory"
  echo "$dir" >>"$faults/smallfs"
  if [[ $type == tmpfs ]]; then
    mount -t tmpfs -o "size=$size,mode=755" smallfs "$dir"
    return
  fi
  need mkfs.ext4 e2fsprogs
  load_modules ext4 loop
  image=$(mktemp "${TMPDIR:-/tmp}/faults-ext4.XXXXXX")
  truncate -s "$size" "$image"
  if ! mkfs.ext4 -q -F -m 0 "$image" || ! mount -t ext4 -o loop "$image" "$dir"; then
    rm -f -- "$image"
    die 1 "smallfs $dir: refused (above: why)" "mend: 256K is about the least for ext4"
  fi
  # It lives as long as it is mounted.
  rm -f -- "$image"
}

# smallfs_off DIR
smallfs_off() {
  local dir line rest=''
  dir=$(readlink -f -- "$1") || dir=$1
  grep -qsFx -- "$dir" "$faults/smallfs" || die 2 "no small file system of ours at $1" "see: testbed/faults status"
  ! mountpoint -q -- "$dir" || umount -- "$dir" || die 1 "$dir is in use" "mend: end those that use it: fuser -vm '$dir'"
  while read -r line; do [[ $line == "$dir" ]] || rest+=$line$'\n'; done <"$faults/smallfs"
  printf '%s' "$rest" >"$faults/smallfs"
}

# files_off undoes all of these; it goes on after what is in use.
files_off() {
  local line home dirs=() rc=0
  [[ ! -e $faults/smallfs ]] || mapfile -t dirs <"$faults/smallfs"
  for line in "${dirs[@]}"; do (smallfs_off "$line") || rc=1; done
  for home in "$faults"/disk/*; do
    [[ ! -e $home ]] || (disk_off "${home##*/}") || rc=1
  done
  return "$rc"
}

files_status() {
  local line home block count
  if [[ -e $faults/smallfs ]]; then
    while read -r line; do echo "smallfs: $line"; done <"$faults/smallfs"
  fi
  for home in "$faults"/disk/*; do
    [[ -e $home/dir ]] || continue
    echo "disk: $(<"$home/dir"), $(numfmt --to=iec "$(<"$home/size")") on $(node "$(disk_name "${home##*/}")"), $(<"$home/cuts") power cuts"
    [[ ! -e $home/rotten ]] || echo "disk: $(<"$home/dir"), writes are corrupted"
    while read -r block count; do echo "disk: $(<"$home/dir"), writes to $count blocks from $block fail"; done <"$home/bad"
  done
}
