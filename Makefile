# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# one thread per process: the demo runs two trials side by side, the tests two workers
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint clean

demo: .venv/.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/digits/demo.py $(if $(filter 0,$(WAIT)),--no-wait,)

test: .venv/.installed-test lint
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -c 'import nni_warmstart'  # NNI writes its layers' module when first imported; pyright reads it
	$(BIN)/pyright

.venv/.installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf .venv .demo build dist *.egg-info
