# Everything from a bare checkout: Python 3.11 or later, make and a package index are all that is needed.
PYTHON ?= python3
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never

.PHONY: demo test check servers bench soak format lock clean

demo: .venv/.run
	$(BIN)/k2 demo

test: check browser servers
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "(slow or servers) and not soak" --timeout 1200

check: .venv/.dev
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not servers and not soak"

# Other engines to compare with: large, not to be had everywhere, and at odds with what the tests need,
# so that they have a folder of their own.
.venv/.bench: .venv/.run requirements-bench.txt
	$(BIN)/uv venv -q --clear --python $(BIN)/python .venv/bench
	$(BIN)/uv pip install -q --python .venv/bench/bin/python --require-hashes -r requirements-bench.txt
	$(BIN)/uv pip install -q --python .venv/bench/bin/python --no-deps --no-build-isolation -e .
	@touch $@

# All of it, or what is named: make bench BENCH="table --rows 2000000".
bench: .venv/.dev
	@$(MAKE) -s .venv/.bench || echo "no engines to compare with: they will be left out by name"
	@if [ -e .venv/.bench ]; then .venv/bench/bin/python -m bench $(BENCH); else $(BIN)/python -m bench $(BENCH); fi

soak: .venv/.dev
	$(BIN)/pytest -m soak --timeout 7200

format: .venv/.dev
	$(BIN)/ruff format -q .
	$(BIN)/ruff check -q --fix .

# Chromium for the browser tests: a system package, installed where that is allowed.
.PHONY: browser
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium; \
	  else echo "no Chromium, and no way to install it: the browser tests will be skipped by name"; fi; }

# Prometheus for the tests of the alerts: a system package too.
.PHONY: prometheus
prometheus:
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends prometheus; \
	  else echo "no Prometheus, and no way to install it: the tests of alerts will be skipped by name"; fi; }

# Kafka and the like for the tests, in a cache outside the checkout; no part of the package.
servers: prometheus
	@$(PYTHON) servers/install.py || echo "tests that need what is missing will be skipped by name"

# The versions that the locks were made for; uv itself is pinned in them.
.venv/.uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --require-hashes -r requirements-uv.txt
	@touch $@

.venv/.run: .venv/.uv requirements.txt pyproject.toml
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.run requirements-dev.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements-dev.txt
	@touch $@

lock: .venv/.uv
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --group build pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --group build --group dev pyproject.toml -o requirements-dev.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --group build --group bench -c requirements.txt pyproject.toml -o requirements-bench.txt
	echo uv | $(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate - -o requirements-uv.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache build dist
