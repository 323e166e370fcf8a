# Two commands do everything on a fresh machine: `make demo` and `make test`.
BIN := .venv/bin
# one thread per process: the demo runs two trials side by side, the tests two workers
export OMP_NUM_THREADS ?= 1

# interpreters: those on the PATH, and those of pyenv
PYTHONS := 3.10 3.11 3.12 3.13
find = $(firstword $(wildcard $(HOME)/.pyenv/versions/$(1).*/bin/python) \
       $(shell python$(1) -c 'import sys; print(sys.executable)' 2>/dev/null))

# of which .venv is made, unless PYTHON=... says: the first one that NNI runs on, else one that uv fetches
CANDIDATES = $(or $(PYTHON),python3 $(foreach version,3.13 3.12 3.11 3.10,$(call find,$(version))))
SUITABLE := import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))

.PHONY: demo test test-all test-oldest lint docs site clean

demo: .venv/.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/digits/demo.py $(if $(filter 0,$(WAIT)),--no-wait,)

test: .venv/.installed-test lint site
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-all: $(PYTHONS:%=test-%)

# a two-epoch search on one Python, in an environment of its own; `make test-3.12`
test-3.%:
	@if [ -z "$(call find,3.$*)" ]; then echo "Python 3.$*: not present, left out"; else \
	$(call find,3.$*) -m venv .venv-3.$* && \
	.venv-3.$*/bin/python -m pip install --quiet --disable-pip-version-check . && \
	.venv-3.$*/bin/python tests/smoke.py; fi

test-oldest:
	$(call find,3.10) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c tests/oldest.txt .
	.venv-oldest/bin/python tests/smoke.py

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -W ignore -c 'import nni.nas.nn.pytorch'  # NNI writes its layers' module when first imported; pyright reads it
	$(BIN)/pyright

# the documentation site, in build/site; a warning is an error
export NO_MKDOCS_2_WARNING := 1
site: .venv/.installed-test
	$(BIN)/mkdocs build --strict --quiet

docs: .venv/.installed-docs
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

$(BIN)/python:
	@for python in $(CANDIDATES); do \
	    if $$python -c '$(SUITABLE)' 2>/dev/null; then exec $$python -m venv .venv; fi; \
	done; \
	if command -v uv >/dev/null; then exec uv venv --quiet --seed --python '>=3.10,<3.14' .venv; fi; \
	echo 'NNI needs Python 3.10 to 3.13 with its module venv: install one of them, or uv, which fetches one.' >&2; exit 1

.venv/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/.installed-%: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@

clean:
	rm -rf .venv .venv-* .demo build dist *.egg-info
