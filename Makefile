# The contract: build, demo, test, lint. Each installs what it needs by .ci/deps, which says
# what: building the first list, hw-report what it measures with, all else both lists.

GO ?= go

# Debian's and Ubuntu's names of what building, and the testbed and the tests, use.
TO_BUILD := gcc libc6-dev libibverbs-dev
PACKAGES := $(TO_BUILD) libibverbs1 ibverbs-providers rdma-core \
	ibverbs-utils rdmacm-utils perftest qperf iperf3 fio socat ncat rsync iproute2 \
	kmod dmsetup e2fsprogs iputils-ping qemu-system-x86 busybox-static cpio \
	util-linux procps time strace xz-utils zstd debian-archive-keyring b3sum xxhash shellcheck shfmt

# Tags leave out of the binary what nobody can ask it for: manual pages, plots as PDF and PNG.
TAGS := urfave_cli_no_docs,minimal

# VM runs a command in a machine with soft-RoCE and its two hosts.
VM := testbed/vm --pair

# Each wants the machine for itself, and apt is had by one at a time.
.NOTPARALLEL:

.PHONY: build demo test test-unit test-rxe test-testbed test-long faults testbed-table lint deps \
	bench-send bench-rails bench-verbs bench-tcp bench-files bench-requests compare hw-report clean

build:
	@.ci/deps $(TO_BUILD)
	CGO_ENABLED=1 $(GO) build -trimpath -tags $(TAGS) -o bin/rdmaxfer ./cmd/rdmaxfer

# One real file from host b to host a, over RDMA and over TCP. FILE=... chooses it.
demo: deps build
	testbed/demo $(if $(FILE),"$(FILE)")

test: deps
	$(MAKE) test-unit test-testbed test-rxe

# What needs no RDMA, on this machine; the second build is the one without cgo, with the tags.
# The race detector has each process wait a second before it ends, for reports; most are of tests
# that start the program, which would do little but that.
test-unit: export GORACE = atexit_sleep_ms=50
test-unit: deps
	$(GO) vet ./... && $(GO) vet -tags rxe ./... && CGO_ENABLED=0 $(GO) vet -tags $(TAGS) ./...
	$(GO) test -race -timeout 20m ./...
	CGO_ENABLED=0 $(GO) test -tags $(TAGS) -timeout 10m ./cmd/... ./compare/... ./transfer/... ./tcpfallback/...
	GOOS=darwin CGO_ENABLED=0 $(GO) build ./ibverbs

test-testbed: deps
	testbed/test.sh core

# The same packages on real soft-RoCE, in one boot of the testbed's machine.
test-rxe: deps
	.ci/test-rxe

# What takes longer: every fault and peer, other kernels, the race detector on rxe, and a
# million lives of lanes.
test-long: deps
	$(GO) test ./transfer -run TestFates -fates=1000000 -timeout 30m
	testbed/test.sh rest
	.ci/test-rxe --long

# Transfers of every kind, each with one fault at a random moment: what lands is what was
# sent, and every exit status is right. FAULTS_SEED=... repeats the runs of that seed.
RUNS ?= 200
faults: deps
	.ci/test-rxe --faults $(RUNS) $(FAULTS_SEED)

# The table of kernels in docs/testbed.md, made by trying; test-long checks it.
testbed-table: deps
	testbed/kernels --write docs/testbed.md

lint: deps
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt -w: $$out"; exit 1; }
	$(GO) vet ./... && $(GO) vet -tags rxe ./...
	GOARCH=386 CGO_ENABLED=0 $(GO) build ./... # where an int is short
	$(GO) tool staticcheck ./...
	$(GO) tool staticcheck -tags rxe ./...
	shellcheck -x -P SCRIPTDIR $$(.ci/scripts)
	shfmt -i 2 -ci -d $$(.ci/scripts)

# The judged figures of one file: thirteen rounds of rdmaxfer by each op, perftest's
# program of that name and rcopy in turn, in the testbed. LANES=... of both.
bench-send: deps build
	$(VM) --idle-poll --env LANES --timeout 3600 -- testbed/bench-send 13

# Two rails beside one, each as slow as the other.
bench-rails: deps build
	$(VM) --timeout 900 -- testbed/bench-rails 7

# bench beside perftest, in turn: bandwidth, latency, and waiting on events, counted.
bench-verbs: deps build
	$(VM) --idle-poll --timeout 3400 -- testbed/bench-verbs $(or $(ROUNDS),25)
	$(VM) --deterministic --timeout 900 -- testbed/bench-verbs 3 events

# TCP natively, over loopback and between two namespaces (as root): beside socat, ncat, an
# rsync daemon, iperf3 and scp, in turn, and each method out with each landing in:
# ROUNDS=... of MIB=... each.
bench-tcp: deps build
	for what in peers matrix; do for link in loopback veth; do \
		timeout --foreground 3600 testbed/bench-tcp $(or $(ROUNDS),9) $(or $(MIB),1024) $$what $$link || exit; \
	done; done

# Many small files beside rsync's daemon, as root: natively over TCP, and in the testbed over
# RDMA. ROUNDS=... of FILES=... each, ONLY=... of them; DIR=... is a directory on ext4 for the first.
bench-files: deps build
	testbed/bench-files $(or $(ROUNDS),9) $(or $(FILES),20000) native $(DIR)
	$(VM) --env ONLY --timeout 3600 -- testbed/bench-files $(or $(ROUNDS),9) $(or $(FILES),1000) pair

# Small questions and their answers: a lane's protocol beside Go's net/http.
bench-requests: deps
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/requests ./tcpfallback/internal/requests
	timeout --foreground 600 bin/requests -rounds $(or $(ROUNDS),9)

# The report that README shows, of the testbed: out/compare.html. Where RDMA is emulated it
# says how that does, and shows what the report of real hosts looks like.
compare: deps build
	mkdir -p out
	$(VM) --timeout 1800 --out out -- testbed/compare --rounds 9 --duration 500ms

# For whoever has RDMA hardware: one report to send back, out/hw-report.json, of this host
# and HOST, on which "bin/rdmaxfer recv --discard --allow-peers --key-file KEY" runs.
# DISK=... is a directory whose disk is measured too.
hw-report: build
	@[ -n "$(HOST)" ] && [ -n "$(KEY)" ] || { echo "usage: make hw-report HOST=ADDR KEY=FILE [DISK=DIR]"; exit 2; }
	@.ci/deps perftest qperf iperf3 $(if $(DISK),fio)
	mkdir -p out
	bin/rdmaxfer compare --key-file "$(KEY)" --peers --hardware $(if $(DISK),--fio "$(DISK)") --sizes 4K,64K,1M --rounds 9 --duration 2s \
		--json out/hw-report.json --html out/hw-report.html "$(HOST)"

deps:
	@.ci/deps $(PACKAGES)

clean:
	rm -rf bin out
