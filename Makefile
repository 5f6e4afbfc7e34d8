PYTHON ?= python3
BIN := .venv/bin
# Kept between checkouts: environments that take minutes to make.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mmedeval

.PHONY: demo test test-gguf test-vllm lint bench load clean

demo: .venv/.installed  ## The whole story, offline: texts, shards, a small model pretrained, finetuned, evaluated before and after
	$(BIN)/python -m mmed_train.demo .demo

test: .venv/.installed  ## The whole suite, on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-gguf: .venv/.installed  ## What needs llama.cpp, which is compiled once (5 to 7 minutes; pip keeps what it built)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'llama-cpp-python[server]'
	$(BIN)/python -m pytest tests/plugins/mmedeval_gguf tests/plugins/mmedeval_openai/test_real_servers.py tests/trainer/mmed_train/test_gguf.py

test-vllm:  ## What needs vLLM, on a CPU, in an environment of its own (about 4 GB)
	PYTHON=$(PYTHON) tests/vllm_environment.sh $(CACHE)/vllm
	$(CACHE)/vllm/bin/python -m pytest tests/plugins/mmedeval_vllm

lint: .venv/.installed  ## Style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.installed  ## Speed against lm-eval, which gets an environment of its own; about 50 minutes on two cores
	$(BIN)/python benchmarks/run.py

load: .venv/.installed  ## Traffic to a server that misbehaves; about three minutes
	$(BIN)/python benchmarks/load.py

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

clean:
	rm -rf .venv .demo .bench
