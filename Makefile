# Two commands are enough: `make demo` and `make test`. Both create .venv and install what they need with pip.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

# The first Python on the PATH that is new enough; name another one with `make demo PYTHON=python3.12`.
new_enough := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,\
	$(shell $(p) -c '$(new_enough)' 2>/dev/null && echo $(p))) python3)

# Linux wheels of torch on PyPI bring gigabytes of CUDA libraries, and nothing here needs them. For a GPU build name
# its index (`make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130`), or PyPI's own with `TORCH_INDEX=`.
TORCH_INDEX ?= $(if $(filter Linux,$(shell uname -s)),https://download.pytorch.org/whl/cpu)

# Test processes; two suit a small machine.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test check docs clean

help: ## Show this list
	@echo "GTR Suite: vision-language agents that learn with a free teacher"
	@echo
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(VENV)/.installed ## Train a tiny vision-language model on Points24 and write its report
	$(BIN)/gtr demo

# What needs ALFWorld's engine is tested if the engine is there, and measured only then.
test: $(VENV)/.installed $(VENV)/.tried-alfworld $(VENV)/.tried-deepspeed ## Run the tests of both packages and measure their coverage
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --cov --cov-report=
	$(BIN)/python -m coverage report --include='gtr_envs/*' --fail-under=90 \
		$$($(BIN)/python -c 'import textworld' 2>/dev/null || echo --omit="gtr_envs/alfworld/*")
	$(BIN)/python -m coverage report --include='gtr_agents/*' --fail-under=90

check: $(VENV)/.installed ## Run the linters, the type checker and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: $(VENV)/.installed-docs ## Build the documentation into docs/_build/html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

clean: ## Remove the virtual environment and everything that was built
	rm -rf $(VENV) docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage

# torch goes first and alone, so that its index is asked for nothing else.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c '$(new_enough)' 2>/dev/null || { \
		echo "GTR Suite needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo no Python)."; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Installing into $(VENV); this happens once and takes a few minutes."
	@$(PYTHON) -m venv $(VENV) || { echo "Creating $(VENV) failed. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP) install --quiet --constraint constraints.txt --no-deps --retries 1 \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) install --quiet --constraint constraints.txt --editable ".[agents,dev]"
	@touch $@

# Its planner is compiled on installation, by a build that calls `python`; nobody should lack the rest for want of it.
$(VENV)/.tried-alfworld: $(VENV)/.installed
	@echo "Building ALFWorld's engine; this happens once and takes about two minutes."
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --quiet --constraint constraints.txt --editable ".[alfworld]" || \
		echo "The engine could not be built (it needs g++ and make, see 'gtr doctor'): its tests are skipped."
	@touch $@

# In a folder of its own: where it can be imported, every process that saves a model does so, for seconds.
$(VENV)/.tried-deepspeed: $(VENV)/.installed
	@$(PIP) install --quiet --constraint constraints.txt --no-deps --target $(VENV)/deepspeed \
		deepspeed einops hjson msgpack ninja py-cpuinfo || \
		echo "DeepSpeed could not be installed: its tests are skipped."
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[agents,docs]"
	@touch $@
