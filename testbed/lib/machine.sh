# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # vm, which sources this, sets and uses them
# shellcheck disable=SC2054 # QEMU's commas are its own
# The machine: QEMU's command line, and whether KVM works here.

machine_needs() {
  [[ $(uname -m) == x86_64 ]] || die 2 "testbed/vm knows x86_64 hosts only, this is $(uname -m)"
  need qemu-system-x86_64 qemu-system-x86
  need perl perl-base
  need setpriv util-linux
  need flock util-linux
  need sha256sum coreutils
}

# choose_accel turns "auto" into kvm or tcg. That /dev/kvm opens proves
# nothing: under some hypervisors a stock kernel never runs in it, prints
# nothing and burns CPU for ever. So a real kernel is booted, with a deadline,
# and the answer is remembered for this host's kernel, CPU and QEMU: "tcg" for a
# day, since the host may just have been too busy.
choose_accel() {
  [[ $accel == auto ]] || return 0
  accel=tcg
  [[ -r /dev/kvm && -w /dev/kvm ]] || {
    [[ ! -e /dev/kvm ]] ||
      say "/dev/kvm is there, and not for this user: emulating, which is many times slower (mend: sudo usermod -aG kvm ${USER:-NAME}, and log in anew)"
    return 0
  }
  local answer
  answer=$(cache_dir)/kvm-$({
    uname -rm
    grep -m 1 '^model name' /proc/cpuinfo
    qemu-system-x86_64 --version
  } | sha256sum | cut -c1-16)
  is_answer "$answer" || with_cache_lock probe_kvm "$answer"
  accel=$(cat "$answer")
}

is_answer() {
  [[ -s $1 && ($(<"$1") == kvm || -n $(find "$1" -mmin -1440)) ]]
}

kernel_image() {
  if [[ -s $kernel_dir/vmlinux ]]; then
    printf '%s\n' "$kernel_dir/vmlinux"
  else
    printf '%s\n' "$kernel_dir/vmlinuz"
  fi
}

probe_kvm() {
  local answer=$1 words result=tcg
  ! is_answer "$answer" || return 0
  say "probing whether KVM runs a kernel here (up to 15 s; to skip it: RDMAXFER_VM_ACCEL=tcg)"
  words=$(timeout --signal KILL 15 qemu-system-x86_64 -accel kvm -cpu host -m 512M \
    -nodefaults -display none -no-reboot -serial stdio -monitor none \
    -kernel "$(kernel_image)" -initrd "$initramfs" \
    -append "console=ttyS0 quiet panic=-1 testbed.probe" </dev/null 2>/dev/null || true)
  [[ $words != *'testbed: probe ok'* ]] || result=kvm
  say "using $result"
  printf '%s\n' "$result" >"$answer.$$"
  mv -- "$answer.$$" "$answer"
}

