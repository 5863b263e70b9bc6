# make train: install into .venv, train a network on handwritten digits, draw what it does
# make test:  lint, types and the quick tests, a few minutes;  make test-all: the slow ones too, as CI does
# make bench: beside other libraries, some 20 minutes; DATA=DIR for a folder with mnist/
# make install-gpu: Triton, so that `make test` tests the GPU kernels too, with or without a GPU
# make kernels: compile the CPU kernels that changed (train and test do); SANITIZE=address,undefined for checked ones
# Give another interpreter with PYTHON=..., an own environment with VENV=...

PYTHON ?= python3
VENV ?= .venv
TORCH ?= 2.13.0
SANITIZE ?= OFF
BIN := $(VENV)/bin
PIP = PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
CHECK_TORCH = -c "from importlib import metadata as m; print('yes' if [int(n) for n in m.version('torch').split('.')[:2]] >= [2, 11] else 'no')" 2>/dev/null

.PHONY: train test test-all lint bench kernels install install-test install-gpu clean

train: kernels
	@test -f runs/digits-mlp-seed0/summary.json || $(BIN)/stbp train digits-mlp --resume
	@echo "The pictures:"
	@$(BIN)/stbp plot all runs/digits-mlp-seed0

test: install-test kernels lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: install-test kernels lint
	$(BIN)/python -m pytest -n 2

bench: $(VENV)/.installed-peers kernels
	$(BIN)/stbp bench --peers $(if $(DATA),--data $(DATA))

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

kernels: install
	@$(BIN)/cmake -S . -B build -G Ninja -DCMAKE_MAKE_PROGRAM="$(abspath $(BIN))/ninja" -DSTBP_SANITIZE=$(SANITIZE) >/dev/null
	@$(BIN)/cmake --build build

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test
install-gpu: $(VENV)/.installed-gpu

# If the interpreter has a torch in range, the environment sees the interpreter's packages and uses it.
$(VENV)/.installed: requirements.txt requirements-build.txt pyproject.toml Makefile
	$(PYTHON) -m venv $(if $(filter yes,$(shell $(PYTHON) $(CHECK_TORCH))),--system-site-packages) $(VENV)
	test "$$($(BIN)/python $(CHECK_TORCH))" = yes || $(PIP) install torch==$(TORCH)
	$(PIP) install -r requirements.txt -r requirements-build.txt
	$(PIP) install --no-deps --no-build-isolation --config-settings=wheel.cmake=false --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(PIP) install -r requirements-test.txt
	@touch $@

# an interpreter that brings torch for CUDA has its Triton
$(VENV)/.installed-gpu: $(VENV)/.installed requirements-gpu.txt
	$(BIN)/python -c "import triton" 2>/dev/null || $(PIP) install -r requirements-gpu.txt
	@touch $@

$(VENV)/.installed-peers: $(VENV)/.installed benchmarks/requirements.txt
	$(PIP) install --no-deps -r benchmarks/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) runs build stbp/ops/native/*.so
