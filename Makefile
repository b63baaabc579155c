# Everything a developer runs. `make` alone lists the targets.

PYTHON ?= python3
TEST_VERSIONS ?= 3.12 3.13 3.14

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
INSTALLED := $(VENV)/.installed
DEMO_INSTALLED := $(VENV)/.installed-demo
FUZZ_INSTALLED := $(VENV)/.installed-fuzz
STUBS_VENV := .venv-stubs
STUBS_INSTALLED := $(STUBS_VENV)/.installed

# $(call install_into,VENV,GROUPS): the locked packages of all extras and the given groups, then the
# project itself, editable. As constraints the lock gives versions and hashes for whatever is asked for.
install_into = $(UV) pip install --quiet --python $(1)/bin/python --require-hashes \
	--requirements pyproject.toml --all-extras $(2) --constraints requirements.lock \
	&& $(UV) pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## create .venv with the locked packages and the project, editable
	@:

# Apart from the rest, because `make lock` has to work when the lock lacks something.
$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "install: $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@awk '/^uv==/ { found = 1 } found { print } found && !/\\$$/ { exit }' requirements.lock >$(VENV)/uv.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/uv.txt
	@touch $@

$(INSTALLED): pyproject.toml requirements.lock | $(UV)
	@echo "install: packages"
	@$(call install_into,$(VENV),--group dev)
	@touch $@

# Kept out of `install`: the model's server is 100 MB that no test needs.
$(DEMO_INSTALLED): $(INSTALLED)
	@echo "install: $(VENV), for the demo"
	@$(call install_into,$(VENV),--group demo)
	@touch $@

# Kept out too: only `fuzz` needs it, and not every machine can have it.
$(FUZZ_INSTALLED): $(INSTALLED)
	@echo "install: $(VENV), for fuzzing"
	@$(call install_into,$(VENV),--group fuzz)
	@touch $@

$(STUBS_INSTALLED): scripts/requirements-stubs.lock | $(INSTALLED)
	@echo "install: $(STUBS_VENV)"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(STUBS_VENV)
	@$(UV) pip install --quiet --python $(STUBS_VENV)/bin/python --require-hashes --requirements $<
	@touch $@

.PHONY: test
test: install lint types stubs-check docs-check ## every check: format, lint, types, import contracts, stubs, tests
	@echo "test: pytest"
	@$(BIN)/pytest -n auto

.PHONY: lint
lint: install ## check format, lint rules and import contracts
	@echo "lint: ruff format --check"
	@$(BIN)/ruff format --quiet --check
	@echo "lint: ruff check"
	@$(BIN)/ruff check --quiet
	@echo "lint: import contracts"
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: install ## rewrite the code to the format, with the fixes that are safe
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format --quiet

.PHONY: types
types: install ## check the types
	@echo "types: mypy"
	@$(BIN)/mypy

.PHONY: stubs
stubs: $(STUBS_INSTALLED) ## generate the gRPC stubs from proto/
	@$(STUBS_VENV)/bin/python scripts/generate_stubs.py

.PHONY: stubs-check
stubs-check: $(STUBS_INSTALLED) ## check that the gRPC stubs are what proto/ gives
	@echo "stubs: compare with proto/"
	@$(STUBS_VENV)/bin/python scripts/generate_stubs.py --check

.PHONY: docs
docs: install ## write the generated parts of docs/
	@$(BIN)/python scripts/generate_settings_doc.py
	@$(BIN)/python scripts/generate_errors_doc.py
	@$(BIN)/python scripts/generate_conformance_doc.py

.PHONY: docs-check
docs-check: install ## check that `make docs` would change nothing
	@echo "docs: compare with what the code gives"
	@$(BIN)/python scripts/generate_settings_doc.py --check
	@$(BIN)/python scripts/generate_errors_doc.py --check
	@$(BIN)/python scripts/generate_conformance_doc.py --check

.PHONY: test-versions
test-versions: install ## run the tests on the other Pythons found on PATH (TEST_VERSIONS)
	@missing= failed=; for version in $(TEST_VERSIONS); do \
		python=$$($(UV) python find --no-python-downloads --system $$version 2>/dev/null) \
			|| { missing="$$missing $$version"; continue; }; \
		echo "test: Python $$version ($$python)"; \
		venv=.venv-versions/$$version; \
		{ $(UV) venv --quiet --allow-existing --python $$python $$venv \
			&& $(call install_into,$$venv,--group dev) \
			&& $$venv/bin/pytest -n auto; } || failed="$$failed $$version"; \
	done; \
	test -z "$$missing" || echo "not found on PATH, so not tested: Python$$missing"; \
	test -z "$$failed" || { echo "failed: Python$$failed"; exit 1; }

.PHONY: bench
bench: install ## run the benchmarks
	@$(BIN)/python -m benchmarks

.PHONY: chaos
chaos: install ## the robustness tests that take many minutes
	@PARENT_KILLS=1000 STREAM_CHUNKS=1000000 $(BIN)/pytest -n auto \
		tests/process/test_parent_killed.py tests/bridge/test_wire.py

FUZZ_EXAMPLES ?= 2000
FUZZ_RUNS ?= 1000000

.PHONY: fuzz
fuzz: $(FUZZ_INSTALLED) ## send the worker and its decoder what nobody would, at random
	@echo "fuzz: FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) requests of each kind"
	@FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/pytest -n auto --timeout 3600 --show-capture=no tests/fuzz
	@echo "fuzz: FUZZ_RUNS=$(FUZZ_RUNS) parameters"
	@$(BIN)/python -m tests.fuzz.decoder -runs=$(FUZZ_RUNS)

.PHONY: demo
demo: $(DEMO_INSTALLED) ## run the demo against a real small language model
	@$(BIN)/python -m examples.demo

.PHONY: lock
lock: $(UV) ## resolve the newest versions into the lock files
	@$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" \
		--all-extras --group dev --group demo --group fuzz \
		--output-file requirements.lock pyproject.toml
	@$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" \
		--group stubs --output-file scripts/requirements-stubs.lock

.PHONY: wheel
wheel: install ## build the wheel into dist/
	@$(BIN)/hatchling build --target wheel

.PHONY: clean
clean: ## remove the environments, caches and builds
	rm -rf .cache .venv .venv-stubs .venv-versions dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
