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
ENGINE ?= joblib
SCHEDULER ?=
RETRY ?=
ONLY ?=

PY := $(BIN)/python
BUILD := _build
READY := $(VENV)/.ready
BUILT := $(BUILD)/.built-$(SCALE)
PAGES := $(shell find book -type f -not -path '*/.ipynb_checkpoints/*')
SOURCES := _config.yml _toc.yml requirements.txt $(PAGES) $(shell find src -type f -not -name '*.pyc' -not -path '*.egg-info/*') $(wildcard results/*.md results/*/*/*.json)

.DEFAULT_GOAL := help
.PHONY: help book test unit notebooks site results rehearse lab bench lock lint clean scale

# What runs unattended writes nothing to a home directory, which a container may lack.
$(BUILT) test unit notebooks site rehearse results: export MPLCONFIGDIR := $(CURDIR)/$(BUILD)/.matplotlib
$(BUILT) test unit notebooks site rehearse results: export XDG_CACHE_HOME := $(CURDIR)/$(BUILD)/.cache
$(BUILT) test unit notebooks site rehearse results: export IPYTHONDIR := $(CURDIR)/$(BUILD)/.ipython
$(BUILT) test unit notebooks site rehearse results: export JUPYTER_CONFIG_DIR := $(CURDIR)/$(BUILD)/.jupyter
$(BUILT) test unit notebooks site rehearse results: export JUPYTER_RUNTIME_DIR := $(CURDIR)/$(BUILD)/.jupyter/runtime

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*##[[:space:]]*(.*)/  make \1\t\2/' | expand -t 20
	@echo "  SCALE=smoke|cpu|gpu sets the size of every experiment (default cpu); GPU=1 means SCALE=gpu on cuda."
	@echo "  make results: ONLY=chapter/sweep; RETRY=1 runs again what failed; ENGINE=dask SCHEDULER=tcp://host:8786, or none: a cluster here."

book: $(BUILT)  ## execute every page and build the book, strictly; then open _build/html/index.html
	@echo "The book is ready ($(SCALE) scale). Open $(CURDIR)/$(BUILD)/html/index.html in a browser."

# The pages run in WORKERS kernels, longest first, into the cache from which Sphinx then builds the book from clean.
$(BUILT): $(SOURCES) | $(READY) scale
	rm -f $(BUILD)/.built-*
	FIRSTSTEP_WORKERS=$(WORKERS) OMP_NUM_THREADS=$(THREADS) $(PY) -m firststep.book.execute
	touch $@

scale: | $(READY)
	@$(PY) -c "from firststep import scale; scale.device()" 2>&1 | tail -n 1 >&2

# One process more than cores: the fault tests mostly wait for processes that they killed.
test: | $(READY)  ## unit tests, and every notebook at smoke scale, in parallel
	FIRSTSTEP_SCALE=smoke OMP_NUM_THREADS=$(THREADS) $(PY) -m pytest -n $$(($(WORKERS) + 1)) tests/faults tests/unit
	$(MAKE) --no-print-directory notebooks SCALE=smoke

unit: | $(READY)  ## unit tests only
	FIRSTSTEP_SCALE=smoke OMP_NUM_THREADS=$(THREADS) $(PY) -m pytest -n $(WORKERS) tests/unit

# Under this profile a call that makes a tensor without naming a device is an error: on a GPU it would be the wrong one.
notebooks: | $(READY)  ## every notebook through nbmake, at SCALE, with a time limit each
	rm -rf $(BUILD)/.strict_device $(BUILD)/verdicts && mkdir -p $(BUILD) && cp -R tests/strict_device $(BUILD)/.strict_device
	IPYTHONDIR="$(CURDIR)/$(BUILD)/.strict_device" OMP_NUM_THREADS=$(THREADS) $(PY) -m pytest -n $(WORKERS) --nbmake --nbmake-timeout=600 --timeout=900 book
	$(PY) -m firststep.book.claims  # a claim that SCALE can settle comes out as pinned

SHARE ?= 1
site: | $(BUILT)  ## the built book in a real browser: every page, or one in SHARE, on each day others
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup --share $(SHARE) tests/site

# RETRY=1 runs again what failed; ENGINE=dask computes on a Dask cluster, at SCHEDULER=tcp://host:8786 or on this machine.
results: | $(READY)  ## the recorded long runs that the book shows: what is missing in results/ (hours)
	OMP_NUM_THREADS=$(THREADS) $(PY) -m firststep.book.recorded $(ONLY) --workers $(WORKERS) --engine $(ENGINE) \
	  $(if $(SCHEDULER),--scheduler $(SCHEDULER)) $(if $(filter 1,$(RETRY)),--retry)

lab: | $(READY)  ## open the book's notebooks in JupyterLab
	$(PY) -m jupyterlab --ServerApp.root_dir=. book/intro.ipynb

rehearse: | $(READY)  ## every page, or PAGE=…, at the sizes of the gpu scale, with few repetitions, on whatever device there is
	mkdir -p $(BUILD)  # else IPython says that its folder cannot be made
	OMP_NUM_THREADS=$(THREADS) FIRSTSTEP_DEVICE= $(PY) -m firststep.book.rehearse $(PAGE)

bench: | $(READY)  ## benchmarks, side by side with what one would use instead
	OMP_NUM_THREADS=$(THREADS) $(PY) -m pytest benchmarks --benchmark-only --benchmark-columns=min,median,rounds --benchmark-group-by=group

lint: | $(READY)  ## ruff: errors and format, of notebooks too
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

TORCH := 2.13.0
lock: | $(READY)  ## regenerate requirements.txt from pyproject.toml
	mkdir -p $(BUILD)
	$(PY) -m piptools compile --quiet --upgrade --upgrade-package torch==$(TORCH) --all-extras --strip-extras --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file $(BUILD)/lock.txt pyproject.toml
	{ head -n 2 requirements.txt; sed -E 's/^(torch==[0-9.]+)\+.*$$/\1/' $(BUILD)/lock.txt; } > $(BUILD)/lock.new
	mv $(BUILD)/lock.new requirements.txt

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:  ## remove everything that was built; .venv stays
	rm -rf $(BUILD)
