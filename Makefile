# Each target sets up what it needs by itself, in a virtual environment for the Python it runs on.
PYTHON ?= python3
TAG := $(shell $(PYTHON) -c 'import sys; print(sys.implementation.cache_tag)')
VENV := .venv-$(TAG)
# The environment has no pip of its own: $(PYTHON)'s installs into it. That also works where ensurepip is missing.
INSTALL = $(PYTHON) -m pip --python $(VENV)/bin/python --disable-pip-version-check install --quiet

# Tests mostly wait, so more of them run at a time than there are processors. A file that is asked for runs in this
# process: it starts at once, and a debugger works.
WORKERS ?= $(if $(TESTS),0,$(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 2 + 1))))

.PHONY: help demo test storm check docs coverage bench clean

help: ## tell what there is to make (the default)
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18
	@echo
	@echo 'PYTHON=python3.13 runs any of them on another Python.'

demo: $(VENV)/demo.stamp ## socket-activate an echo on this terminal, without systemd or root
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/test.stamp ## run the tests; TESTS=tests/activation/test_files.py runs one file, WORKERS=8 more at a time
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(TESTS)

storm: $(VENV)/test.stamp ## restart and kill a daemon with durable connections for many minutes, as root; STORM=--help
	$(VENV)/bin/python -m tests.systemd.storm $(STORM)

check: $(VENV)/check.stamp ## lint, check the format, the types and which module imports which
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict activation cmd tests examples
	$(VENV)/bin/lint-imports --no-cache --no-logo

docs: $(VENV)/docs.stamp ## build the guide into build/docs
	$(VENV)/bin/sphinx-build --builder html --fresh-env --fail-on-warning --keep-going --quiet docs build/docs
	@echo 'open build/docs/index.html'

coverage: $(VENV)/coverage.stamp ## tell which lines of the library its tests do not run
	$(VENV)/bin/python -m coverage run -m pytest --ignore tests/systemd $(TESTS)
	$(VENV)/bin/python -m coverage report

bench: $(VENV)/bench.stamp ## measure beside peers; BENCH=serving runs one of them, BENCH_JSON=file keeps the figures
	$(VENV)/bin/python -m tests.bench $(BENCH)

clean: ## remove the environments and what was built
	rm -rf .venv-* build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.13" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/test.stamp $(VENV)/docs.stamp $(VENV)/coverage.stamp $(VENV)/bench.stamp: $(VENV)/%.stamp: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[$*]'
	@touch $@

# mypy reads the tests, so it needs what they import.
$(VENV)/check.stamp: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[test,bench,check]'
	@touch $@
