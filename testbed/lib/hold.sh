# shellcheck shell=bash
# Memory that a hypervisor leaves alone, for the benchmarks that source this.

# hold FILE MIB touches so much memory by a file on tmpfs, and gives it back but for a page of each MiB, which
# that keeps. Free memory is taken back by a hypervisor (free page reporting), 2 MiB at a time, and to find it
# again costs whoever comes first several times what a page costs otherwise: what has a hole is not taken, and
# is given out first.
hold() {
  local i
  head -c "$(($2 << 20))" /dev/zero >"$1"
  for ((i = 0; i < $2; i++)); do
    fallocate -p -o "$(((i << 20) + 4096))" -l "$(((1 << 20) - 4096))" "$1"
  done
}
