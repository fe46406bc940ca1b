# Every command of the project. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help run run-sim test netsim e2e lint golden fuzz bench bench-whole profile size cross cross-static cross-test deploy clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start the daemon, and a test RTMP server when port 1935 is free; Ctrl-C ends both
	@tests/scripts/run.sh

run-sim: ## as run, with guests going through a simulated SFU: the remote path without an account
	@tests/scripts/run.sh sim

# Nearly all of the time is spent waiting, so many tests wait side by side, however few cores there are.
test: ## unit, golden and whole-daemon tests
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-16} cargo test --release --workspace --locked

netsim: ## guests behind bad networks, in virtual time: the table; ARGS="--seed 7 blackout" picks a seed and rows
	@cargo build --release --locked --workspace --bins
	@$${CARGO_TARGET_DIR:-target}/release/netsim $(ARGS)

e2e: ## a real Chromium through the page, directly and through the simulated SFU, into RTMP servers; CHECKS="name ..." picks some
	@tests/scripts/e2e.sh $(CHECKS)

lint: ## formatting, clippy, licences and bans, rules for source files
	@tests/scripts/lint.sh

golden: ## bless the muxer's golden files, after ffprobe has confirmed them
	@muxer/tests/golden/bless.sh

fuzz: ## fuzz each parser for FUZZ_SECONDS (20); TARGETS="name ..." picks some
	@tests/scripts/fuzz.sh $(TARGETS)

bench: ## instructions, time and allocations per packet on a recording
	@tests/scripts/bench.sh

bench-whole: ## the daemon under load, 1 to 32 guests, beside Janus, GStreamer and aiortc; QUICK=1 for a look
	@tests/bench/whole.sh

profile: ## instructions of the packet path by function, wake-ups and system calls of the daemon; PROFILE=cm, GUESTS=4
	@tests/scripts/profile.sh

size: ## build the shipped binary; its size, memory and threads, idle and with one guest; CPU of one guest
	@tests/scripts/size.sh

cross: ## the daemon for the board (aarch64, Debian 12), checked; says what is missing here
	@cross/build.sh

cross-static: ## the same with glibc inside, for qemu-user and older systems
	@cross/build.sh static

cross-test: ## the ARM binary under qemu: golden tests, and guests through the whole daemon
	@cross/test.sh

deploy: ## build for the board and install there: HOST=user@board; ROLLBACK=1 goes back to the version before
	@cross/deploy.sh

clean: ## remove build output and the tools fetched for the tests
	cargo clean
	rm -rf .tools tests/browser/node_modules
