PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench clean

demo: .venv/.installed  ## The main job, offline: a small model with random weights on the embedded questions
	@test -f .demo/model/config.json || $(BIN)/python -m mmedeval_hf.tiny .demo/model
	$(BIN)/mmedeval run --model hf:.demo/model --tasks mmedbench_mini --out .demo/run

test: .venv/.installed  ## The whole suite
	$(BIN)/python -m pytest

lint: .venv/.installed  ## Style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.installed  ## Speed against lm-eval, which gets an environment of its own; about 50 minutes on two cores
	$(BIN)/python benchmarks/run.py

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

clean:
	rm -rf .venv .demo .bench
