# shellcheck shell=bash
# shellcheck disable=SC2154 # testbed is set by the script that sources this
# The initramfs: busybox, the few modules that reach the root file system, and
# the programs that run before CMD. Everything else comes from the host's
# root, seen through 9p.

# What a boot needs before the root is there. All other modules are loaded
# from the kernel's own tree once it is mounted (by modprobe, in the guest).
boot_modules=(virtio_pci virtio_console 9pnet_virtio 9p overlay)

# The machine's own programs, in perl.
agent_files=(guest-agent.pl guest-job.pl guest-peer.pl)

# initramfs KERNELDIR prints the path of the kernel's initramfs, which is named
# by what is in it: an edit of this folder makes another one.
initramfs() {
  local dir=$1 name busybox
  busybox=$(static_busybox) || exit
  name=initramfs-$(cat "$testbed/lib/initramfs.sh" "$testbed/lib/guest-init" "${agent_files[@]/#/$testbed/lib/}" "$busybox" |
    sha256sum | cut -c1-16).cpio
  [[ -s $dir/$name ]] || with_cache_lock initramfs_build "$dir" "$name" "$busybox" >&2
  printf '%s\n' "$dir/$name"
}

static_busybox() {
  local busybox
  for busybox in /bin/busybox /usr/bin/busybox; do
    # The library's own test: a static program has no dynamic loader to ask.
    if [[ -x $busybox ]] && ! ldd "$busybox" >/dev/null 2>&1; then
      printf '%s\n' "$busybox"
      return
    fi
  done
  die 2 "no static busybox found" "mend: apt install busybox-static"
}

# initramfs_build KERNELDIR NAME: under the lock.
initramfs_build() {
  local dir=$1 name=$2 busybox=$3 tmp release module file at
  [[ ! -s $dir/$name ]] || return 0
  need cpio cpio
  need modprobe kmod
  release=$(cat "$dir/release")
  note "building the initramfs of $release"
  enough_space "$dir" 20 "building an initramfs"
  tmp=$(mktemp -d "$dir/tmp.XXXXXX") || die 2 "can't write in $dir" "mend: set RDMAXFER_CACHE"
  # Errexit is off in here, hence the chain.
  # shellcheck disable=SC2015 # die is meant for any of them
  mkdir -p "$tmp"/root/{bin,dev,proc,sys,lower,scratch,root,modules,agent} &&
    cp -- "$busybox" "$tmp/root/bin/busybox" &&
    ln -s busybox "$tmp/root/bin/sh" &&
    install -m 755 "$testbed/lib/guest-init" "$tmp/root/init" &&
    install -m 644 "${agent_files[@]/#/$testbed/lib/}" "$tmp/root/agent/" || die 2 "can't write in $dir (no space?)"
  for module in "${boot_modules[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin modprobe -d "$dir/tree" -S "$release" --show-depends "$module" || echo "missing $module"
  done >"$tmp/order"
  if grep '^missing' "$tmp/order" >&2; then
    rm -rf -- "$tmp"
    die 2 "kernel $release has no such module: it can't boot here"
  fi
  # insmod wants them decompressed and in this order, each once.
  at=100
  while read -r file; do
    module=$(basename "$file")
    decompress "$file" >"$tmp/root/modules/$at-${module%%.ko*}.ko" || die 2 "can't decompress $file to $dir (no space?)"
    at=$((at + 1))
  done < <(insmod_files <"$tmp/order")
  (cd "$tmp/root" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$tmp/cpio" ||
    die 2 "can't build the initramfs in $dir (no space?)"
  mv -- "$tmp/cpio" "$dir/$name"
  rm -rf -- "$tmp"
  # Those of earlier versions of this folder; a running machine has read its own.
  find "$dir" -maxdepth 1 -name 'initramfs-*' ! -name "$name" -mtime +1 -delete
}
