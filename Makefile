# lafsfs: every target works from a clean clone; what is there already is not done again.

PYTHON     ?= python3
VENV       ?= .venv
STOCK_VENV ?= .venv-stock
TAHOE      ?= $(STOCK_VENV)/bin/tahoe
MOUNTPOINT ?= $(HOME)/lafs
OPERATIONS ?= 100000
SOURCES    := lafsfs tests

BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install -q --disable-pip-version-check
# Not every shell expands a tilde behind an equals sign.
FOLDER := $(patsubst ~/%,$(HOME)/%,$(MOUNTPOINT))

.DEFAULT_GOAL := help
.PHONY: help mount umount system install dev stock fmt lint type test test-interop \
        test-pjdfstest test-stress test-random test-crash check bench docs clean

help:
	@echo 'make mount [MOUNTPOINT=$(FOLDER)]    an encrypted folder, from nothing'
	@echo 'make umount [MOUNTPOINT=$(FOLDER)]   unmount it, once everything is stored'
	@echo 'make test                  everything from nothing to green, real mounts included'
	@echo 'make test-interop          against stock Tahoe-LAFS on a real grid; TAHOE=PATH if it is there'
	@echo 'make test-pjdfstest PJDFSTEST=PATH   a POSIX test suite, built at PATH, as root'
	@echo 'make test-stress           fio and stress-ng, verifying, whichever are installed'
	@echo 'make test-random [OPERATIONS=$(OPERATIONS)]   random operations on a mount and a directory'
	@echo 'make test-crash [KILLS=2000]  kill it again and again'
	@echo 'make check                 lint, type, test: what must pass before a commit'
	@echo 'make bench                 compare with stock Tahoe-LAFS on this machine'
	@echo 'make install fmt lint type docs clean'

# --- running --------------------------------------------------------------------------------------

mount: install
	@mkdir -p '$(FOLDER)' 2>/dev/null; $(BIN)/lafsfs mount '$(FOLDER)'

umount: install
	@$(BIN)/lafsfs umount '$(FOLDER)'

# --- installing -----------------------------------------------------------------------------------

system:
	@contrib/system-packages '$(PYTHON)'

install: $(VENV)/.installed

dev: $(VENV)/.dev

$(BIN)/python: | system
	@$(PYTHON) -m venv '$(VENV)'

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@$(PIP) -e '.[dev]'
	@touch $(VENV)/.installed $@

# Stock Tahoe-LAFS, to compare with: in an environment of its own, or wherever TAHOE says.
stock: $(TAHOE)

$(STOCK_VENV)/bin/tahoe: | $(BIN)/python
	@$(PYTHON) -m venv '$(STOCK_VENV)'
	@'$(STOCK_VENV)/bin/python' -m pip install -q --disable-pip-version-check tahoe-lafs

# --- working on it --------------------------------------------------------------------------------

fmt: dev
	$(BIN)/ruff check -q --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

lint: dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

type: dev
	$(BIN)/mypy --strict lafsfs

# The output ends with pytest's own summary; any failure is make's failure. Only make's exit code is
# always 2, so a caller that wants pytest's names a file for it (and make has nothing to add then).
test: dev
	@$(BIN)/python -m pytest $(PYTEST_ARGS)$(if $(RESULT),; echo $$? >'$(RESULT)')

test-interop: dev stock
	@TAHOE='$(TAHOE)' $(BIN)/python -m pytest -m interop tests/interop $(PYTEST_ARGS)

# The suite is pjd/pjdfstest, cloned and built (autoreconf -ifs && ./configure && make).
test-pjdfstest: dev
	@$(BIN)/python -m tests.tools.pjdfstest '$(PJDFSTEST)' $(PJDFSTEST_ARGS)

test-stress: dev
	@$(BIN)/python -m tests.tools.stress $(STRESS_ARGS)

test-random: dev
	@$(BIN)/python -m tests.tools.random_ops --operations '$(OPERATIONS)' $(RANDOM_ARGS)

# Real mounts that are killed, mounts in memory that are photographed, and two mounts of one
# directory, more often than in CI.
KILLS ?= 2000
test-crash: dev
	@LAFSFS_KILLS='$(KILLS)' LAFSFS_STORIES="$$(( $(KILLS) / 20 + 1 ))" LAFSFS_SEED="$$(date +%s)" \
	    $(BIN)/python -m pytest tests/mounted/test_kills.py tests/vfs/test_crashes.py \
	        tests/vfs/test_lives.py \
	        tests/vfs/test_names_clients.py::test_two_mounts_lose_no_child_and_no_byte $(PYTEST_ARGS)

check: lint type test

bench: dev stock
	@$(BIN)/python -m tests.bench.side_by_side --tahoe '$(TAHOE)' $(BENCH_ARGS)
	@$(BIN)/python -m tests.bench.reads --tahoe '$(TAHOE)' $(READS_ARGS)
	@$(BIN)/python -m tests.bench.writes --tahoe '$(TAHOE)' $(WRITES_ARGS)

docs: dev
	@$(BIN)/python contrib/check_docs.py

clean:
	rm -rf '$(VENV)' '$(STOCK_VENV)' build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find lafsfs tests -name __pycache__ -type d -prune -exec rm -rf {} +
