# make demo: generates crystals with Bader charges, measures the charges' accuracy, writes a report of the crystals.
# make test: the checks of CI.
PYTHON ?= python3
# Test files at a time; each runs in one process, in the order of the folders: files of slow tests come early.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export UV_LINK_MODE ?= copy

.PHONY: demo test test-fast lint install clean docs

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: install
	$(BIN)/mattergen-e demo

test: install lint
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder

test-fast: install lint
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The pages as a site, in an environment of their own; needs no network once that is there.
docs: $(VENV)-docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build --strict --quiet

$(VENV)-docs/.installed: docs/constraints.txt
	test -x $(VENV)-docs/bin/python || $(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r docs/constraints.txt
	touch $@

clean:
	rm -rf $(VENV) demo
