# `make demo` and `make test` start from nothing: they make $(VENV), install Siltstone into it, and go on.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
BATTERY_ARGS ?=
PEERS ?= siltstone,siltstone-journal,lmdb
PEER_PACKAGES ?= lmdb
WORKLOADS ?= W1,W1S,W2,W3,W4,W5,W6,W6C,W8,W9
BENCH_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := pyproject.toml setup.py $(shell find engine workers -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
DEMO := build/demo.silt

.PHONY: help demo test lint battery bench install clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo      deduplicate a real folder into a fresh store, twice'
	@echo 'make test      the whole test suite (PYTEST_ARGS="-k journal" for a part)'
	@echo 'make lint      ruff and mypy'
	@echo 'make battery   the test suite with every reliability battery at full size: hours'
	@echo 'make bench     compare with other stores: make bench HARNESS=peers_bench.py'
	@echo 'make install   only $(VENV); make clean undoes everything'

# The standard library exists wherever Python does. No bytecode is written, so nothing changes between the runs.
demo: export PYTHONDONTWRITEBYTECODE = 1
demo: $(INSTALLED)
	@mkdir -p $(dir $(DEMO)) && rm -f $(DEMO)
	@folder="$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" && \
	echo "==> first time: siltstone dedup $$folder --store $(DEMO)" && \
	$(BIN)/siltstone dedup "$$folder" --store $(DEMO) && \
	echo "==> second time: everything is known" && \
	$(BIN)/siltstone dedup "$$folder" --store $(DEMO)

# Side by side, on as many processors as there are, up to four; what is in one file stays in one process.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

battery: export SILTSTONE_BATTERY = full
# No dump of stacks after five minutes: whole tests take longer, and a dump beside running threads may end them.
battery: $(INSTALLED)
	$(BIN)/python -m pytest --timeout=0 -o faulthandler_timeout=0 $(BATTERY_ARGS)

bench: $(INSTALLED)
	@test -f "$(HARNESS)" || { echo 'make bench: name the harness, HARNESS=path/to/peers_bench.py (see benchmarks/README.md)'; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PEER_PACKAGES)
	$(BIN)/python $(HARNESS) --adapters benchmarks/siltstone_adapter.py --peer $(PEERS) --workload $(WORKLOADS) $(BENCH_ARGS)

install: $(INSTALLED)

# Editable: the kernels are built in place, Python sources are used where they are.
$(INSTALLED): $(SOURCES)
	@command -v $(PYTHON) >/dev/null || { echo 'siltstone: there is no $(PYTHON) here. On Debian: apt-get install python3 python3-venv python3-dev gcc'; exit 1; }
	@command -v gcc >/dev/null || { echo 'siltstone: there is no gcc here; the kernels are compiled. On Debian: apt-get install gcc libc6-dev'; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@echo '==> installing into $(VENV): this compiles, and takes a minute'
	@test -x $(BIN)/pip || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find engine plugins workers tests benchmarks examples \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +
	find engine workers -name '*.so' -delete
	find engine workers -name '*.pyx' | sed 's/pyx$$/c/' | xargs rm -f

define CHECK_PYTHON
import importlib.util, pathlib, sys, sysconfig
version = f"{sys.version_info.major}.{sys.version_info.minor}"
header = pathlib.Path(sysconfig.get_path("include"), "Python.h")
missing = []
if sys.version_info < (3, 11):
    missing.append(f"Python 3.11 or newer is needed; this is {version} ({sys.executable}). Name another one: make PYTHON=python3.11")
if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
    missing.append(f"no venv module. On Debian: apt-get install python{version}-venv")
if not header.is_file():
    missing.append(f"no {header}, which compiling needs. On Debian: apt-get install python{version}-dev")
sys.exit("\n".join("siltstone: " + line for line in missing) or None)
endef
export CHECK_PYTHON
