# shellcheck shell=bash
# Kernel modules: loading them, and whose package brings one that is missing.

# load_modules MODULE... loads them. They stay loaded: by the time of "down"
# somebody else may use them.
load_modules() {
  local module
  # All in one go, for speed.
  ! modprobe -qa "$@" || return 0
  for module; do
    # What is built in needs no loading, and modprobe knows that.
    [[ -e /sys/module/$module ]] || modprobe -q "$module" || module_missing "$module"
  done
}

# module_missing MODULE says why it isn't there, and what brings it.
module_missing() {
  local module=$1 release id='' key value place lines
  release=$(uname -r)
  if [[ -r /etc/os-release ]]; then
    while IFS='=' read -r key value; do [[ $key != ID ]] || id=${value//\"/}; done </etc/os-release
  fi
  if modinfo -n "$module" >/dev/null 2>&1; then
    die 1 "the module $module can't be loaded: $(modprobe "$module" 2>&1 | tail -n 1)" \
      "mend: run it where modules may be loaded (a container may not), or use testbed/vm -- CMD"
  fi
  place=whole
  if [[ ! -e /lib/modules/$release/modules.dep ]]; then
    place=none
  elif grep -qsx "# CONFIG_${module^^} is not set" "/boot/config-$release" "/lib/modules/$release/config"; then
    place=without
  fi
  mapfile -t lines < <(module_mend "$module" "$release" "$id" "$place")
  die 1 "${lines[@]}"
}

# module_mend MODULE RELEASE ID PLACE prints what is the matter with kernel RELEASE
# of distribution ID, and the mend. PLACE is none (the running kernel has no
# modules installed), without (built without this one) or whole.
module_mend() {
  local module=$1 release=$2 id=$3 place=$4 vm='or use testbed/vm -- CMD, which brings a kernel'
  case $id:$place:$release in
    debian:*-cloud-*)
      echo "Debian's cloud kernel ($release) has no $module"
      echo "mend: apt install linux-image-${release##*-cloud-} and boot that, $vm"
      ;;
    ubuntu:without:* | ubuntu:*-kvm)
      echo "Ubuntu's kernel for this cloud ($release) has no $module"
      echo "mend: apt install linux-image-generic and boot that, $vm"
      ;;
    ubuntu:none:*)
      echo "the running kernel ($release) has no modules installed"
      echo "mend: apt install linux-modules-$release linux-modules-extra-$release, or boot the kernel that is installed, $vm"
      ;;
    ubuntu:*)
      echo "this kernel ($release) has no module $module installed"
      echo "mend: apt install linux-modules-extra-$release, $vm"
      ;;
    debian:none:*)
      echo "the running kernel ($release) has no modules installed"
      echo "mend: apt install linux-image-$release, or boot the kernel that is installed, $vm"
      ;;
    debian:whole:*)
      echo "this kernel ($release) has no module $module installed"
      echo "mend: apt install --reinstall linux-image-$release, $vm"
      ;;
    *)
      echo "this kernel ($release) has no module $module"
      echo "mend: boot a kernel that has it (Debian: linux-image-amd64), $vm"
      ;;
  esac
}
