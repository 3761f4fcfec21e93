# shellcheck shell=bash
# Kernels: the distribution's own packages, fetched by apt with a private
# configuration, unpacked under the cache, installed nowhere.
#
# A kernel directory holds
#   vmlinuz    the image as packaged
#   vmlinux    the same unpacked, where it can be booted so: no firmware, no
#              decompression, 1.3 s less in emulation
#   release    its release, "7.3.4+deb13-amd64"
#   tree/lib/modules/RELEASE   the modules, with depmod's indexes
# The cache has kernels/RELEASE.LAYOUT, and kernel-NAME.LAYOUT links to it: since when is
# the link's own time. kernel-NAME.LAYOUT.tried is of the last time that a newer one was looked
# for and not got.

# kernel_layout changes whenever what is made here does: a run of an older
# version of this folder keeps finding its own.
kernel_layout=2

# What tests load once the machine is up: these and what they depend on are
# kept decompressed, for an emulated CPU is slow at that.
ready_modules=(rdma_rxe ib_uverbs rdma_ucm veth crc32_generic sch_netem sch_ingress
  cls_u32 cls_matchall act_gact virtio_net loop ext4)

# kernel_dir NAME prints the directory of the kernel NAME (6.1, 6.12, 7 or the
# path of an image) and fetches it first when it isn't there, or is of an earlier month: the
# packages get updates. What can't be fetched again is used as it is, and where nothing could be
# kept, or RDMAXFER_VM_REFRESH is "no", nobody tries.
kernel_dir() {
  local name=$1 dir
  if [[ $name == */* ]]; then
    kernel_from_image "$name"
    return
  fi
  dir=$(cache_dir)/kernel-$name.$kernel_layout
  if [[ ! -e $dir/release ]]; then
    with_cache_lock kernel_look "$name" >&2
  elif [[ ${RDMAXFER_VM_REFRESH:-} != no ]] && ! kernel_fresh "$dir"; then
    if cache_writable; then
      (with_cache_lock kernel_look "$name") >&2 || true
    else
      note "kernel $name is of an earlier month, and its cache can't be written"
    fi
  fi
  readlink -f -- "$dir"
}

# kernel_fresh LINK: it is there, and was looked up in this month, or in vain within a day. By
# the calendar's months, since CI's caches are named by those: they can't be changed later.
kernel_fresh() {
  [[ -e $1/release ]] && {
    [[ -n $(find "$1" -maxdepth 0 -newermt "$(date +%Y-%m-01)") ]] ||
      [[ -e $1.tried && -n $(find "$1.tried" -mmin -1440) ]]
  }
}

# cache_writable: as baked into an image it may not be; or its lock is another user's.
cache_writable() {
  local cache
  cache=$(cache_dir)
  [[ -w $cache && (! -e $cache/lock || -w $cache/lock) ]]
}

# kernel_look NAME: under the lock; does nothing when another run was faster.
kernel_look() {
  local link
  link=$(cache_dir)/kernel-$1.$kernel_layout
  ! kernel_fresh "$link" || return 0
  if [[ ! -e $link/release ]]; then
    kernel_fetch "$1"
    return
  fi
  # Before it is tried: no other run waits for the same, nor for one that was interrupted.
  touch -- "$link.tried" || return
  if (kernel_fetch "$1"); then
    rm -f -- "$link.tried"
  else
    say "going on with kernel $1 of an earlier month, $(<"$link/release"), until tomorrow" \
      "(RDMAXFER_VM_REFRESH=no: for good)"
  fi
}

# kernel_suite NAME prints the release that has this kernel. 6.1 and 6.12 are
# the stock kernels of their releases; 7 moves with the backports.
kernel_suite() {
  case $1 in
    6.1) echo bookworm ;;
    6.12) echo trixie ;;
    7) echo trixie-backports ;;
    *) usage_error "no kernel is called '$1' (6.1, 6.12, 7, or the path of an image)" ;;
  esac
}

# apt_private DIR SUITE writes an apt configuration that reads and writes
# nothing outside DIR, apart from the machine's own proxies and the archive
# keyring, against which everything fetched is verified. Hooks are cleared:
# they would touch the machine's state.
apt_private() {
  local dir=$1 suite=$2 uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [[ -r $keyring ]] || die 2 "$keyring not found: a kernel package couldn't be verified" \
    "mend: apt install debian-archive-keyring"
  uri=$(archive_uri) || exit
  mkdir -p "$dir/lists/partial" "$dir/archives/partial" "$dir/deb"
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$uri" "$suite" >"$dir/sources.list"
  cat >"$dir/apt.conf" <<CONF
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$dir/lists";
Dir::State::status "/dev/null";
Dir::Cache "$dir";
Dir::Cache::archives "$dir/archives";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Update::Error-Mode "any";
APT::Sandbox::User "$(id -un)";
CONF
}

# archive_uri prints the archive that this machine itself installs from, so
# that no host name has to stand here. Suites beside the main one (security,
# updates, third parties) live elsewhere: only a plain release name will do.
archive_uri() {
  local uri=${RDMAXFER_VM_ARCHIVE:-}
  if [[ -z $uri ]]; then
    # shellcheck disable=SC2016 # apt's own variables
    uri=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(RELEASE)|$(REPO_URI)' |
      awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 !~ /-/ { print $4; exit }')
  fi
  [[ -n $uri ]] || die 2 "this machine's apt knows no Debian archive to take a kernel from" \
    "mend: apt-get update, or set RDMAXFER_VM_ARCHIVE=URI of a Debian mirror," \
    "or pass --kernel PATH of an image whose modules are installed"
  printf '%s\n' "$uri"
}

# kernel_fetch NAME fetches it, whether there is one or not: under the lock.
kernel_fetch() {
  local name=$1 cache suite tmp kernel refresh=''
  cache=$(cache_dir)
  [[ ! -e $cache/kernel-$name.$kernel_layout/release ]] || refresh=1
  suite=$(kernel_suite "$name") || exit
  need apt-get apt
  need dpkg-deb dpkg
  need depmod kmod
  need xz xz-utils
  need zstd zstd
  enough_space "$cache" 1000 "fetching and unpacking kernel $name"
  rm -rf -- "$cache"/tmp.* # what a killed run left; nobody else is inside the lock
  tmp=$(mktemp -d "$cache/tmp.XXXXXX") || die 2 "can't write in $cache"
  say "fetching kernel $name ($suite) through apt, once a month; it is kept in $cache"
  # What dies in there has said why in the log.
  if ! (kernel_unpack "$suite" "$tmp" "$refresh") >"$tmp/log" 2>&1; then
    tail -n 15 "$tmp/log" >&2
    rm -rf -- "$tmp"
    die 2 "kernel $name could not be fetched (above: what was said)" \
      "mend: check the network and the space in $cache ($(df -h --output=avail "$cache" | tail -n 1 | tr -d ' ') free), or pass --kernel PATH"
  fi
  kernels_tidy "$cache"
  # The one that had the name until now is kept for a day.
  [[ ! -e $cache/kernel-$name.$kernel_layout ]] || touch -- "$cache/kernel-$name.$kernel_layout/"
  kernel=kernels/$(<"$tmp/kernel/release").$kernel_layout
  # Two names may lead to the same release: it is the same then.
  if [[ ! -e $cache/$kernel/release ]]; then
    rm -rf -- "${cache:?}/$kernel"
    if ! mkdir -p "$cache/kernels" || ! mv -T -- "$tmp/kernel" "$cache/$kernel"; then die 2 "can't write in $cache"; fi
  fi
  if ! ln -s "$kernel" "$tmp/link" || ! mv -T -- "$tmp/link" "$cache/kernel-$name.$kernel_layout"; then
    die 2 "can't write in $cache"
  fi
  rm -rf -- "$tmp"
}

# kernels_tidy CACHE removes the kernels that no name has led to for a day: a machine that runs
# has its modules from there.
kernels_tidy() {
  local kernel link named
  for kernel in "$1"/kernels/*/; do
    [[ -d $kernel ]] || continue
    named=''
    for link in "$1"/kernel-*; do [[ ! $link -ef $kernel ]] || named=1; done
    [[ -n $named || -z $(find "$kernel" -maxdepth 0 -mmin +1440) ]] || rm -rf -- "$kernel"
  done
}

# enough_space DIR MEGABYTES WHAT: better said before than found half-way.
enough_space() {
  local free
  free=$(df --output=avail -k -- "$1" | tail -n 1)
  ((free / 1024 >= $2)) || die 2 "no space in $1: $3 takes $2 MB for a while, $((free / 1024)) are free" \
    "mend: make room there, or set RDMAXFER_CACHE to a directory that has it"
}

# kernel_unpack SUITE TMP REFRESH leaves TMP/kernel. The 7.x packages are split
# (binary, modules, base), older ones are not: whatever linux-image-ARCH leads
# to is taken. REFRESH is empty, or there is a kernel that will do: somebody waits for
# a machine meanwhile, and a firewall that drops packets must not cost them minutes.
kernel_unpack() {
  local suite=$1 tmp=$2 refresh=$3 deb apt packages update=() download=()
  apt=(-c "$tmp/apt/apt.conf" -q)
  if [[ -n $refresh ]]; then
    apt+=(-o Acquire::Retries=0 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15)
    # As a whole, too: each address of the archive may take its time-out. In the foreground,
    # so that an interrupt from the terminal reaches them.
    update=(timeout --foreground --verbose -k 5 30)
    download=(timeout --foreground --verbose -k 5 300)
  fi
  # Each step says "|| return": errexit is off in whatever a condition calls.
  apt_private "$tmp/apt" "$suite" || return
  "${update[@]}" apt-get "${apt[@]}" update || return
  mapfile -t packages < <(apt-cache "${apt[@]}" depends --recurse --no-recommends \
    --no-suggests --no-enhances --no-conflicts --no-breaks --no-replaces \
    "linux-image-$(dpkg --print-architecture)" |
    grep -E '^linux-(image|binary|modules|base)-[0-9]')
  if ((${#packages[@]} == 0)); then
    echo "no linux-image package in $suite"
    return 1
  fi
  (cd "$tmp/apt/deb" && "${download[@]}" apt-get "${apt[@]}" download "${packages[@]}") || return
  mkdir -p "$tmp/kernel/tree/usr/lib" || return
  # Older packages have lib/, newer ones usr/lib/; depmod -b wants lib/.
  ln -s usr/lib "$tmp/kernel/tree/lib" || return
  for deb in "$tmp"/apt/deb/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" |
      tar -x -C "$tmp/kernel/tree" --keep-directory-symlink --no-same-owner \
        --exclude './usr/share' --exclude '*System.map*' || return
  done
  kernel_finish "$tmp/kernel"
}

# kernel_finish DIR finds the image and the release in an unpacked tree.
kernel_finish() {
  local dir=$1 modules release image module
  modules=("$dir"/tree/lib/modules/*/)
  release=$(basename "${modules[0]}")
  for image in "$dir/tree/boot/vmlinuz-$release" "$dir/tree/lib/modules/$release/vmlinuz"; do
    [[ ! -e $image ]] || mv -- "$image" "$dir/vmlinuz" || return
  done
  if [[ ! -s $dir/vmlinuz ]]; then
    echo "no kernel image in the packages"
    return 1
  fi
  local PATH=$PATH:/usr/sbin:/sbin
  depmod -b "$dir/tree" "$release" || return
  for module in "${ready_modules[@]}"; do
    # Some are built in, some are not there in all kernels.
    modprobe -d "$dir/tree" -S "$release" --show-depends "$module" || true
  done | insmod_files >"$dir/ready"
  while read -r module; do
    decompress "$module" >"${module%.ko*}.tmp" || return
    rm -- "$module" || return
    mv -- "${module%.ko*}.tmp" "${module%.ko*}.ko" || return
  done <"$dir/ready"
  rm -- "$dir/ready"
  depmod -b "$dir/tree" "$release" || return
  unpack_image "$dir" "$release" || rm -f -- "$dir/vmlinux"
  printf '%s\n' "$release" >"$dir/release"
}

# insmod_files reads what "modprobe --show-depends" prints, "insmod FILE [OPTION]..." or
# "builtin NAME", and prints each file once. There may be blanks in its name.
insmod_files() { sed -nE 's/^insmod (.*\.ko(\.[a-z]+)?)( .*)?$/\1/p' | awk '!seen[$0]++'; }

# decompress FILE writes a module's contents to the output.
decompress() {
  case $1 in
    *.xz) xz -dc -- "$1" ;;
    *.zst) zstd -qdc -- "$1" ;;
    *.gz) gzip -dc -- "$1" ;;
    *) cat -- "$1" ;;
  esac
}

# unpack_image DIR RELEASE: what a bzImage wraps is an ELF file that QEMU starts
# directly if the kernel was built for that (CONFIG_PVH). Fails where it can't.
unpack_image() {
  local dir=$1 release=$2 config at
  for config in "$dir/tree/boot/config-$release" "$dir/tree/lib/modules/$release/config"; do
    [[ -e $config ]] && break
  done
  grep -qx 'CONFIG_PVH=y' "$config" || return
  if grep -qx 'CONFIG_KERNEL_ZSTD=y' "$config"; then
    at=$(LC_ALL=C grep -aobUP -m 1 '\x28\xb5\x2f\xfd' "$dir/vmlinuz" | head -n 1)
    # What follows the frame is no error to us.
    tail -c "+$((${at%%:*} + 1))" "$dir/vmlinuz" | zstd -dcq >"$dir/vmlinux" 2>/dev/null || true
  elif grep -qx 'CONFIG_KERNEL_XZ=y' "$config"; then
    at=$(LC_ALL=C grep -aobUP -m 1 '\xfd7zXZ\x00' "$dir/vmlinuz" | head -n 1)
    tail -c "+$((${at%%:*} + 1))" "$dir/vmlinuz" | xz -dcq --single-stream >"$dir/vmlinux" 2>/dev/null || true
  fi
  [[ -s $dir/vmlinux && $(head -c 4 "$dir/vmlinux") == $'\x7fELF' ]]
}

# kernel_from_image PATH makes a kernel directory around an image of one's own.
# Its modules are looked for beside it (lib/modules, usr/lib/modules up to two
# levels up) and where installed kernels have them.
kernel_from_image() {
  local image release dir modules
  image=$(readlink -f -- "$1")
  [[ -f $image ]] || die 2 "--kernel $1: no such file"
  release=$(image_release "$image")
  [[ -n $release ]] || die 2 "--kernel $1: not an x86 kernel image (bzImage)"
  for modules in "${image%/*}" "${image%/*}"/{,../,../../}{,usr/}lib/modules/"$release" /lib/modules/"$release"; do
    [[ -e $modules/modules.dep ]] && break
  done
  [[ -e $modules/modules.dep ]] ||
    die 2 "--kernel $1: no modules of $release with a modules.dep found" "mend: depmod -b DIR $release, DIR being beside the image"
  dir=$(cache_dir)/images/$(printf '%s\n' "$image" "$(stat -c '%s %Y' "$image")" "$modules" | sha256sum | cut -c1-16)
  if [[ ! -e $dir/release ]]; then
    mkdir -p "$dir/tree/lib/modules"
    ln -sfn "$image" "$dir/vmlinuz"
    ln -sfn "$(readlink -f "$modules")" "$dir/tree/lib/modules/$release"
    printf '%s\n' "$release" >"$dir/release.$$"
    mv -- "$dir/release.$$" "$dir/release"
  fi
  printf '%s\n' "$dir"
}

# image_release prints the release inside a bzImage: the x86 boot protocol has
# the string's offset, less 0x200, at 0x20e ("HdrS" at 0x202).
image_release() {
  local at
  [[ $(dd if="$1" bs=1 skip=514 count=4 status=none | tr -d '\0') == HdrS ]] || return 0
  at=$(od -An -tu2 -j 526 -N 2 "$1")
  dd if="$1" bs=1 skip=$((at + 512)) count=128 status=none | tr '\0' '\n' | head -n 1 | cut -d' ' -f1
}
