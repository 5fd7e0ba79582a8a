# Everything a fresh checkout needs, with nothing but Python >= 3.11, pip and make:
#   make demo    install, then the whole road on MovieLens
#   make test    install, then every check and test
# RECSYS_DATA_DIR names a folder with the public data sets, for the tests and benchmarks that read them.

VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CONFIG ?= configs/demo.yaml

# Read when a process starts, so they cannot be set from inside it. The two MALLOC_ lines keep freed
# blocks in the process: a training step on the CPU is a quarter faster for half a gigabyte of memory.
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592
# A local Ray listens on loopback only; nobody reports usage; nothing is fetched behind our back.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER ?= 0
export RAY_USAGE_STATS_ENABLED ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true
export DO_NOT_TRACK ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help venv demo test check format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     install and run $(CONFIG): raw files to a bundle, with a table of the models"
	@echo "make test     install, check and test everything"
	@echo "make check    linter, formatter and type checker"
	@echo "make format   let the linter and the formatter mend what they can"
	@echo "make bench-X  run a benchmark: $(subst _,-,$(notdir $(basename $(BENCHMARKS))))"
	@echo "make clean    delete caches and the virtual environment; results in out/ stay"

venv: $(STAMP)

# The first Python that is new enough; a name on the path may be a shim that does not run.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHON) python3 python3.11 python3.12 python3.13 python; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      found=$$python; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "No Python >= 3.11 found. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$found ($$($$found --version))"; \
	  $$found -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[dev]' </dev/null
	@touch $@

demo: venv
	$(BIN)/recsys run $(CONFIG)

test: check
	$(BIN)/python -m pytest $(TESTS)

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One target for every script in tests/benchmarks, `-` for `_`: make bench-set-losses
BENCHMARKS := $(filter-out tests/benchmarks/test_% %/environments.py %/generator.py %/served.py \
	%/planted.py,$(wildcard tests/benchmarks/*.py))
bench-%: venv
	$(BIN)/python tests/benchmarks/$(subst -,_,$*).py $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
