# shellcheck shell=bash
# The tests' few words. A check is a name and a command that must succeed;
# whatever was captured last is shown when it doesn't.

passed=0 failed=0 status=0 output='' errors=''

check() {
  local name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    echo "ok    $name"
  else
    failed=$((failed + 1))
    echo "FAIL  $name"
    printf '      %s\n' "check:  $*" "status: $status"
    printf '%s\n' "$output" | tail -n 15 | sed 's/^/      output: /'
    printf '%s\n' "$errors" | tail -n 25 | sed 's/^/      errors: /'
  fi
}

# capture COMMAND... sets status, output and errors.
capture() {
  local err
  err=$(mktemp)
  status=0
  output=$("$@" 2>"$err") || status=$?
  errors=$(<"$err")
  rm -f -- "$err"
}

equals() { [[ $1 == "$2" ]]; }
differs() { [[ $1 != "$2" ]]; }
contains() { [[ $1 == *"$2"* ]]; }
fails() { ! "$@"; }

# within SECONDS COMMAND... waits until the command succeeds.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# verdict prints the last line and is the script's status.
verdict() {
  echo "$passed passed, $failed failed"
  ((failed == 0))
}
