# Everything runs in .venv, made with exactly the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

# make demo TORCH=cpu: PyTorch's CPU builds of torch and torchvision, about 2 GB installed in all.
# Without it pip takes the default builds: with CUDA on Linux, about 5.4 GB.
ifeq ($(TORCH),cpu)
export PIP_EXTRA_INDEX_URL := $(PIP_EXTRA_INDEX_URL) https://download.pytorch.org/whl/cpu
endif

.PHONY: demo test quick lint benchmarks clean

demo: $(VENV)/installed
	$(BIN)/ddiseg demo --dir $(DEMO)

# Every test runs in one thread: as many tests as cores run at a time, the longest files first.
test: $(VENV)/installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# The inner loop: all but the tests that are marked, see CONTRIBUTING.md.
quick: $(VENV)/installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -q \
	  -m "not live and not peers and not postgres and not process and not property and not slow and not training"

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmarks: $(VENV)/installed
	$(BIN)/python -m benchmarks

$(VENV)/installed: setup.cfg setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'ddiseg needs Python 3.11 or newer: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,pretrain,baselines,server,postgres,s3,ray]"
	@touch $@
	@$(BIN)/python -m fedd.baselines || true # says in one line if the baselines can't be run

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
