# Everything starts here: `make demo`, `make quick` and `make test` set up what they need, from a fresh clone.
# A line "target: ## words" stands in `make help`.
PYTHON ?= python3.11
BIN := .venv/bin
# the package and the tools are installed again when one of these files changes
INSTALLED := .venv/.installed
# tests without any of these marks need nothing but Python and little time; tests/conftest.py sets the first four
QUICK := not ray and not store and not browser and not process and not compute and not slow and not faults and not hosts
UNIT := not slow and not faults and not hosts

.PHONY: help setup demo picture tree gpu-check faults-page quick test lint typecheck imports unit test-slow test-faults test-hosts test-fuzz wheel format clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

setup: $(INSTALLED) ## .venv with the package, its extras and the tools

$(INSTALLED): pyproject.toml constraints.txt tests/readers.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/readers.txt
	touch $@

demo: $(INSTALLED) ## label a small sample lake and show the result
	$(BIN)/python -m jobs demo --output demo

quick: $(INSTALLED) ## the tests that need no Ray, store, browser or process, and no whole network
	$(BIN)/pytest -m "$(QUICK)"

test: lint typecheck imports unit ## every check: lint, types, imports, all tests that are not slow

lint: $(INSTALLED) ## ruff, its format, and whether every import is declared
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry .

typecheck: $(INSTALLED) ## mypy
	$(BIN)/mypy

imports: $(INSTALLED) ## the rooms import one way
	$(BIN)/lint-imports

# In three processes: one that had run all of it, with Ray, OpenVINO and torch loaded, once ended by signal 11 as it
# started a child. The cause is not known yet.
unit: $(INSTALLED) ## the tests of `make test` alone
	$(BIN)/pytest -m "$(UNIT)" --ignore tests/jobs --ignore tests/end_to_end
	$(BIN)/pytest -m "$(UNIT)" tests/jobs
	$(BIN)/pytest -m "$(UNIT)" tests/end_to_end

test-slow: $(INSTALLED) ## the tests that take longer than a minute each
	$(BIN)/pytest -m "slow and not faults"

test-fuzz: $(INSTALLED) ## mutated annotation files, images and archives: none may end a command by a crash
	$(BIN)/pytest tests/fuzz

# the first two files bring a Ray of their own each, and so come before those that share one
test-faults: $(INSTALLED) ## kills at every moment, stores that misbehave, hostile images; writes build/faults.md
	$(BIN)/pytest tests/end_to_end/test_fault_kills.py tests/end_to_end/test_fault_store.py tests/end_to_end/test_label_kills.py \
		tests/jobs/storage/test_storage_faults.py tests/jobs/label/test_lease.py tests/end_to_end/test_label_hostile.py

test-hosts: $(INSTALLED) ## label, train and export over hosts that share nothing, in network namespaces; takes root
	$(BIN)/pytest -s -m hosts tests/end_to_end/test_hosts.py

faults-page: ## take the page of the last `make test-faults` over into docs/faults.md
	cp build/faults.md docs/faults.md

gpu-check: $(INSTALLED) ## ten minutes of this machine's GPU: parity, speeds, kernels and waits; writes build/gpu.json and .md
	$(BIN)/python -m benchmarks.gpu

tree: $(INSTALLED) ## draw the tree in docs/architecture.md from the first line of every file
	$(BIN)/python tests/support/tree.py

picture: demo ## take the screenshot of the report page in README.md and docs/report.md again
	PYTHONPATH=tests $(BIN)/python tests/support/take_screenshot.py demo/report.html docs/images/report.png

wheel: $(INSTALLED) ## dist/*.whl and dist/*.tar.gz
	$(BIN)/python -m build --no-isolation

format: $(INSTALLED) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, the demo and what was built
	rm -rf .venv demo build dist *.egg-info
