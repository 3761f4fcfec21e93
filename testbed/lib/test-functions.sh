# shellcheck shell=bash
# shellcheck disable=SC2154 # testbed, scratch and what was captured: of test.sh, which sources this
# What needs no machine: the section "functions" of test.sh.

# functions tests what needs no machine.
functions() {
  local release
  for release in 7.1.0 7.1-rc1 7.3.4+deb13-amd64 7.10.0 10.0; do
    check "a pair on kernel $release" kernel_can_pair "$release"
  done
  for release in 6.1.0-50-amd64 6.12.107 7.0.9 5.15.0-generic; do
    check "no pair on kernel $release" fails kernel_can_pair "$release"
  done
  outs() { go_test_outs "$@" | tr '\0' ' '; }
  check 'go test: profiles come back' equals "$(outs /b/x.test -test.v=true -test.outputdir=/o -test.coverprofile=/w/c -test.cpuprofile=cpu)" '/w /o '
  check 'go test: fuzzing' equals "$(outs /b/x.test -test.fuzz=F -test.fuzzcachedir=/c)" '. /c '
  check 'go test: nothing asked for' equals "$(outs /b/x.test -test.v=true -test.fuzz=)" ''
  check 'no go test' equals "$(outs cat -test.coverprofile=/w/c)" ''
  # What a QEMU says that it knows; newer ones know more.
  cpu() { (
    local says=$1
    # shellcheck disable=SC2317 # emulated_cpu calls it
    qemu-system-x86_64() { printf '%s\n' "  ds erms f16c fsgsbase $says" '  smap'; }
    emulated_cpu
  ); }
  check 'slow string instructions are not claimed' equals "$(RDMAXFER_VM_CPU='' cpu fsrm)" max,-erms,-fsrm
  check '... by a newer QEMU' equals "$(RDMAXFER_VM_CPU='' cpu $'fsrc fsrm\n  fsrs fzrm')" max,-erms,-fsrm,-fzrm,-fsrs,-fsrc
  check '... but asked for' equals "$(RDMAXFER_VM_CPU=max cpu fsrm)" max
  # A container of 2 GB on a host with more, 0.5 GB of it in use and 0.1 GB of that cache.
  group() { mkdir -p "$1" && echo "$3" >"$1/$2.$4" && echo 500000000 >"$1/$2.$5" && printf 'anon 1\n%sinactive_file 100000000\n' "$6" >"$1/memory.stat"; }
  v1() { group "$1" memory "$2" limit_in_bytes usage_in_bytes $'inactive_file 7\ntotal_'; }
  group two/job memory 2000000000 max current ''
  group two/job/step memory max max current ''
  echo 0::/job/step >list
  check 'memory: the control group around' equals "$(groups_room two list)" 1562500
  echo 0::/of/the/host >list
  check '... of a container that does not see its name' equals "$(groups_room two/job list)" 1562500
  v1 one/memory/job 2000000000
  v1 one/memory 9223372036854771712
  printf '%s\n' 9:name=systemd:/ 4:cpu,memory:/job 0::/ >list
  check '... of version 1' equals "$(groups_room one list)" 1562500
  check '... unlimited' equals "$(groups_room one/memory/none list)" ''
  module_files
  intervals
  kernels_by_month
  dependencies
  lost_receiver
}

module_files() {
  local files='/a cache/kernel/net/9p.ko.xz
/a cache/kernel/fs/ext4.ko'
  # As modprobe prints it, with a blank after each.
  check 'modules: blanks in their names, options, twice' equals "$(printf '%s\n' 'builtin virtio_pci' \
    'insmod /a cache/kernel/net/9p.ko.xz ' 'insmod /a cache/kernel/fs/ext4.ko one=1 two=b.c' 'insmod /a cache/kernel/net/9p.ko.xz ' |
    insmod_files)" "$files"
}

