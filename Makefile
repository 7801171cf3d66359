# `make demo` and `make test` start from nothing but Python 3.11, make and a shell.

# The first Python that is new enough; `make PYTHON=/path/to/python3.11 ...` names another.
NEW_ENOUGH = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for each in python3.11 python3 python; do \
	$$each -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$each; break; }; done)

VENV := .venv
TRITON := .venv-triton
BIN := $(VENV)/bin
WORKERS := auto
PIP_INSTALL := python -m pip install -qq --no-input --disable-pip-version-check

# A stamp says which extras an environment holds; everything that the tests need holds what the demo needs.
FOR_DEMO := $(VENV)/.installed-torch
FOR_TESTS := $(VENV)/.installed-test
DEMO_READY = $(if $(wildcard $(FOR_TESTS)),$(FOR_TESTS),$(FOR_DEMO))

.PHONY: help demo test fuzz soak rtx zoo ready lint format bench backend docs docs-picture docs-accuracy pin clean

help:
	@echo 'make demo    install with PyTorch, convert a sample model into ./models'
	@echo 'make test    install everything, then ruff, mypy and every test, WORKERS at a time (auto: at most 4)'
	@echo 'make soak    what takes long to try: kills by the hundred, every failing call, crowds (minutes)'
	@echo 'make rtx     every model in every precision, converted for TensorRT and built by TensorRT-RTX (minutes)'
	@echo 'make zoo     every encoder and vision class of transformers, tiny; writes docs/zoo.md (an hour); ZOO for options'
	@echo 'make fuzz    mutated input, ten thousand files of each kind (half an hour); FUZZ_SEED, FUZZ_COUNT, FUZZ_KEEP'
	@echo 'make lint    ruff and mypy alone'
	@echo 'make format  let ruff mend what it can'
	@echo 'make bench   cold start, and convert against the bare libraries (minutes)'
	@echo 'make backend every one of onnx'"'"'s own backend tests, of which `make test` runs a sixth (minutes)'
	@echo 'make docs    write docs/errors.md, docs/recipe_keys.md and docs/reference.md anew from the source'
	@echo 'make docs-accuracy  convert the sample models in every precision, write docs/accuracy.md anew (minutes)'
	@echo 'make docs-picture   convert a sample model, write the picture of its report, docs/report.png (needs chromium)'
	@echo 'make pin     write constraints.txt anew from $(VENV)'
	@echo 'make clean   remove environments, caches and what the demo made'

demo: $(DEMO_READY)
	$(BIN)/convkit convert sample_models/digits_cnn --trust --recipe recipes/cpu-int8.toml \
	  --calibration-data sample_models/digits_cnn/calibration.npz
	@echo
	@echo "Model repository, for tritonserver --model-repository: $(CURDIR)/models"
	@echo "Report, for a browser: $(CURDIR)/$$(ls -t models/digits_cnn/*/convkit/report.html | head -n 1)"

test: ready lint
	$(BIN)/python -m pytest -n $(WORKERS)

soak: ready
	$(BIN)/python -m pytest -m soak

rtx: ready
	$(BIN)/python -m pytest -m rtx tests/rtx tests/e2e

zoo: $(FOR_TESTS)
	PYTHONPATH=tests $(BIN)/python -m zoo --write docs/zoo.md $(ZOO)

fuzz: $(FOR_TESTS)
	PYTHONPATH=tests $(BIN)/python -m fuzz

ready: $(FOR_TESTS) $(TRITON)/.installed

lint: $(FOR_TESTS)
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --quiet --check
	$(BIN)/mypy --no-error-summary

format: $(FOR_TESTS)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(DEMO_READY)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/convert.py

backend: $(FOR_TESTS)
	CONVKIT_BACKEND=all $(BIN)/python -m pytest -q -s tests/backend

docs: $(FOR_TESTS)
	$(BIN)/python docs/make_errors.py
	$(BIN)/python docs/make_recipe_keys.py
	$(BIN)/python docs/make_reference.py

docs-picture: $(FOR_TESTS)
	$(BIN)/python docs/make_picture.py

docs-accuracy: $(FOR_TESTS)
	$(BIN)/python docs/make_accuracy.py

pin: $(FOR_TESTS)
	@head -n 2 constraints.txt > constraints.new
	@$(BIN)/python -m pip freeze --exclude convkit | sed -e '/^#/d' -e 's/+cpu$$//' >> constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(TRITON) models build dist *.egg-info .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later with its venv module; make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(FOR_DEMO): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing convkit and PyTorch into $(VENV): 1.2 GB, about a minute"
	@$(BIN)/$(PIP_INSTALL) -c constraints.txt -e ".[torch]"
	@touch $@

$(FOR_TESTS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing convkit, PyTorch, TensorFlow, TensorRT-RTX and the tests' tools into $(VENV): 3.2 GB, a few minutes"
	@$(BIN)/$(PIP_INSTALL) -c constraints.txt -e ".[test]"
	@touch $@

$(TRITON)/.installed: tests/triton_server/requirements.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later with its venv module; make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Installing a Triton server for the tests into $(TRITON): 0.3 GB"
	@test -x $(TRITON)/bin/python || $(PYTHON) -m venv $(TRITON)
	@$(TRITON)/bin/$(PIP_INSTALL) --no-deps -r tests/triton_server/requirements.txt
	@touch $@
