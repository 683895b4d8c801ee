# Two commands for a newcomer: `make run` and `make test`. Both install into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FILE ?= submissions/train_ep.py
IMAGE ?= validator
HPARAMS ?= hparams.json
# For `docker build`, such as --build-arg BASE_IMAGE=... or --secret id=pip,src=...
BUILD_OPTIONS ?=
# Of isolation, for `make attack`; empty: a sandbox for those that need one, and forked ranks for the others.
LEVEL ?=
# Processes that run the tests side by side.
WORKERS ?= 2
# Seconds that `make fuzz` has for each target.
BUDGET ?= 600

.PHONY: run board image test test-all attack fuzz mutants bench lint install install-test clean

run: install
	$(BIN)/validator run $(FILE)

# A leaderboard with a few judged examples, at http://127.0.0.1:8000.
board: $(VENV)/.installed-board
	$(BIN)/python local_test/example_board.py

image: install
	$(BIN)/python -m harness.image build --tag $(IMAGE) --hparams $(HPARAMS) $(BUILD_OPTIONS)

test: install-test lint
	$(BIN)/pytest -n $(WORKERS) -m "not slow"

# All but the corpus, which `make attack` judges.
test-all: install-test lint
	$(BIN)/pytest -n $(WORKERS) -m "not corpus"

# All attacks and honest files of the corpus, and a table of what came of them; LEVEL=docker: all at that level.
attack: install-test
	CORPUS_LEVEL=$(LEVEL) $(BIN)/pytest -n $(WORKERS) -m corpus

# Mutated bytes to everything that reads what others have written, BUDGET seconds each, two at a time.
fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.fuzz --seconds $(BUDGET)

# Small edits of the judge that the tests have to notice; below 95 % it fails.
mutants: install-test
	$(BIN)/python -m tests.mutation

# What docs/performance.md says: tables, and every repeat's figures in bench/. An hour of a quiet machine.
bench: install-test
	mkdir -p bench
	$(BIN)/python -m measurements.overhead --json bench/overhead.json
	$(BIN)/python -m measurements.checks --hparams profiles/embedded-bf16.json --steps 80 --json bench/checks.json
	$(BIN)/python -m measurements.train_files --json bench/train_files.json
	$(BIN)/python -m measurements.memory --large --json bench/memory.json
	$(BIN)/python measurements/compare_states.py --json bench/compare_states.json
	$(BIN)/python measurements/digest.py --json bench/digest.json
	$(BIN)/python -m measurements.opening --json bench/opening.json
	$(BIN)/python -m measurements.board pages
	$(BIN)/python -m measurements.board uploads
	$(BIN)/python -m measurements.board idle-worker

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

# torch first and on its own: its pinned build decides what everything else may depend on. The versions that
# were tested are in constraints.txt.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-board: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[board]'
	touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-test
	$(BIN)/pip install --quiet -c constraints.txt -e '.[fuzz]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build results *.egg-info