# intervals: the ranks are those of the binomial distribution's tables.
intervals() {
  local samples bounds table
  while read -r samples bounds; do
    # shellcheck disable=SC2016 # perl's own
    check "median of $samples: its bounds" equals "$bounds" \
      "$(perl -e 'require shift; my $n = shift; print join(" ", interval(reverse 1 .. $n), bounds($n))' "$testbed/lib/stats.pl" "$samples")"
  done <<'BOUNDS'
5 3 1 5 least to most
6 3.5 1 6 95 % interval
7 4 1 7 95 % interval
9 5 2 8 95 % interval
13 7 3 11 95 % interval
BOUNDS
  # By a path like that of the benchmarks.
  table() { (cd "$testbed/.." && perl "${testbed##*/}/lib/$1.pl" "${@:2}"); }
  ratios() { seq "$1" | awk '{ print $1, 2 }' | table ratios 'a / b=0/1'; }
  check 'ratios' equals "$(ratios 7)" 'a / b: median of 7 ratios 2.000, 95 % interval 0.500 to 3.500'
  check 'ratios: of few rounds' equals "$(ratios 5)" 'a / b: median of 5 ratios 1.500, least to most 0.500 to 2.500'
  runs() { for ((i = 1; i <= $1; i++)); do printf "%s $i $i\n" "${@:2}"; done; }
  check 'files: a table' equals "$(runs 7 '0 fast' '0 rsync' | table files-table 84 | tail -n 3)" \
    $'| fast | 21 (12 to 84) | 4.00 | 47619 |\n| rsync | 21 (12 to 84) | 4.00 | 47619 |\nfast is 1.00 times as fast as rsync (95 % interval 1.00 to 1.00)'
  check 'files: of few rounds' contains "$(runs 5 '0 fast' | table files-table 84)" '| files/s (least to most) |'
  check 'tcp: a table' contains "$(runs 7 'rdmaxfer-auto file' 'socat file' | table tcp-table 84000000000)" \
    '| socat | file | 21.00 (12.00 to 84.00) | 0.05 | 1.00 (1.00 to 1.00) |'
  check 'tcp: of few rounds' contains "$(runs 5 'socat file' | table tcp-table 84)" '| GB/s, median (least to most) |'
  # Seven of one cell and five of another: what stands for both are the bounds of five.
  broken_off() { runs 5 "$@" && runs 2 "${*:$#}"; }
  check 'files: one cell has fewer rounds' equals "$(broken_off '0 rsync' '0 fast' 2>&1 | table files-table 84 2>&1)" \
    $'files-table: some have only 5 runs: the first 5 of each\n| | files/s (least to most) | seconds | CPU µs a file |\n|---|---|---|---|
| fast | 28 (17 to 84) | 3.00 | 35714 |\n| rsync | 28 (17 to 84) | 3.00 | 35714 |\nfast is 1.00 times as fast as rsync (least to most 1.00 to 1.00)'
  check 'tcp: one cell has fewer rounds' contains "$(broken_off 'rdmaxfer-auto file' 'socat file' | table tcp-table 84000000000 2>&1)" \
    '| socat | file | 28.00 (16.80 to 84.00) | 0.04 | 1.00 (1.00 to 1.00) |'
  for table in files-table tcp-table; do
    capture table "$table" 84 </dev/null
    check "$table: no round" contains "$output $errors" " $table: no runs to make a table of"
    check '... is an error' differs "$status" 0
  done
  methods() { runs 3 'rdmaxfer-mmap-copy file times 1 0 0 0 0 0 0 0' && echo rdmaxfer-mmap-copy file calls 12000; }
  check 'tcp: of methods' contains "$(methods | table tcp-matrix 6000000000)" '| file | mmap | copy | 6.00 (6.00 to 6.00) |'
}

# kernels_by_month: a name is looked up again, and where it can't be, what it led to will do.
kernels_by_month() {
  local -x RDMAXFER_CACHE=$scratch/months
  local cache=$scratch/months/testbed name=kernel-7.$kernel_layout
  mkdir -p "$cache/kernels/7.1.0"
  echo 7.1.0 >"$cache/kernels/7.1.0/release"
  ln -s kernels/7.1.0 "$cache/$name"
  # shellcheck disable=SC2317 # kernel_fetch calls them
  archive() { (
    local release=$1
    need() { :; }
    enough_space() { :; }
    kernel_unpack() {
      ! kernel_fresh "$cache/kernel-7.$kernel_layout" || touch "$scratch/in-nobodys-way"
      [[ -n $release ]] && mkdir "$2/kernel" && echo "$release" >"$2/kernel/release"
    }
    "${@:2}"
    kernel_dir 7
  ); }
  capture archive ''
  check 'a kernel of this month' equals "$status $output $errors" "0 $cache/kernels/7.1.0 "
  touch -h -d '40 days ago' "$cache/$name"
  capture archive ''
  check 'a kernel of an earlier month, and no archive' equals "$status $output" "0 $cache/kernels/7.1.0"
  check '... says so' contains "$errors" 'going on with kernel 7 of an earlier month, 7.1.0, until tomorrow'
  check '... is in the way of no other run' test -e "$scratch/in-nobodys-way"
  capture archive 7.2.0
  check '... is not looked up again on that day' equals "$status $output $errors" "0 $cache/kernels/7.1.0 "
  touch -d '2 days ago' "$cache/$name.tried" "$cache/kernels/7.1.0"
  capture archive 7.2.0
  check '... but later' equals "$status $output" "0 $cache/kernels/7.2.0.$kernel_layout"
  check '... and then it is no longer in vain' fails test -e "$cache/$name.tried"
  touch -h -d '40 days ago' "$cache/$name"
  capture archive 7.2.0
  check 'what it replaces is kept for those that run' test -e "$cache/kernels/7.1.0/release"
  touch -h -d '40 days ago' "$cache/$name"
  touch -d '2 days ago' "$cache/kernels/7.1.0"
  capture archive 7.3.0
  check '... for a day' equals "$(cd "$cache/kernels" && echo *)" "7.2.0.$kernel_layout 7.3.0.$kernel_layout"
  touch -h -d '40 days ago' "$cache/$name"
  RDMAXFER_VM_REFRESH=no capture archive 7.4.0
  check 'a kernel of an earlier month that will do' equals "$status $output $errors" "0 $cache/kernels/7.3.0.$kernel_layout "
  # As whoever waited for the lock while another run tried.
  touch "$cache/$name.tried"
  capture archive 7.4.0 kernel_look 7
  check 'what another run tried meanwhile' equals "$status $output $errors" "0 $cache/kernels/7.3.0.$kernel_layout "
  rm -f "$cache/$name.tried"
  bounded
  unwritable
  # shellcheck disable=SC2317 # archive_uri calls it
  apt-get() { :; }
  RDMAXFER_VM_ARCHIVE='' capture kernel_dir 6.1
  unset -f apt-get
  check 'no archive that apt knows: the mend' contains "$status $errors" 'set RDMAXFER_VM_ARCHIVE=URI'
}

