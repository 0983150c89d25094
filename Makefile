# Everything here works in a fresh clone with Python 3.11+ and make: each target sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo test test-library test-runs test-service check bench reproduce protos clean
.DEFAULT_GOAL := demo

venv: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), f"Unspool needs Python 3.11 to 3.13, this is {sys.version.split()[0]}: try make PYTHON=python3.12"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: venv
	$(BIN)/python examples/demo.py

test: venv
	$(MAKE) --jobs=2 --output-sync=target test-library test-runs test-service

# The parts of `make test`, two at a time: one computes, the others mostly wait for processes of their own.
test-library: venv
	$(BIN)/python -m pytest tests/unspool tests/benchmarks

test-runs: venv
	$(BIN)/python -m pytest tests/end_to_end tests/faults

test-service: venv
	$(BIN)/python -m pytest tests --ignore=tests/unspool --ignore=tests/benchmarks --ignore=tests/end_to_end --ignore=tests/faults

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m protos.generate --check
	$(BIN)/python tools/structure.py

protos: venv
	$(BIN)/python -m protos.generate

bench: venv
	$(BIN)/python -m benchmarks

reproduce: venv
	$(BIN)/python -m benchmarks.reproduce

clean:
	rm -rf .venv
