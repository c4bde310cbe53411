# Before the First Step. `make help` lists the targets; `make book` and `make test` need nothing but Python 3.11.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SCALE ?= cpu
ifeq ($(GPU),1)
SCALE := gpu
export FIRSTSTEP_DEVICE := cuda
endif
export FIRSTSTEP_SCALE := $(SCALE)
WORKERS ?= 2
# One BLAS thread a process: the matrices here are small, and threads that wait for a busy core cost far more than
# they gain. Raise THREADS for the gpu scale's sizes on an idle machine.
THREADS ?= 1

BUILD := _build
READY := $(VENV)/.ready
BUILT := $(BUILD)/.built-$(SCALE)
PAGES := $(shell find book -type f -not -path '*/.ipynb_checkpoints/*')
SOURCES := _config.yml _toc.yml requirements.txt $(PAGES) $(shell find src -type f -not -name '*.pyc' -not -path '*.egg-info/*') $(wildcard results/*/*.json)

.DEFAULT_GOAL := help
.PHONY: help book test unit notebooks site results lab bench lock lint clean scale

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*##[[:space:]]*(.*)/  make \1\t\2/' | expand -t 20
	@echo "  SCALE=smoke|cpu|gpu sets the size of every experiment (default cpu); GPU=1 means SCALE=gpu on cuda."

book: $(BUILT)  ## execute every page and build the book, strictly; then open _build/html/index.html
	@echo "The book is ready ($(SCALE) scale). Open $(CURDIR)/$(BUILD)/html/index.html in a browser."

# A page that was built with a warning must not pass unseen on the next run, so Sphinx always starts from clean;
# executed pages come from the cache, whose key holds the package's source.
$(BUILT): $(SOURCES) | $(READY) scale
	rm -rf $(BUILD)/html $(BUILD)/.doctrees $(BUILD)/.built-*
	OMP_NUM_THREADS=$(THREADS) $(BIN)/jupyter-book build . --warningiserror --keep-going
	touch $@

scale: | $(READY)
	@$(BIN)/python -c "from firststep import scale; scale.device()" 2>&1 | tail -n 1 >&2

test: | $(READY)  ## unit tests, and every notebook at smoke scale, in parallel
	FIRSTSTEP_SCALE=smoke OMP_NUM_THREADS=$(THREADS) $(BIN)/pytest -n $(WORKERS) tests/unit tests/faults
	$(MAKE) --no-print-directory notebooks SCALE=smoke

unit: | $(READY)  ## unit tests only
	FIRSTSTEP_SCALE=smoke OMP_NUM_THREADS=$(THREADS) $(BIN)/pytest -n $(WORKERS) tests/unit

notebooks: | $(READY)  ## every notebook through nbmake, at SCALE, with a time limit each
	OMP_NUM_THREADS=$(THREADS) $(BIN)/pytest -n $(WORKERS) --nbmake --nbmake-timeout=600 --timeout=900 book

site: | $(BUILT)  ## the built book in a real browser
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup tests/site

results: | $(READY)  ## the recorded long runs that the book shows: what is missing in results/ (hours)
	$(BIN)/python -m firststep.recorded --workers $(WORKERS)

lab: | $(READY)  ## open the book's notebooks in JupyterLab
	$(BIN)/python -m ipykernel install --sys-prefix --name firststep --display-name "Before the First Step"
	$(BIN)/jupyter lab --ServerApp.root_dir=. book/intro.md

bench: | $(READY)  ## benchmarks, side by side with what one would use instead
	OMP_NUM_THREADS=$(THREADS) $(BIN)/pytest benchmarks --benchmark-only --benchmark-columns=min,median,rounds --benchmark-group-by=group

lint: | $(READY)  ## ruff
	$(BIN)/ruff check .

TORCH := 2.13.0
lock: | $(READY)  ## regenerate requirements.txt from pyproject.toml
	mkdir -p $(BUILD)
	$(BIN)/pip-compile --quiet --upgrade --upgrade-package torch==$(TORCH) --all-extras --strip-extras --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file $(BUILD)/lock.txt pyproject.toml
	{ head -n 2 requirements.txt; sed -E 's/^(torch==[0-9.]+)\+.*$$/\1/' $(BUILD)/lock.txt; } > $(BUILD)/lock.new
	mv $(BUILD)/lock.new requirements.txt

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:  ## remove everything that was built; .venv stays
	rm -rf $(BUILD)
