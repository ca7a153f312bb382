# The whole project from a clone: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_OPTIONS := $(if $(QUICK),--quick) $(if $(JSON),--json)

.PHONY: help venv demo test test-system check bench plots bench-tools clean

help:
	@echo "make demo         set up .venv and run the main job: bus, launcher, two nodes, a SOCKS pair"
	@echo "make test         set up .venv and pass the tests (needs only Python, make and pip)"
	@echo "make test-system  tests that need Debian's packages and root; installs them"
	@echo "make check        format, lint, types, import contracts"
	@echo "make bench        all benchmarks (QUICK=1 for a first look, JSON=1 for a line a row)"
	@echo "make plots        measure and draw the plots of the documentation"

venv: $(STAMP)

# --without-pip: Debian's python3 has no ensurepip unless python3-venv is installed; the user's pip installs into the venv.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@$(PYTHON) -m pip --version >/dev/null || { echo "make: $(PYTHON) has no pip; install it (Debian: apt-get install python3-pip)" >&2; exit 2; }
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --editable . $$($(PYTHON) .ci/dev_requirements.py dev)
	@$(BIN)/python -m compileall -q bus viscript nodes apps
	@touch $@

demo: venv
	$(BIN)/python -P examples/demo.py

test: venv
	$(BIN)/pytest -q --numprocesses 3 --dist loadfile

test-system: venv
	.ci/install_system
	$(BIN)/pytest -q tests/system

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-tools: venv
	@.ci/install_system
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check $$($(PYTHON) .ci/dev_requirements.py bench)

bench: bench-tools
	@$(BIN)/python -P benchmarks/start.py $(BENCH_OPTIONS)
	@$(BIN)/python -P benchmarks/bus.py $(BENCH_OPTIONS)
	@$(BIN)/python -P benchmarks/socks.py $(BENCH_OPTIONS)
	@$(BIN)/python -P benchmarks/vpn.py $(BENCH_OPTIONS)
	@$(BIN)/python -P benchmarks/mesh.py $(BENCH_OPTIONS)
	@$(BIN)/python -P benchmarks/launcher.py $(BENCH_OPTIONS)

plots: bench-tools
	@$(BIN)/python -P benchmarks/plots.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
