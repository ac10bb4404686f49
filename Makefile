# Fresh machine: `make run` (first result table) or `make test` (the test suite). Needs Python 3.11+ only.
PYTHON ?= python3
# The tested version; another one: make install TORCH=torch==X.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install run test check bench bench-gpu controls clean

help:  ## show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ ##/' | awk -F ' ## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/installed  ## make the virtual environment .venv with the tested versions

run: install  ## the embedded default: toy model, toy authors, IHL + FILA; no hub, no GPU
	$(BIN)/python -m loku_exp

test: install  ## the whole test suite
	$(BIN)/python -m pytest -n 2

check: install  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## speed and memory beside their limits (about three minutes)
	$(BIN)/python -m benchmarks

bench-gpu: install  ## the published shapes on one CUDA card (ten minutes); exits where there is none
	$(BIN)/python -m benchmarks.gpu

controls: install  ## negative controls: models whose judgement is known, on the toys (five minutes)
	$(BIN)/python -m benchmarks.controls

clean:  ## remove the virtual environment and caches of tools; outputs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info dist build
