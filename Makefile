# make demo : from a fresh machine (Python >= 3.11) to a map and a report of the embedded simulated dataset
# make test : everything a change has to pass
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint fix clean

demo: $(STAMP)
	@$(BIN)/snakemake --cores all

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

# tools/install.py says what it installs, stage by stage.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) tools/install.py $(VENV)
	@touch $@

clean:
	rm -rf results $(VENV)