# groups_room ROOT GROUPS prints how many kB the memory control groups of this process could
# still give it, by the tightest of them: ROOT is where they are mounted (/sys/fs/cgroup, of
# version 1, 2 or both), GROUPS the list in /proc/self/cgroup. Nothing where none is limited. In
# a container the list may name what is not there: the group at ROOT is the container's then.
groups_room() {
  local root=$1 kinds group base dir limit files least='' room
  while IFS=: read -r _ kinds group; do
    case ,$kinds, in
      ,,) base=$root files=(memory.max memory.current inactive_file) ;;
      *,memory,*) base=$root/memory files=(memory.limit_in_bytes memory.usage_in_bytes total_inactive_file) ;;
      *) continue ;;
    esac
    dir=$base$group
    while :; do
      # The kernel's word for no limit is "max", or of version 1 a number beyond any memory.
      if read -r limit 2>/dev/null <"$dir/${files[0]}" && [[ $limit =~ ^[0-9]{1,15}$ ]]; then
        room=$((limit - $(<"$dir/${files[1]}") + $(awk -v name="${files[2]}" '$1 == name { print $2 }' "$dir/memory.stat")))
        room=$((room > 0 ? room / 1024 : 0))
        [[ -n $least ]] && ((least <= room)) || least=$room
      fi
      [[ $dir != "$base" ]] || break
      dir=${dir%/*}
    done
  done <"$2"
  echo "$least"
} 2>/dev/null

# fit_memory prints a machine's memory. QEMU takes what is touched, and the
# machine's page cache touches all of it in time: no more than three quarters
# of what this host, or the container that this is, could give, for all machines of a run.
fit_memory() {
  local available room wanted=$((4096 / ${#machines[@]}))
  if [[ -n $memory ]]; then
    printf '%s\n' "$memory"
    return
  fi
  available=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
  room=$(groups_room /sys/fs/cgroup /proc/self/cgroup)
  [[ -z $room ]] || ((room > available)) || available=$room
  available=$((available * 3 / 4 / 1024 / ${#machines[@]}))
  if ((available >= wanted)); then
    echo "${wanted}M"
  elif ((available >= 512)); then
    say "this host has little memory: a machine gets ${available}M instead of ${wanted}M (--memory)"
    echo "${available}M"
  else
    die 2 "not enough memory for a machine (${available} MB could be used, 512 are needed)" \
      "mend: end something, or insist with --memory"
  fi
}

# comma_safe PATH: QEMU separates options by commas, and doubles those in values.
comma_safe() { printf '%s\n' "${1//,/,,}"; }

# emulated_cpu prints what is emulated. QEMU executes "rep movsb" and "rep stosb" a byte at a
# time, and kernels copy and clear with them wherever the CPU says that they are fast: without
# those flags files are copied three to five times as fast (docs/performance.md). No QEMU
# takes a flag that it does not know.
emulated_cpu() {
  local cpu=max flag known
  known=" $(qemu-system-x86_64 -cpu help | tr '\n' ' ') "
  for flag in erms fsrm fzrm fsrs fsrc; do
    [[ $known != *" $flag "* ]] || cpu+=,-$flag
  done
  printf '%s\n' "${RDMAXFER_VM_CPU:-$cpu}"
}

# machine_command NAME DIR sets qemu to the command, with its console in
# DIR/console. No network card but the one that joins two machines: what is
# inside can't disturb anything, and boots faster.
machine_command() {
  local name=$1 dir=$2 i append
  # A starved host fails the kernel's timer check, which then looks for other
  # timers in vain.
  append="console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check testbed.outs=${#outs[@]}"
  ((idle_poll == 0)) || append+=" idle=poll"
  # QEMU (7.2, seen) can keep a stale translation of kernel code that one CPU
  # patches while another runs it: "Oops: int3" in one of some fifty boots. Nearly
  # all such patching is done while booting and setting up: with one CPU, then.
  # The agent wakes the others just before the command. What would be patched later, the
  # clock when its watchdog has doubts about it, is left alone; what is patched when it
  # is first used is used in settle.sh.
  # Without address randomisation a program's code is translated once and not
  # once a process: shell scripts run twice as fast.
  [[ $accel != tcg ]] || append+=" maxcpus=1 tsc=reliable norandmaps"
  boot_seconds=90
  [[ $accel != kvm ]] || boot_seconds=30
  qemu=(
    qemu-system-x86_64 -nodefaults -display none -no-reboot -monitor none
    -smp "$cpus" -m "$qemu_memory"
  )
  if [[ $accel == kvm ]]; then
    qemu+=(-accel kvm -cpu host)
  elif ((deterministic)); then
    qemu+=(-accel "tcg,thread=single" -icount "shift=0,sleep=off" -seed 1 -cpu "$(emulated_cpu)")
  else
    qemu+=(-accel "tcg,thread=multi" -cpu "$(emulated_cpu)")
  fi
  qemu+=(
    -kernel "$(kernel_image)" -initrd "$initramfs" -append "$append"
    -serial "file:$(comma_safe "$dir/console")"
    -chardev "socket,id=io,fd={io}" -device virtio-serial-pci
    -device virtserialport,chardev=io,name=testbed
    -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
  )
  for i in "${!outs[@]}"; do
    qemu+=(-virtfs "local,path=$(comma_safe "${outs[i]}"),mount_tag=out$i,security_model=none,multidevs=remap")
  done
  ((${#machines[@]} == 1)) || qemu+=(
    -netdev "socket,id=link,fd={link}" # "stream" is QEMU 7.2's, this every QEMU's
    -device "virtio-net-pci,netdev=link,romfile=,host_mtu=4200,mac=02:00:00:00:00:0$name"
    -chardev "socket,id=peer,fd={peer}" -device virtserialport,chardev=peer,name=testbed-peer
  )
}
