# Every target sets up what it needs in .venv; nothing has to be installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUTPUT ?= outputs/quickstart
INSTALLED := $(VENV)/.installed
# Processes that tests run in, a file in one of them.
WORKERS ?= 2

# The real clients of the server, which the tests of tests/serving/clients drive it with.
CLIENTS := .cache/clients

# The packages of the extra `demo` and a browser's driver, for the tests of the pages.
DEMO := .cache/demo

# The trackers of `report_to`.
TRACKING := .cache/tracking

# transformers' common test suites, which its source distribution ships and its wheel does not, and what they import.
SUITES := .cache/transformers-suites

.PHONY: quickstart test test-fast test-isas test-transformers test-clients test-demo test-tracking test-dist bench lint format docs dist audit clean

quickstart: $(INSTALLED)
	$(BIN)/nora15 quickstart --output $(OUTPUT) $(ARGS)

# --no-loadscope-reorder: files keep the order of tests/conftest.py.
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

# Numbers and memory under other instruction sets than the processor's best, then under its own. Compiled code must not be taken
# from the cache of another set.
test-isas: $(INSTALLED)
	set -e; for isa in "AVX2 default" "AVX2 avx2" "DEFAULT native"; do \
	  set -- $$isa; echo "oneDNN: $$1, PyTorch: $$2"; \
	  if [ $$2 = native ]; then unset ATEN_CPU_CAPABILITY; else export ATEN_CPU_CAPABILITY=$$2; fi; \
	  cache=$$(mktemp -d); \
	  ONEDNN_MAX_CPU_ISA=$$1 TORCHINDUCTOR_CACHE_DIR=$$cache $(BIN)/python -m pytest -m isa \
	    --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS); \
	  rm -rf $$cache; \
	done

test-transformers: $(INSTALLED) $(SUITES)/.downloaded
	TRANSFORMERS_SUITES=$(SUITES) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile tests/common_suites $(ARGS)

test-clients: $(INSTALLED) $(CLIENTS)/.installed
	PYTHONPATH=$(CLIENTS) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile tests/serving/clients plugins $(ARGS)

test-demo: $(INSTALLED) $(DEMO)/.installed
	PYTHONPATH=$(DEMO) $(BIN)/python -m pytest tests/apps $(ARGS)

test-tracking: $(INSTALLED) $(TRACKING)/.installed
	PYTHONPATH=$(TRACKING) $(BIN)/python -m pytest tests/trainers/test_tracking.py $(ARGS)

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run_all.py $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site is built from the source without importing it, so that its environment needs no torch.
docs:
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --requirement requirements/docs.txt
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --quiet --site-dir site

# Wheel and sdist, whose version is computed from the tags of git.
dist:
	$(PYTHON) -m venv $(VENV)-dist
	$(VENV)-dist/bin/python -m pip install --quiet --constraint requirements/constraints.txt \
	  build==1.6.1 setuptools setuptools-scm
	rm -rf dist build
	$(VENV)-dist/bin/python -m build --no-isolation

# Each of the two files is installed into a clean environment, which runs the quickstart outside the checkout.
test-dist: dist
	set -e; for file in dist/*.whl dist/*.tar.gz; do \
	  folder=$$(mktemp -d); echo "$$file in $$folder"; \
	  $(PYTHON) -m venv $$folder/venv; \
	  $$folder/venv/bin/python -m pip install --quiet --constraint requirements/constraints.txt torch; \
	  $$folder/venv/bin/python -m pip install --quiet --constraint requirements/constraints.txt \
	    "nora15_hf[sim] @ file://$(CURDIR)/$$file"; \
	  (cd $$folder && venv/bin/nora15 quickstart --smoke --output quickstart); \
	  rm -rf $$folder; \
	done

# Known vulnerabilities of the pinned versions; pip-audit lives in an environment of its own. --strict: a package that the
# database does not know, as behind a mirror without one, is a failure and not "No known vulnerabilities".
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements/constraints.txt

clean:
	rm -rf $(VENV) $(VENV)-audit $(VENV)-dist $(VENV)-docs $(SUITES) $(CLIENTS) $(DEMO) $(TRACKING) site build dist src/*.egg-info

# An empty __init__.py is what a module of the suites looks for beside itself.
$(SUITES)/.downloaded: requirements/constraints.txt | $(INSTALLED)
	rm -rf $(SUITES)
	$(BIN)/python -m pip download --quiet --no-deps --no-binary transformers --constraint requirements/constraints.txt \
	  --dest $(SUITES) transformers
	$(BIN)/python -m pip install --quiet --no-deps --target $(SUITES)/site parameterized==0.9.0
	tar --extract --gzip --file $(SUITES)/transformers-*.tar.gz --directory $(SUITES)
	touch "$$(echo $(SUITES)/transformers-*/tests)/__init__.py" $@

$(CLIENTS)/.installed: requirements/clients.txt requirements/constraints.txt | $(INSTALLED)
	rm -rf $(CLIENTS)
	$(BIN)/python -m pip install --quiet --no-deps --target $(CLIENTS) --requirement requirements/clients.txt \
	  --constraint requirements/constraints.txt
	touch $@

$(DEMO)/.installed: requirements/demo.txt requirements/constraints.txt | $(INSTALLED)
	rm -rf $(DEMO)
	$(BIN)/python -m pip install --quiet --no-deps --target $(DEMO) --requirement requirements/demo.txt \
	  --constraint requirements/constraints.txt
	touch $@

$(TRACKING)/.installed: requirements/tracking.txt requirements/constraints.txt | $(INSTALLED)
	rm -rf $(TRACKING)
	$(BIN)/python -m pip install --quiet --no-deps --target $(TRACKING) --requirement requirements/tracking.txt \
	  --constraint requirements/constraints.txt
	touch $@

# torch first: a bare requirement would resolve to the build with CUDA libraries. What builds the package is installed like
# everything else, so that after the first time nothing is downloaded unless a version changes.
$(INSTALLED): setup.cfg pyproject.toml requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "nora15_hf needs Python 3.11 or newer, which '$(PYTHON)' is not. Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "'$(PYTHON)' cannot create environments. Install its module venv (Debian: apt-get install python3-venv), or name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@{ $(BIN)/python -m pip install --quiet --constraint requirements/constraints.txt torch setuptools setuptools-scm && \
	  $(BIN)/python -m pip install --quiet --constraint requirements/constraints.txt --no-build-isolation --editable '.[sim,dev]'; } || { \
	  echo "The packages could not be installed; pip says why. The first installation and new versions need a network. The same command continues."; exit 1; }
	touch $@
