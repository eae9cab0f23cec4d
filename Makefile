# Everything runs in $(VENV), made on first use. On a machine where pip must be told which torch to take:
#   make test TORCH="torch==2.13.0+cpu"        (any pip requirement, with its own options)
# A CUDA build of torch is picked the same way.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BENCH ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f -name '*.*' 2>/dev/null)
# Instruction sets below the one in use: their kernels are tested too.
LOWER_CAPABILITIES = $(BIN)/python -W ignore -c "from stgcn_fast._native import load; s = load(); \
  built = s.build.get('capabilities', []); print(*built[:built.index(s.capability['kernels'])] if built else [])"
export MPLBACKEND := Agg
# One process a core, four at most: the tests' own threads and compilers take memory too. Threads that wait must sleep:
# those of one process would spin on the core that another one computes on.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$((n < 4 ? n : 4)))
PYTEST = OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help env demo test hardening sanitize cuda-check lint docs bench format clean

help:
	@echo "make demo    install, then train, test and time on built-in data (runs/demo/)"
	@echo "make test    install, then run every test"
	@echo "make hardening  the long forms of tests/hardening: thousands of broken files, odd calls, kills"
	@echo "make sanitize  test the kernels under the address and undefined-behaviour sanitizers (GCC)"
	@echo "make cuda-check  compile every CUDA kernel and show its registers (nvcc, no GPU)"
	@echo "make lint    ruff, mypy --strict, clang-format"
	@echo "make docs    the documentation as a site, in build/site"
	@echo "make bench   every peer beside ours in one table, and as JSON (BENCH=--quick: minutes, not hours)"
	@echo "make format  rewrite in house style"
	@echo "make clean   remove the build, keep the environment"

env: $(VENV)/.installed

$(VENV)/.torch:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	$(PIP) install "setuptools>=77,<90" wheel "pybind11>=2.13,<4"
	touch $@

$(VENV)/.installed: $(VENV)/.torch $(SOURCES)
	$(PIP) install --no-build-isolation --editable ".[dev]"
	touch $@

demo: env
	$(BIN)/stgcn-fast demo

test: env
	$(BIN)/python -m stgcn_fast.info
	$(PYTEST) tests
	STGCN_FAST_BACKEND=reference $(PYTEST) tests/ops tests/nn tests/models tests/compat
	for capability in $$($(LOWER_CAPABILITIES)); do \
	  STGCN_FAST_CPU_CAPABILITY=$$capability $(PYTEST) tests/ops/test_graph_conv.py tests/ops/test_graph_conv_order.py tests/ops/test_temporal_conv.py \
	    tests/ops/test_temporal_conv_fast.py tests/ops/test_st_block.py tests/ops/test_st_block_train.py || exit 1; \
	done

# Goes on where it was interrupted; `make clean` begins anew. Ends with the figures of docs/reliability.md.
HARDENING_LOG = build/hardening.jsonl
hardening: env
	STGCN_FAST_HARDENING=long STGCN_FAST_HARDENING_LOG=$(HARDENING_LOG) $(PYTEST) tests/hardening

# Elsewhere than the build in use. The sanitizers must be there before Python loads the module.
SANITIZED = build/address
sanitize: env
	STGCN_FAST_SANITIZE=address $(BIN)/python setup.py -q build --build-base $(SANITIZED)
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so) $$(gcc -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc STGCN_FAST_BACKEND=native \
	PYTHONPATH=$$(echo $(CURDIR)/$(SANITIZED)/lib*) $(BIN)/pytest tests/ops

# Compiles for two architectures; nothing runs, and no GPU is looked for.
cuda-check: env
	$(BIN)/python csrc/cuda_check.py

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

# The pages as a site, in build/site; a link that leads nowhere is an error.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

bench: env
	$(BIN)/python benchmarks/run.py $(BENCH)

clean:
	rm -rf build dist *.egg-info stgcn_fast/_C*.so stgcn_fast/_cuda*.so $(VENV)/.installed
