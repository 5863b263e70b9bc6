# make train: install into .venv, train a network on handwritten digits, draw what it does
# make test:  what CI runs
# Give another interpreter with PYTHON=..., an own environment with VENV=...

PYTHON ?= python3
VENV ?= .venv
TORCH ?= 2.13.0
BIN := $(VENV)/bin
PIP = PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
CHECK_TORCH = -c "from importlib import metadata as m; print('yes' if [int(n) for n in m.version('torch').split('.')[:2]] >= [2, 11] else 'no')" 2>/dev/null

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

# If the interpreter has a torch in range, the environment sees the interpreter's packages and uses it.
$(VENV)/.installed: requirements.txt pyproject.toml Makefile
	$(PYTHON) -m venv $(if $(filter yes,$(shell $(PYTHON) $(CHECK_TORCH))),--system-site-packages) $(VENV)
	test "$$($(BIN)/python $(CHECK_TORCH))" = yes || $(PIP) install torch==$(TORCH)
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(PIP) install -r requirements-test.txt
	@touch $@

clean:
	rm -rf $(VENV) runs
