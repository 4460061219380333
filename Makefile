# Two commands do everything: `make demo` and `make test`. Both call `setup` themselves.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
LS_VENV := .venv-label-studio
BIN := $(VENV)/bin
VIEWER := tasks/rendering/static/viewer.bundle.js
VALIDATOR := tests/validator/node_modules/.ready
REVIEWER ?= scripted

# One thread a process: two and more are slower on a busy machine (docs/performance.md).
OMP_NUM_THREADS ?= 1
OPENBLAS_NUM_THREADS ?= 1
MKL_NUM_THREADS ?= 1
NUMBA_NUM_THREADS ?= 1
export OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS NUMBA_NUM_THREADS

.DEFAULT_GOAL := help
.PHONY: help setup hooks check test test-fast test-unit test-integration test-chaos test-gpu coverage docs bench demo up \
  down status lock lock-checkout lock-cpu lock-gpu clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

# A Debian python without the python3-venv package cannot put pip into a new environment;
# then the machine's own pip installs into it from outside.
define make_venv
	$(PYTHON) -m venv $(1) 2>/dev/null || { rm -rf $(1) && $(PYTHON) -m venv --without-pip $(1) \
	  && $(PYTHON) -m pip --python $(1)/bin/python install -q pip; }
	$(1)/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r $(2)
endef

# torch is apart: its CPU and CUDA builds are other files on other indexes, so no hash fits everywhere.
$(VENV)/.ready: requirements.lock requirements-torch.lock pyproject.toml
	$(call make_venv,$(VENV),requirements.lock)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-torch.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(LS_VENV)/.ready: infra/label-studio/requirements.lock
	$(call make_venv,$(LS_VENV),infra/label-studio/requirements.lock)
	@touch $@

$(VIEWER): $(VENV)/.ready infra/viewer/build.py infra/viewer/package-lock.json $(wildcard infra/viewer/src/*.js)
	$(BIN)/python -m infra.viewer.build

$(VALIDATOR): $(VENV)/.ready tests/validator/package-lock.json
	$(BIN)/python -m infra.viewer.build --install tests/validator
	@touch $@

setup: $(VENV)/.ready $(LS_VENV)/.ready $(VIEWER) ## build .venv, .venv-label-studio (Label Studio's pins clash with Prefect's), the 3D viewer

hooks: $(VENV)/.ready ## run the checks of .pre-commit-config.yaml before each commit
	$(BIN)/pre-commit install

check: $(VENV)/.ready ## lint, format, spelling, types and import contracts, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup $(VALIDATOR) ## all tests that this machine can run; says which it skipped and why
	$(BIN)/python -m pytest

test-fast: $(VENV)/.ready $(VIEWER) ## unit tests only, under a minute or two
	$(BIN)/python -m pytest tests/unit -m "not slow"

test-unit: $(VENV)/.ready $(VIEWER) $(VALIDATOR) ## every unit test, also the slow ones
	$(BIN)/python -m pytest tests/unit

test-integration: setup ## whole flows on a real S3 server, Prefect and Label Studio
	$(BIN)/python -m pytest tests/integration

test-chaos: setup ## the whole loop while everything is killed, reads lie and clocks are off; about 4 minutes
	$(BIN)/python -m pytest tests/chaos

test-gpu: $(VENV)/.ready ## tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

coverage: $(VENV)/.ready $(VIEWER) ## every unit test, with line coverage of segvigen_model and tasks; fails below 90 %
	$(BIN)/python -m pytest tests/unit --cov --cov-report=term:skip-covered --cov-report=html

docs: $(VENV)/.ready ## build the documentation site into build/docs; a broken link fails
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.ready ## tables of timings; never part of the tests
	@for script in tests/bench/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

demo: setup ## the whole loop on the local stack; REVIEWER=human waits for you in Label Studio
	$(BIN)/segvigen demo --reviewer $(REVIEWER)

up: setup ## start the local stack on 127.0.0.1
	$(BIN)/segvigen up

down: ## stop the local stack
	$(BIN)/segvigen down

status: ## counts per state, shards, URLs
	$(BIN)/segvigen status

COMPILE := uv pip compile --python-version 3.11 --universal --no-header --no-annotate -q --generate-hashes
# torch and its CUDA packages are left out: requirements-torch.lock names the version.
WITHOUT_TORCH := awk '/^[^ ]/ {out = /^(torch==|nvidia-|cuda-|triton==)/} !out'
EXTRAS_OF_CHECKOUT := pipeline review postgres local official formats usd dev docs
EXTRAS_OF_cpu := pipeline review postgres local formats
EXTRAS_OF_gpu := $(EXTRAS_OF_cpu) gpu official

lock: lock-checkout lock-cpu lock-gpu ## resolve the lock files anew, with the hash of every file (needs uv)
	echo label-studio==1.23.2 | $(COMPILE) - -o infra/label-studio/requirements.lock

lock-checkout:
	$(COMPILE) pyproject.toml $(addprefix --extra ,$(EXTRAS_OF_CHECKOUT)) -c requirements-torch.lock -o requirements.lock
	$(WITHOUT_TORCH) requirements.lock > requirements.lock.new && mv requirements.lock.new requirements.lock

lock-cpu lock-gpu: lock-%: lock-checkout # the images: the same versions, fewer packages
	$(COMPILE) pyproject.toml $(addprefix --extra ,$(EXTRAS_OF_$*)) -c requirements-torch.lock -c requirements.lock \
	  -o infra/docker/requirements-$*.lock
	$(WITHOUT_TORCH) infra/docker/requirements-$*.lock > infra/docker/requirements.new
	mv infra/docker/requirements.new infra/docker/requirements-$*.lock

clean: ## remove the environments; the data under .segvigen stays
	rm -rf $(VENV) $(LS_VENV) $(VIEWER) infra/viewer/node_modules tests/validator/node_modules build *.egg-info
