# make demo: generates crystals with Bader charges, measures the charges' accuracy, writes a report of the crystals.
# make test: the checks of CI.
PYTHON ?= python3
# Test files at a time; each runs in one process, in the order of the folders: files of slow tests come early.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export UV_LINK_MODE ?= copy

.PHONY: demo test test-fast lint install clean docs lock

install: $(VENV)/.installed

# Every file that is installed has the hash that the lock names: uv, and what builds a package from its source, too.
# (--no-config: the looser constraints of pyproject.toml, which have none, are for resolving anew.)
$(VENV)/.installed: pyproject.toml constraints.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' constraints.lock > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(VENV)/uv.lock
	$(BIN)/uv pip install --no-config --quiet --python $(BIN)/python --no-deps --build-constraint constraints.lock \
	  --require-hashes -r constraints.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --build-constraint constraints.lock --editable .
	touch $@

# After a change of a version in constraints.txt or docs/constraints.txt.
lock:
	for name in constraints docs/constraints; do \
	  rm -f $$name.lock; \
	  $(BIN)/uv pip compile --no-config --quiet --no-deps --generate-hashes --no-annotate --no-header \
	    --output-file $$name.lock $$name.txt; \
	done

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

$(VENV)-docs/.installed: docs/constraints.lock
	test -x $(VENV)-docs/bin/python || $(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
	  -r docs/constraints.lock
	touch $@

clean:
	rm -rf $(VENV) demo
