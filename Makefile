# Everything that is done to this project, one verb each. CI runs these and nothing else (.ci/run).
#
#   make demo     an environment, a build, a server with the examples, a few requests; serves until Ctrl-C
#   make test     the same environment, then format, lint, Go's tests with the race detector, Python's tests
#
# SPVN_PYTHON=python3.12 picks the Python (default: python3), VENV=DIR the environment (default: .venv).

SPVN_PYTHON ?= python3
VENV ?= .venv
TOOLS := $(CURDIR)/.tools
PYTEST_ARGS ?=

PYTHON = $(VENV)/bin/python
# The environment's Go comes last: it is there only where the machine has none (tools/environment).
export PATH := $(TOOLS):$(PATH):$(abspath $(VENV))/bin
export GOTOOLCHAIN := local
CORE_CFLAGS = -I$(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_paths()["include"])')

.DEFAULT_GOAL := build
.PHONY: demo build fmt lint lint-go lint-python test test-go test-python test-all tools system-tools generate \
	perf perf-quick perf-overload perf-micro soak wheel clean

demo: build
	$(PYTHON) tools/demo.py

build: $(VENV)/.ready
	$(PYTHON) setup.py --quiet build_ext --inplace

# The environment: spvn installed in place, with everything that the tests need.
$(VENV)/.ready: pyproject.toml setup.py tools/environment _build/toolchain.py
	tools/environment "$(SPVN_PYTHON)" "$(VENV)"
	@touch $@

fmt: build $(TOOLS)/.ready
	gofmt -w gosrc
	$(PYTHON) -m ruff check --fix-only --quiet .
	$(PYTHON) -m ruff format --quiet .

lint: lint-go lint-python

lint-go: build $(TOOLS)/.ready
	@files=$$(gofmt -l gosrc); [ -z "$$files" ] || { echo "gofmt: make fmt changes $$files" >&2; exit 1; }
	go vet ./...
	CGO_CFLAGS="$(CORE_CFLAGS)" go vet -tags python ./gosrc/core
	staticcheck ./...

lint-python: build
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

test: lint test-go test-python

test-go: build
	go test -race ./...

test-python: build $(TOOLS)/.ready
	$(PYTHON) -m pytest $(PYTEST_ARGS)

# Python's tests on every Python from 3.9 on that is found, one environment each (SPVN_PYTHONS names more).
test-all: $(TOOLS)/.ready
	@set -e; for python in $$(tools/pythons $(SPVN_PYTHONS)); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "== Python $$version: $$python"; \
		$(MAKE) --no-print-directory test-python SPVN_PYTHON="$$python" VENV=".venv-$$version"; \
	done

# What the tests and the generator use beside Python's packages: Go tools of tools/go.mod, programs of the system.
tools: $(TOOLS)/.ready system-tools
	tools/autobahn "$(TOOLS)"

$(TOOLS)/.ready: tools/go.mod tools/go.sum | $(VENV)/.ready
	cd tools && GOBIN="$(TOOLS)" GOFLAGS=-mod=readonly go install tool
	@touch $@

system-tools:
	tools/system-tools

generate: $(TOOLS)/.ready $(VENV)/.ready
	go run ./gosrc/link/schemagen
	$(PYTHON) tools/bindings.py
	gofmt -w gosrc/core

# Also writes what the README and docs/performance.md show of the results.
perf: build
	$(PYTHON) perf/run.py
	$(PYTHON) perf/run.py --publish perf/results/full.json

perf-quick: build
	$(PYTHON) perf/run.py --quick

# More asked than can be done, beside the rivals: about twelve minutes.
perf-overload: build
	$(PYTHON) perf/run.py --works overload-before,overload-behind --output perf/results/overload

# Each stage of a call on its own, in nanoseconds beside its budget.
perf-micro: build
	$(PYTHON) perf/micro.py

# The tests that take minutes: rings across processes, floods, leaks.
soak: build
	SPVN_SOAK=1 go test -race -timeout 60m ./...
	SPVN_SOAK=1 $(PYTHON) -m pytest -m soak $(PYTEST_ARGS)

wheel: $(VENV)/.ready
	$(PYTHON) -m build --outdir dist

clean:
	rm -rf build dist .venv .venv-* .tools .mypy_cache .ruff_cache .pytest_cache python/*.egg-info
	find python \( -name '*.so' -o -name '__pycache__' \) -prune -exec rm -rf {} +
