# The jobs of this repository. The first one makes .venv with the newest working Python; PYTHON= names another,
# and VENV= another place for its environment:
#     make test PYTHON=python3.11 VENV=.venv-3.11
# ARGS= is passed on to the program that demo, test or bench runs; TESTS= are the folders and files to test.

PYTHON ?= $(shell bash .ci/pythons | head -n 1)
VENV ?= .venv
ARGS ?=
TESTS ?= jaxpartials tests

bin := $(VENV)/bin
version := -c 'import platform; print(platform.python_version())'

.PHONY: demo test lint docs bench examples clean check-python
.NOTPARALLEL:
.DELETE_ON_ERROR:

demo: check-python $(VENV)/.plots
	$(bin)/python -m jaxpartials demo $(ARGS)

test examples: export JAX_PLATFORMS ?= cpu
test: check-python $(VENV)/.test
	$(bin)/python -m pytest -n 2 --dist worksteal $(TESTS) $(ARGS)

lint: check-python $(VENV)/.plots $(VENV)/.dev
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/pyright --pythonpath $(bin)/python --level error
	$(bin)/lint-imports

docs: export NO_MKDOCS_2_WARNING := 1
docs: check-python $(VENV)/.docs
	$(bin)/mkdocs build --strict

bench: check-python $(VENV)/.bench
	$(bin)/python -m benchmarks $(ARGS)

examples: export MPLBACKEND ?= agg
examples: check-python $(VENV)/.test
	@for script in examples/*.py; do \
	    echo "$(bin)/python $$script"; $(bin)/python "$$script" || exit 1; \
	done

clean:
	rm -rf .venv .venv-* build dist site .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per extra, so that each job installs what it needs, once, and again when the pins change.
$(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/.made
	$(bin)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	@touch $@

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "No working Python >= 3.11 found; name one with PYTHON=." >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

# A Python asked for by name must not be answered with an environment that another one made.
check-python:
ifneq ($(origin PYTHON),file)
	@test ! -e $(VENV)/.made || test "$$("$(PYTHON)" $(version))" = "$$($(bin)/python $(version))" || { \
	    echo "$(VENV) was made by Python $$($(bin)/python $(version)): remove it, or add VENV=." >&2; exit 1; }
endif
