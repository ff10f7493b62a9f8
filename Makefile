PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-all contracts reliability lint docs clean

demo: $(VENV)/installed
	$(BIN)/nnlab demo --overwrite

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

# With the slow ones: trainings, kills, command lines by the hundred.
test-all: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile

# What holds for every arithmetic, model and script, with another Python and the jax that it gets:
# make contracts PYTHON=python3.12 VENV=.venv-3.12
contracts: $(VENV)/installed-contracts
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" tests/contracts

# The same tests of kills, damage and bad input, with all repetitions and their counts: minutes.
reliability: $(VENV)/installed-test
	NNLAB_THOROUGH=1 $(BIN)/python -m pytest -rP tests/reliability

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The site, into docs/_build/index.html; tables of results first, should a result be new.
docs: $(VENV)/installed-docs
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "nnlab needs Python 3.11 or newer, not $$($(PYTHON) --version 2>&1)." \
		"Name one with PYTHON=python3.12."; exit 2; }
	@echo "Installing nnlab into $(VENV) (a minute or two)"
	@$(PYTHON) -m venv $(VENV)

# What the demo needs, jaxlib's headers for the native kernels among it.
$(VENV)/installed: pyproject.toml setup.py $(wildcard nnlab/kernels/cpp/*) | $(VENV)/bin/python
	@$(BIN)/python -m pip install -qq --editable '.[demo]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed-test
	@$(BIN)/python -m pip install -qq --editable '.[docs]'
	@touch $@

$(VENV)/installed-contracts: $(VENV)/installed
	@$(BIN)/python -m pip install -qq --editable '.[contracts]'
	@touch $@

$(VENV)/installed-%: $(VENV)/installed
	@$(BIN)/python -m pip install -qq --editable '.[test,lint]'
	@touch $@
