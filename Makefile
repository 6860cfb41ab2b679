# Two commands for a fresh machine: `make demo` and `make test`. Both set up .venv first and can be run again.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint clean

demo: .venv/.demo
	$(BIN)/ragkit index examples/corpus --out demo-index
	@for question in \
		"How do I run a task after returning the response?" \
		"How can I upload a file?" \
		"How can I allow requests from another origin?"; \
	do printf '\n\033[1m%s\033[0m\n' "$$question"; $(BIN)/ragkit ask demo-index "$$question" || exit 1; done

# one process per core, each with one thread: two that take all cores get in each other's way
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[local]'
	touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo-index
