# shellcheck shell=bash
# go test -exec: what the go command wants back from a test binary besides its
# output are files, in directories that its arguments name.

# go_test_outs COMMAND ARG... prints the directories, zero-terminated, that must
# be --out for a Go test binary's profiles, coverage and fuzz corpora to come
# back. For any other command it prints nothing.
go_test_outs() {
  local arg value outputdir=. profiles=()
  [[ $1 == *.test ]] || return 0
  shift
  for arg; do
    value=${arg#*=}
    case $arg in
      -test.outputdir=*) outputdir=$value ;;
      -test.coverprofile=* | -test.cpuprofile=* | -test.memprofile=* | \
        -test.blockprofile=* | -test.mutexprofile=* | -test.trace=*) profiles+=("$value") ;;
      -test.gocoverdir=* | -test.fuzzcachedir=*) printf '%s\0' "$value" ;;
      # A failing input is written to testdata/fuzz of the package.
      -test.fuzz=?*) printf '%s\0' . ;;
    esac
  done
  for value in "${profiles[@]}"; do
    case $value in
      /*) printf '%s\0' "$(dirname -- "$value")" ;;
      ?*) printf '%s\0' "$(dirname -- "$outputdir/$value")" ;;
    esac
  done
}
