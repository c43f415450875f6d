# make demo: set up, then build a library from real generated pictures and query it.
# make test: set up, then run the tests.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: setup demo test lint docs-examples clean

setup: $(VENV)/.setup

demo: $(VENV)/.setup
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/.setup-dev
	$(VENV)/bin/python -m pytest -m 'not docs'

lint: $(VENV)/.setup-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs-examples: $(VENV)/.setup-dev
	$(VENV)/bin/python -m pytest -m docs tests/docs

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "unprompt needs Python 3.11 or newer; give one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# clip-interrogator is installed for its lists of terms alone: it is never imported, so its own dependencies are not needed.
$(VENV)/.setup: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV): about 2 GB, a minute or more"
	$(PIP) install -e '.[cpu,demo]'
	$(PIP) install --no-deps clip-interrogator==0.6.0
	touch $@

$(VENV)/.setup-dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV): about 2 GB, a minute or more"
	$(PIP) install -e '.[dev,demo]'
	$(PIP) install --no-deps clip-interrogator==0.6.0
	touch $@

clean:
	rm -rf $(VENV) demo-*.library
