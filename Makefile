PYTHON ?= python3
OUT ?= runs/demo
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOCK := requirements-dev.lock
LOCK_EXTRAS := dev plots tensorboard mujoco data robots minari onnx slurm docs
# A file stays with one process. One that crashes (as jaxlib may) fails its test and is not replaced:
# pytest-xdist would hang.
PARALLEL := -n auto --dist loadfile --max-worker-restart=0

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo paper-gpu docs test test-slow test-fresh test-slurm check bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Variables: PYTHON=$(PYTHON) (for setup), OUT=$(OUT) (for demo), ARGS (for test, bench, paper-gpu).'

setup: $(INSTALLED) ## make .venv with the locked dependencies and safemesa (editable)

$(INSTALLED): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("safemesa needs Python 3.11 or newer, but $(PYTHON) is %d.%d; try: make setup PYTHON=python3.12" % v[:2])'
	@test -x $(BIN)/python || { echo 'Creating $(VENV)'; $(PYTHON) -m venv $(VENV); }
	@echo 'Installing $(LOCK) into $(VENV) (once; some minutes)'
	@$(BIN)/python -m pip install --quiet --requirement $(LOCK)
	@echo 'Installing safemesa (editable)'
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: setup ## train, adapt and deploy a small example; results in OUT
	@$(BIN)/safemesa demo --out $(OUT)

paper-gpu: setup ## run the paper's figures 4 to 6 on one accelerator; ARGS=--estimate says how long
	@$(BIN)/safemesa paper gpu $(ARGS)

docs: setup ## build the documentation site in docs/_build/html
	@$(BIN)/python -m sphinx -E -b html -W --keep-going -n -q docs docs/_build/html
	@echo 'Site: docs/_build/html/index.html'

# submitit has closed pytest's captured output in a process that ran other tests before: its jobs are
# tested in a process of their own.
test: setup ## run the tests on all cores
	@$(BIN)/python -m pytest -q $(PARALLEL) --ignore=tests/test_cluster.py $(ARGS)
	@$(BIN)/python -m pytest -q tests/test_cluster.py

test-slow: setup ## run the slow tests (learning, end to end)
	@$(BIN)/python -m pytest -q $(PARALLEL) -m slow $(ARGS)

test-fresh: setup ## run the CSV example from the built wheel in a fresh environment (needs a package index)
	@$(BIN)/python -m pytest -q -rs -m slow tests/test_fresh_environment.py $(ARGS)

test-slurm: setup ## run grids on a SLURM of one node (needs root and the packages slurm-wlm)
	@$(BIN)/python -m pytest -q -rs -m slurm $(ARGS)

check: setup ## lint, formatting, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

bench: setup ## measure speed against PyTorch, Stable-Baselines3 and SBX
	@echo 'Installing the bench extra (PyTorch is large)'
	@$(BIN)/python -m pip install --quiet --constraint $(LOCK) --editable '.[bench]'
	@$(BIN)/python -m benchmarks.speed $(ARGS)

lock: setup ## resolve the newest versions into requirements-dev.lock, for every supported Python
	@$(BIN)/python -m pip install --quiet uv
	@UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --upgrade --universal \
		--python-version 3.11 --no-emit-index-url $(LOCK_EXTRAS:%=--extra %) \
		--output-file $(LOCK) pyproject.toml
	@echo 'Wrote $(LOCK)'

clean: ## remove .venv, caches and build output (not runs/ or data/)
	rm -rf $(VENV) dist build docs/_build .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
