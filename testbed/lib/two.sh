# shellcheck shell=bash
# shellcheck disable=SC2154 # testbed and the addresses are set by the scripts that source this
# Hosts a and b as two machines (testbed/vm --two): what softroce does there.

# This machine's letter, once lib/two-up has set it up.
two=/run/testbed/two

on_two_machines() { [[ -e $two ]]; }

# exec_two HOST COMMAND...: right here, or on the other machine.
exec_two() {
  local host=$1 here
  shift
  read -r here <"$two"
  # By way of sh, for its exit statuses: 127 not found, 126 not executable.
  [[ $host != "$here" ]] || exec /bin/sh -c 'exec "$@"' sh "$@"
  exec perl "$testbed/lib/guest-exec.pl" "$@"
}

# two_host HOST JSON prints what a machine knows of itself.
two_host() {
  local host=$1 index mtu format
  index=$(gid_index "rxe_$host" "${address[$host]}") || return
  read -r mtu <"/sys/class/net/v_$host/mtu"
  format='%s: %s %s, netdev v_%s, device rxe_%s port 1 gid %s, %s, MTU %s, on a machine of its own\n'
  (($2 == 0)) ||
    format='{"host":"%s","address":"%s","address6":"%s","netdev":"v_%s","device":"rxe_%s","port":1,"gid_index":%s,"state":"%s","mtu":%s}'
  # shellcheck disable=SC2059 # one of the two above
  printf "$format" "$host" "${address[$host]}" "${address6[$host]}" "$host" "$host" "$index" \
    "$(port_state "rxe_$host")" "$mtu"
}

# status_two [--json] prints what "softroce status" does, from both machines,
# and exits. With --here HOST JSON it is asked by the other one.
status_two() {
  local json=0 host here line lines=()
  if [[ ${1:-} == --here ]]; then
    two_host "$2" "$3"
    exit
  fi
  [[ ${1:-} != --json ]] || json=1
  read -r here <"$two"
  for host in a b; do
    if [[ $host == "$here" ]]; then
      line=$(two_host "$host" "$json") || continue
    else
      line=$(perl "$testbed/lib/guest-exec.pl" "$testbed/softroce" status --here "$host" "$json" </dev/null) || continue
    fi
    lines+=("$line")
  done
  if ((json == 0)); then
    printf '%s\n' "${lines[@]}"
  else
    local pair=false IFS=,
    ((${#lines[@]} != 2)) || pair=true
    printf '{"pair":%s,"machines":2,"hosts":[%s]}\n' "$pair" "${lines[*]}"
  fi
  exit $((${#lines[@]} == 2 ? 0 : 1))
}
