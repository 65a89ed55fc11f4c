# Two commands on a fresh machine: `make demo` and `make test`. Each creates .venv, installs pinned
# dependencies and the package, then does its work; a second call skips what is done.

PY ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
EXTRAS ?= [dev]
# PyTorch's CPU wheel index on a machine without a GPU; empty elsewhere
TORCH_INDEX ?=
RUNS ?= runs
WORKERS ?= 2
# file, or file:option; short ones first
CPU_BENCHMARKS = startup overhead first_step windows tokenise tokenise_memory growth segmentation seed_step seed_step:--precision=bf16 gpt14m

PIP = $(VENV)/bin/pip --disable-pip-version-check
BENCH_PIP = $(BENCH_VENV)/bin/pip --disable-pip-version-check
RUN = OMP_NUM_THREADS=1 $(VENV)/bin/python -m
BENCH = OMP_NUM_THREADS=1 $(BENCH_VENV)/bin/python benchmarks/

.PHONY: help setup demo test test-long lint types format golden bench bench-gpu hooks clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | column -t -s "$$(printf '\t')"

setup: $(VENV)/.ok ## create .venv and install everything

# torch first and by its exact version, so that a local CPU wheel is used where there is one
$(VENV)/.ok: pyproject.toml constraints.txt
	@$(PY) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Lexarium needs Python 3.11 or newer, found " + sys.version.split()[0] + "; call make PY=python3.11")'
	@echo "installing into $(VENV) (some minutes the first time)"
	$(PY) -m venv $(VENV)
	$(PIP) install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) install -q -c constraints.txt -e '.$(EXTRAS)'
	@touch $@

demo: $(VENV)/.ok ## train, evaluate and report a small study (minutes)
	$(RUN) lexarium study run hierarchical-generalization --preset demo --runs-dir $(RUNS)

test: $(VENV)/.ok ## everything any machine can run, within 8 minutes on two cores
	$(RUN) pytest -n $(WORKERS) --dist loadgroup -m 'not slow and not gpu and not slurm and not deepspeed'

test-long: $(VENV)/.ok ## the full matrices, slow tests included
	$(RUN) pytest -n $(WORKERS) --dist loadgroup -m 'not gpu and not slurm and not deepspeed'

lint: $(VENV)/.ok ## style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.ok ## static types
	$(VENV)/bin/mypy

format: $(VENV)/.ok ## rewrite files in the house format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

golden: $(VENV)/.ok ## regenerate the golden losses and show the difference
	$(RUN) tests.golden --regenerate

# The peers have an environment of their own. litgpt is installed without its dependencies: it wants an older
# huggingface-hub than transformers 5 does, and only its model class is used; what that imports is in `bench`.
$(BENCH_VENV)/.ok: pyproject.toml constraints.txt
	@echo "installing into $(BENCH_VENV) (some minutes the first time)"
	$(PY) -m venv $(BENCH_VENV)
	$(BENCH_PIP) install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(BENCH_PIP) install -q -c constraints.txt -e '.[bench]'
	$(BENCH_PIP) install -q -c constraints.txt --no-deps litgpt
	@$(BENCH_VENV)/bin/python -c 'import sys; from importlib.util import find_spec; sys.exit("torchvision came into $(BENCH_VENV): beside a torch it was not built for, every import of transformers fails. Find what wants it (pip show torchvision), leave that out, and remove $(BENCH_VENV)" if find_spec("torchvision") else 0)'
	@touch $@

bench: $(BENCH_VENV)/.ok ## measure what a machine without a GPU can; results in benchmarks/results
	@failed=; for work in $(CPU_BENCHMARKS); do file=$${work%%:*}; options=$${work#$$file}; \
	  echo "== $$file $${options#:}"; \
	  $(BENCH)$$file.py $${options#:} || failed="$$failed $$file"; done; \
	$(BENCH)table.py; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

bench-gpu: $(BENCH_VENV)/.ok ## measure what needs a GPU
	$(BENCH)gpu.py
	$(BENCH)table.py

hooks: $(VENV)/.ok ## format and lint before every commit
	@printf '%s\n' '#!/bin/sh' '# Lint and format what is staged; refuses the commit when something is left to mend.' \
	  'files=$$(git diff --cached --name-only --diff-filter=ACM -- "*.py")' '[ -z "$$files" ] && exit 0' \
	  '$(VENV)/bin/ruff check --fix $$files && $(VENV)/bin/ruff format $$files && git add $$files' > .git/hooks/pre-commit
	@chmod +x .git/hooks/pre-commit
	@echo "installed .git/hooks/pre-commit"

clean: ## remove caches (results in runs/ are kept)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build src/*.egg-info
