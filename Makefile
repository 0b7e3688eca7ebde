# The tasks of the project: run build test lint sanitize fuzz bench docs clean. Each sets up what it needs.
# `make run` and `make test` are all a newcomer has to know.

PORT = 8080
WORKERS = 1
SECONDS = 60

VENV = .venv
PYTHON = $(VENV)/bin/python
PIP = $(PYTHON) -m pip --disable-pip-version-check --quiet
# The build finds meson and ninja on PATH.
INSTALL = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PIP) install --no-build-isolation
SOURCES := $(shell find src tests/c -type f ! -name '*.pyc' 2>/dev/null) meson.build pyproject.toml
PYTHON_CODE = src tests bench examples

.PHONY: run build test lint sanitize fuzz bench docs clean
.SILENT:

run: build
	exec $(VENV)/bin/80s examples/simple_http.py -p $(PORT) -c $(WORKERS)

build: $(VENV)/.stamp-build

test: lint
	$(PYTHON) -m pytest tests

lint: build $(VENV)/.stamp-dev
	$(PYTHON) -m ruff check --quiet $(PYTHON_CODE)
	$(PYTHON) -m ruff format --quiet --check $(PYTHON_CODE)
	$(PYTHON) -m mypy --strict $(PYTHON_CODE)
	$(PYTHON) -m mypy.stubtest eighties._engine
	if command -v clang-format >/dev/null; then \
	    find src tests fuzz bench -name '*.[ch]' -exec clang-format --dry-run -Werror {} +; fi

# The whole suite on an engine built with AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: build/sanitize/.stamp $(VENV)/.stamp-dev
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	PYTHONMALLOC=malloc PYTHONPATH=build/sanitize/site EIGHTIES_SANITIZE=1 \
	$(PYTHON) -m pytest -m "not lint and not browser" -p no:cacheprovider tests

fuzz: $(VENV)/.stamp-build
	tools/need.sh fuzz
	$(MAKE) --no-print-directory -C fuzz run SECONDS=$(SECONDS)

bench: build $(VENV)/.stamp-dev
	tools/need.sh bench
	$(PYTHON) -m bench

clean:
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -exec rm -rf {} +

# A virtual environment with the build's own tools. Build folders remember its paths, so they go with the old one.
$(VENV)/.stamp-venv: tools/find-python.sh tools/need.sh
	tools/need.sh build
	rm -rf build
	python=$$(tools/find-python.sh) && $$python -m venv --clear $(VENV)
	$(PIP) install --upgrade pip
	$(PIP) install meson-python meson ninja
	touch $@

$(VENV)/.stamp-build: $(VENV)/.stamp-venv $(SOURCES)
	mkdir -p build
	$(INSTALL) -Cbuild-dir=build/release .
	touch $@

# What tests and lint need beyond the build; bench needs nothing more.
$(VENV)/.stamp-dev: $(VENV)/.stamp-venv pyproject.toml
	$(PIP) install "pytest>=8" "hypothesis>=6" "mypy>=1.10" "ruff>=0.5"
	touch $@

build/sanitize/.stamp: $(VENV)/.stamp-build
	rm -rf build/sanitize/site
	mkdir -p build/sanitize
	$(INSTALL) --no-deps --target build/sanitize/site -Cbuild-dir=build/sanitize/build \
	    -Csetup-args=-Dbuildtype=debugoptimized -Csetup-args=-Db_sanitize=address,undefined \
	    -Csetup-args=-Db_lundef=false -Csetup-args=-Dwerror_ours=true .
	touch $@
