# Everything works from a fresh clone: the first target that needs it makes a virtual environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One more than there are cores: many tests wait for processes that they have killed.
TEST_PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.PHONY: help setup demo test faults sim laws fuzz check format docs previews console bench bench-check wheel-check clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -e 's/:.*## /\t/' | expand -t 16

setup: $(STAMP)  ## make the virtual environment

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## show what Natalog does, on a nats-server of its own; about a minute
	@$(BIN)/natalog demo

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadscope

faults: $(STAMP)  ## kill and break services and servers; under 15 minutes
	$(BIN)/python -m pytest -q -m faults --timeout 600 tests/faults

sim: $(STAMP)  ## simulate SIM_COUNT schedules of services, faults and clients, 5000 by default
	$(BIN)/python tests/sim/run.py

laws: $(STAMP)  ## run the property tests with thousands of examples; takes many minutes
	NATALOG_LAWS_EXAMPLES=$${NATALOG_LAWS_EXAMPLES:-3000} \
		$(BIN)/python -m pytest -q --timeout 3600 tests/laws

fuzz: $(STAMP)  ## throw mutated bytes at every parser; FUZZ_SECONDS for each of them, 60 by default
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/run.py

check: $(STAMP)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the sources in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## write the documents that are made from the code
	$(BIN)/python tools/errors_doc.py
	$(BIN)/python tools/dashboards
	$(BIN)/python tools/metrics_doc.py

console:  ## build the web console into src/natalog/console; needs node and npm
	cd console && npm ci --silent && npm run --silent check && npm run --silent build

previews: $(STAMP)  ## draw the dashboards from a measured load; needs prometheus, takes minutes
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[previews]'
	$(BIN)/python tools/dashboards/previews.py

bench: $(STAMP)  ## measure every workload; BENCH="--suite queries --peers" chooses
	$(BIN)/python bench/run.py $(BENCH)

bench-check: $(STAMP)  ## fail when a workload became 1.5 times slower than DataScript and NumPy say
	$(BIN)/python bench/check.py $(BENCH)

wheel-check: $(STAMP)  ## build the wheel and try it in an empty environment
	$(BIN)/python .ci/wheel_check.py

clean:  ## remove what the targets made
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
