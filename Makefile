# Everything starts here: `make demo` and `make test` set up what they need, from a fresh clone.
PYTHON ?= python3.11
BIN := .venv/bin
# the package and the tools are installed anew when what they are made from changes
INSTALLED := .venv/.installed

.PHONY: help setup demo picture tree test lint typecheck imports unit test-slow test-faults test-fuzz format clean

help:
	@echo "make demo       label a small sample lake and show the result"
	@echo "make test       every check: lint, format, types, imports, tests"
	@echo "make test-slow  the tests that take longer than a minute each"
	@echo "make test-faults  kills at every moment, stores that misbehave, hostile images; writes docs/faults.md"
	@echo "make test-fuzz  mutated annotation files, images and archives: none may end a command by a crash"
	@echo "make format     format the code"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt tests/readers.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/readers.txt
	touch $@

demo: $(INSTALLED)
	$(BIN)/python -m jobs demo --output demo

# the picture of the report page in README.md and docs/report.md, taken anew
picture: demo
	$(BIN)/python tests/support/take_screenshot.py demo/report.html docs/images/report.png

# the tree in docs/architecture.md, from the first line of every file
tree: $(INSTALLED)
	$(BIN)/python tests/support/tree.py

test: lint typecheck imports unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

unit: $(INSTALLED)
	$(BIN)/pytest -m "not slow and not faults"

test-slow: $(INSTALLED)
	$(BIN)/pytest -m "slow and not faults"

# mutated files of every kind that people bring; minutes
test-fuzz: $(INSTALLED)
	$(BIN)/pytest tests/fuzz

# the first two bring a Ray of their own each, and so come before those that share one
test-faults: $(INSTALLED)
	$(BIN)/pytest tests/end_to_end/test_fault_kills.py tests/end_to_end/test_fault_store.py tests/end_to_end/test_label_kills.py \
		tests/jobs/storage/test_storage_faults.py tests/jobs/label/test_lease.py tests/end_to_end/test_label_hostile.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo build dist *.egg-info
