# Two commands on a bare machine: `make demo` and `make test`. Each sets up .venv when needed.
# Other Python: make PYTHON=python3.12 test.  Arguments: make test ARGS="-k splits".
# A second environment beside the first: make VENV=.venv-other PYTHON=python3.13 test.
PYTHON ?= python3
LOCK_PYTHONS ?= python3.11 python3.12 python3.13 python3.14
VENV ?= .venv
CHROMIUM ?= chromium
READY := $(VENV)/.ready
PYTEST = $(VENV)/bin/python -m pytest
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo test test-all test-slow lint docs report bench results attacks lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

demo: $(READY) ## a small competition from splits to leaderboard, on this machine
	$(VENV)/bin/mico demo $(ARGS)

test: $(READY) ## the tests and the docstrings' examples that take seconds (8 minutes on two cores)
	$(PYTEST) -n auto --dist loadfile -m "not slow" $(ARGS) || [ $$? -eq 5 ]

test-all: test test-slow ## all tests (40 minutes): clusters, kills, browsers, audits, too

test-slow: $(READY) # what `make test` leaves out
	$(PYTEST) -n auto --dist loadfile -m "slow and not alone" $(ARGS) || [ $$? -eq 5 ]
	$(PYTEST) -m alone $(ARGS) || [ $$? -eq 5 ]

lint: $(READY) ## ruff and mypy
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(READY) ## the documentation site: build/docs/index.html (half a minute)
	$(VENV)/bin/python benchmarks/report_page.py --check
	$(VENV)/bin/sphinx-build -q -E -W --keep-going -c docs $(ARGS) . build/docs

report: docs ## the technical report as a PDF: build/report.pdf (needs Chromium)
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --log-level=3 --no-pdf-header-footer \
	  --print-to-pdf=build/report.pdf build/docs/docs/report/index.html

bench: $(READY) ## speed and memory of private training: benchmarks/RESULTS.md (15 minutes)
	$(VENV)/bin/python benchmarks/bench.py $(ARGS)

results: $(READY) ## real runs: docs/RESULTS.md (90 minutes; needs ../shared)
	$(VENV)/bin/python benchmarks/real_runs.py --work runs $(ARGS)
	$(VENV)/bin/python benchmarks/results_page.py
	$(VENV)/bin/python benchmarks/privacy_table.py
	$(VENV)/bin/python benchmarks/reliability_page.py
	$(VENV)/bin/python benchmarks/attacks_page.py
	$(VENV)/bin/python benchmarks/audits_page.py
	$(VENV)/bin/python benchmarks/score_oracle_page.py --run

attacks: $(READY) ## fleets, attacks, audits, leaderboard: docs/ATTACKS.md (a day; needs ../shared)
	$(VENV)/bin/python benchmarks/attack_fleets.py --work runs/fleets
	$(VENV)/bin/python benchmarks/attack_results.py --work runs/fleets
	$(VENV)/bin/python benchmarks/attack_speed.py --models runs/fleets/A/purchase100 --dataset_dir runs/fleets/A_data
	$(VENV)/bin/python benchmarks/attacks_page.py
	$(VENV)/bin/python benchmarks/leaderboard_entries.py --work runs/benchmark
	$(VENV)/bin/python benchmarks/audit_results.py --work runs/fleets
	$(VENV)/bin/python benchmarks/audits_page.py
	$(VENV)/bin/python benchmarks/report_page.py

lock: ## write requirements.txt again from setup.py, for all of LOCK_PYTHONS
	$(PYTHON) .ci/lock.py $(LOCK_PYTHONS)

clean: ## remove caches and build leftovers; .venv and data stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src scoring tests training starting-kit -name __pycache__ -prune -exec rm -rf {} +

# The stamp is written last: an interrupted set-up continues where it stopped. Debian's python3 may
# lack ensurepip; then the system's pip puts one into .venv (and nothing outside it is touched).
$(READY): requirements.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || { \
	  echo "mico_competition needs Python 3.11 to 3.14; $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo not such a Python). Name another:" \
	    "make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@echo "Setting up $(VENV) (a few minutes, about 2.4 GB on disk; more where torch brings CUDA)..."
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV); \
	  $(PYTHON) -m venv $(VENV) >/dev/null 2>&1; } || { rm -rf $(VENV); \
	  $(PYTHON) -m venv --without-pip $(VENV) && $(VENV)/bin/python \
	  "$$($(PYTHON) -c 'import pip; print(pip.__path__[0])')" install -qq --ignore-installed pip; }
	@$(VENV)/bin/python -m pip install -qq -r requirements.txt && \
	  $(VENV)/bin/python -m pip install -qq --no-deps --no-build-isolation -e . || { \
	  echo "Setting up $(VENV) failed; the same command goes on from here (or remove $(VENV) first)." >&2; \
	  exit 1; }
	@touch $@
