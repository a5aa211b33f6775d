# make demo : from a fresh machine (Python >= 3.11) to a map and a report of the embedded simulated dataset
# make test : everything a change has to pass
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint fix clean

demo: $(STAMP)
	$(BIN)/snakemake --cores all
	@echo "The report: results/demo/report/report/report.html"

# lint comes first: it takes a minute and says early what is wrong. A file of tests stays on one worker;
# tests/conftest.py says which files come first.
test: lint
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 20

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check -l 120 Snakefile workflow/rules
	$(BIN)/python -m cryopipe.config.generate
	$(BIN)/python tools/house.py
	$(BIN)/mypy

fix: $(STAMP)
	$(BIN)/python -m cryopipe.config.generate --fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt -l 120 Snakefile workflow/rules

# The lock file pins every version; the project itself is installed in place, without looking for anything more.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cryopipe needs Python >= 3.11, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf results $(VENV)
