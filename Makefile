# make train: install into .venv, train a network on handwritten digits, draw what it does
# make test:  what CI runs
# Give another interpreter with PYTHON=..., an own environment with VENV=...

PYTHON ?= python3
VENV ?= .venv
TORCH ?= 2.13.0
BIN := $(VENV)/bin

.PHONY: train test lint install install-test clean

train: install
	@test -f runs/digits-mlp-seed0/summary.json || $(BIN)/stbp train digits-mlp --resume
	@echo "The pictures:"
	@$(BIN)/stbp plot all runs/digits-mlp-seed0

test: install-test lint
	$(BIN)/python -m pytest -n 2

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

# The environment sees the interpreter's own packages: if it has a torch in range, that one is used.
$(VENV)/.installed: requirements.txt pyproject.toml Makefile
	$(PYTHON) -m venv $(if $(HAS_TORCH),--system-site-packages,) $(VENV)
	$(if $(HAS_TORCH),,$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

HAS_TORCH = $(shell $(PYTHON) -c "from importlib.metadata import version as v; print(1 if tuple(map(int, v('torch').split('+')[0].split('.')[:2])) >= (2, 11) else '')" 2>/dev/null)

clean:
	rm -rf $(VENV) runs
