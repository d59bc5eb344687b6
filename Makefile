# `make demo` and `make test` set everything up by themselves; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PARALLEL := -n auto --maxprocesses 4 --dist worksteal  # which shares out the tests to the end

demo: $(INSTALLED)  ## install, and run the main job on the default data
	$(BIN)/python train.py regularizer=l1 regularizer.alpha=3e-5

test: $(INSTALLED)  ## all tests
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(INSTALLED)  ## the tests that take 90 seconds in all on two cores
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

study: $(INSTALLED)  ## train and tabulate the study of docs/study.md (hours; CAMVID=<folder>)
	$(BIN)/python benchmarks/study.py claim=all $(if $(CAMVID),camvid=$(CAMVID))
	$(BIN)/python -m benchmarks.claims.page

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test  ## what CI runs

wheel: $(INSTALLED)  ## build a wheel, and run its commands in an empty folder
	set -e; tmp=$$(mktemp -d); python=$$PWD/$(BIN)/python; \
	$$python -m pip wheel -q --no-deps -w $$tmp/dist .; \
	$$python -m pip install -q --no-deps --target $$tmp/site $$tmp/dist/*.whl; \
	mkdir $$tmp/empty; cd $$tmp/empty; export PYTHONPATH=$$tmp/site PATH=$$tmp/site/bin:$$PATH; \
	$$python -c "from seg_l1.config.compose import CONF; print(CONF)" | grep -q $$tmp; \
	seg-l1 --help | grep -q predict; seg-l1-train --help | grep -q "seg-l1 train"; \
	seg-l1 train debug=limit trainer.epochs=1 hydra.run.dir=run > log; \
	grep -q "seg-l1 train -m" log; test -f run/summary.json; \
	seg-l1 report run > log; test -f run/report/report.html; \
	seg-l1 evaluate run=run | grep -q miou; \
	seg-l1 predict run=run input=run/preview.png output=new > log; test -f new/shares.csv; \
	cd /; rm -r $$tmp; echo "the wheel works"

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test]"
	touch $@

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.PHONY: demo test test-fast study lint check wheel format help
