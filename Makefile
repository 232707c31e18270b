# make demo        compile the demo model and let it write
# make test        what CI runs: lint, types, tests, the packaging check
# make lint        style and types alone
# make bench       published shapes beside this CPU's limits and other engines; BENCH="--shapes 370M"
# make bench-gpu   published shapes on this GPU, beside torch; BENCH="--shapes 370M"
# make libraries   the JavaScript of the explain page, fetched from npm as its table pins it

PYTHON ?= python3
BIN := .venv/bin
DEMO := build/demo.mmfree

.PHONY: demo test lint bench bench-gpu libraries

demo: $(DEMO)
	$(BIN)/mmfree run $(DEMO) --prompt "The list is" --max-new-tokens 200 \
		--temperature 0.7 --top-p 0.95 --seed 1 --stats

test: lint
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.installed
	$(BIN)/python -m benchmarks.cpu $(BENCH)

bench-gpu: .venv/.installed
	$(BIN)/python -m benchmarks.gpu $(BENCH)

libraries: .venv/.installed
	$(BIN)/python .ci/fetch_libraries.py

$(DEMO): .venv/.installed $(wildcard demo/*)
	mkdir -p $(@D)
	$(BIN)/mmfree compile demo --target cpu -o $@

# The stamp is newer than what decides what is installed; an unfinished install leaves none.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	touch $@