# bounded: where a kernel will do, what its successor may cost is bounded; the first may take
# what it takes. Of kernels_by_month, whose variables these are.
bounded() {
  mkdir apt
  cat >apt/apt-get <<'STUB'
#!/bin/sh
read -r parent <"/proc/$PPID/comm"
echo "$parent $*" | sed 's/ -c .* -q//' >>"${0%/*}/calls"
[ "${*#* update}" != "$*" ]
STUB
  printf '#!/bin/sh\necho linux-image-7.4.0\n' >apt/apt-cache
  chmod +x apt/apt-get apt/apt-cache
  # shellcheck disable=SC2317 # capture calls it
  looked() { (
    need() { :; }
    enough_space() { :; }
    PATH=$scratch/apt:$PATH RDMAXFER_VM_ARCHIVE=http://127.0.0.1:9/ kernel_dir "$1"
  ); }
  local short='-o Acquire::Retries=0 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15'
  capture looked 7
  check 'a newer kernel: how long apt may take' equals "$status $(<apt/calls)" \
    "0 timeout $short update"$'\n'"timeout $short download linux-image-7.4.0"
  rm -f apt/calls "$cache/$name.tried"
  capture looked 6.12
  check 'a first kernel: as long as it takes' equals "$status $(<apt/calls)" $'2 bash update\nbash download linux-image-7.4.0'
}

# unwritable: from a cache that can't be written comes what is there, without a word.
unwritable() {
  local as=()
  ((EUID != 0)) || as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
  mkdir reader
  cp -- "$testbed"/lib/{common,kernel}.sh reader/
  cat >reader/run <<'RUN'
set -euo pipefail
cd -- "$(dirname -- "$0")"
source ./common.sh
source ./kernel.sh
kernel_dir 7
RUN
  chmod 755 . # for others to get here
  chmod -R a+rX reader months
  chmod a-w "$cache"
  capture "${as[@]}" bash reader/run
  check 'an old kernel in a cache that is not ours' equals "$status $output $errors" "0 $cache/kernels/7.3.0.$kernel_layout "
  chmod 755 "$cache"
  touch "$cache/lock"
  chmod 444 "$cache/lock"
  ((EUID != 0)) || chown 65534 "$cache"
  capture "${as[@]}" bash reader/run
  check '... whose lock is not' equals "$status $output $errors" "0 $cache/kernels/7.3.0.$kernel_layout "
  chmod 644 "$cache/lock"
}

# dependencies: where Debian's names of packages mean nothing, building goes on without them.
dependencies() {
  local deps=$testbed/../.ci/deps path=$scratch/elsewhere
  mkdir elsewhere
  ln -s /usr/bin/* /bin/* elsewhere/ 2>/dev/null || true
  ln -sf "$(command -v go)" elsewhere/go
  rm -f elsewhere/{dpkg-query,apt-get}
  capture env PATH="$path" CC=true "$deps" perftest qperf
  check 'not a Debian: what is needed, and on' equals "$status $output" '0 '
  check 'not a Debian: the names' contains "$errors" 'perftest qperf'
  check 'not a Debian: a header that is there' fails contains "$errors" rdma-core-devel
  capture env PATH="$path" CC=false "$deps" perftest
  check 'not a Debian: no header of verbs' contains "$status $errors" 'package is rdma-core-devel'
  capture env PATH="$path" CC=no-such-compiler "$deps" perftest
  check 'not a Debian: no compiler' contains "$status $errors" 'package is gcc'
}

# lost_receiver: a benchmark whose sender fails does not leave the other end behind.
lost_receiver() {
  mkdir -p bench/bin
  cp -r -- "$testbed" bench/
  cat >bench/bin/rdmaxfer <<'STUB'
#!/bin/sh
case $1 in
  recv)
    echo $$ >"${0%/*}/receiver"
    echo 127.0.0.1:9
    exec sleep 600
    ;;
  send) exit 4 ;;
esac
STUB
  chmod +x bench/bin/rdmaxfer
  capture bench/testbed/bench-direct 1 1 "$scratch"
  check 'bench-direct: a sender that fails' equals "$status" 4
  check 'bench-direct: its receiver is gone' within 10 ended "$(<bench/bin/receiver)"
  rm -r bench
}

# ended PID: what has nothing to run by any more may wait for its parent yet.
ended() { [[ -z $(tr -d '\0' <"/proc/$1/cmdline") ]]; } 2>/dev/null
