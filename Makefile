# Everything sets itself up: `make demo` and `make test` need Python 3.11 or 3.12 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of processes: each would compile the package for itself.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test test-all check bench bench-cpu bench-sessions docs site man pictures lock models validate clean

help:  ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# One environment for everything: the package (editable), its tests, and the Triton runtime.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info[:2] in ((3, 11), (3, 12)) or sys.exit("Triton needs Python 3.11 or 3.12: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --editable '.[rtx,serve]' --group dev
	$(BIN)/nemotrt serve install > /dev/null
	touch $@

setup: $(VENV)/.installed  ## Create .venv with everything.

demo: setup  ## Run the whole chain on the built-in tiny model.
	$(BIN)/nemotrt demo -o demo --force

# A test keeps less than one core busy, since many wait for a server: two cores carry four workers.
WORKERS ?= 4
test: setup  ## Run the tests (minutes), in WORKERS=4 processes side by side.
	$(BIN)/pytest -q -n $(WORKERS)

test-all: setup  ## Run the tests with the slow ones.
	$(BIN)/pytest -q -m "not gpu" --hypothesis-profile thorough

check: setup  ## Format, lint, types, and the prose of the documents.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/docs/test_prose.py

bench-cpu: setup  ## Compare CPU engines: ours, llama.cpp (built once), transformers; minutes.
	$(BIN)/python benchmarks/cpu/run.py

bench-sessions: setup  ## Agents' conversations on our server and llama.cpp's; an hour, SIZE=--smoke a minute.
	$(BIN)/python benchmarks/sessions.py $(SIZE)

bench: setup  ## Run the benchmarks; compare ratios, not absolute times.
	@for script in $(filter-out %_host.py %/sessions.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: setup  ## Rewrite the generated parts of docs/.
	$(BIN)/python scripts/docs.py

site: setup  ## Build the manual as a site (dist/site); every link must lead somewhere.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

man: setup  ## Write man pages of the commands (dist/man).
	$(BIN)/python scripts/man.py

pictures: setup  ## Make docs/pictures/ anew from real runs; needs Chromium.
	$(BIN)/python scripts/pictures.py

lock: setup  ## Pin what the images install anew (serve/deploy/lock/).
	$(BIN)/pip install --quiet uv
	$(BIN)/python scripts/lock.py

models: setup  ## Train the shipped tiny models again (about an hour; needs apt-get and dpkg-deb).
	$(BIN)/python scripts/tiny_model/make.py --out engines/tiny

validate: setup  ## Replay measured throughput through the planner; error by group.
	$(BIN)/nemotrt plan validate

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) demo dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
