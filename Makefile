# Each target sets up what it needs by itself, in a virtual environment for the Python it runs on.
PYTHON ?= python3
TAG := $(shell $(PYTHON) -c 'import sys; print(sys.implementation.cache_tag)')
VENV := .venv-$(TAG)
# The environment has no pip of its own: $(PYTHON)'s installs into it. That also works where ensurepip is missing.
INSTALL = $(PYTHON) -m pip --python $(VENV)/bin/python --disable-pip-version-check install --quiet

.PHONY: demo test check coverage bench clean

demo: $(VENV)/demo.stamp
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/test.stamp
	$(VENV)/bin/python -m pytest $(TESTS)

check: $(VENV)/check.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict activation cmd tests examples

coverage: $(VENV)/coverage.stamp
	$(VENV)/bin/python -m coverage run -m pytest --ignore tests/systemd $(TESTS)
	$(VENV)/bin/python -m coverage report

bench: $(VENV)/bench.stamp
	$(VENV)/bin/python -m tests.bench $(BENCH)

clean:
	rm -rf .venv-* build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.13" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/test.stamp $(VENV)/coverage.stamp $(VENV)/bench.stamp: $(VENV)/%.stamp: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[$*]'
	@touch $@

# mypy reads the tests, so it needs what they import.
$(VENV)/check.stamp: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[test,bench,check]'
	@touch $@
