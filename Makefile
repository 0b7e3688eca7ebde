# The tasks of the project: run build test lint sanitize fuzz bench docs clean. Each sets up what it needs.
# `make run` and `make test` are all a newcomer has to know.

PORT ?= 8080
WORKERS ?= 1
SECONDS = 60

VENV = .venv
PYTHON = $(VENV)/bin/python
PIP = $(PYTHON) -m pip --disable-pip-version-check --no-input --quiet
# Compiled here, with the tools of the virtual environment, looked for on PATH; warnings are errors for developers.
BUILD = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PIP) install --no-build-isolation -Csetup-args=-Dwerror_ours=true
PYTHON_CODE = src tests bench examples tools
# Side by side, as tests often wait. In how many processes, tests/conftest.py says.
TESTS = $(PYTHON) -m pytest -n auto --dist worksteal
SITES = examples/www bench/programs/site
SOURCES := $(shell find src tests/c -type f ! -name '*.pyc' 2>/dev/null) meson.build meson.options pyproject.toml

.PHONY: run build test lint sanitize fuzz bench docs clean
.SILENT:

# A key of its own for each run, unless the environment has one: the example shows encrypted links.
run: build
	MASTER_KEY="$${MASTER_KEY:-$$($(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(32))')}" \
	exec $(VENV)/bin/80s examples/www --dev --reload -p $(PORT) -c $(WORKERS)

build: $(VENV)/.stamp-build

test: lint
	$(TESTS) tests

lint: $(VENV)/.stamp-build $(VENV)/.stamp-test
	$(PYTHON) -m ruff check --quiet $(PYTHON_CODE)
	$(PYTHON) -m ruff format --quiet --check $(PYTHON_CODE)
	$(PYTHON) -m mypy --strict $(PYTHON_CODE)
	for main in $(SITES); do $(PYTHON) -m mypy --strict $$main/main.py || exit; done
	$(PYTHON) -m mypy.stubtest eighties._engine
	if command -v clang-format >/dev/null; then \
	    find src tests fuzz bench -name '*.[ch]' -exec clang-format --dry-run -Werror {} +; fi

# All that touches the engine, with one that AddressSanitizer and UndefinedBehaviorSanitizer watch. Python must then
# use malloc, and what it never frees is no leak of ours.
sanitize: build/sanitize/.stamp $(VENV)/.stamp-test
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc \
	PYTHONPATH="$(CURDIR)/build/sanitize/site" EIGHTIES_SANITIZE=1 \
	$(TESTS) -m "not lint and not browser and not pure" -p no:cacheprovider tests

fuzz: $(VENV)/.stamp-venv
	tools/need.sh fuzz
	$(MAKE) --no-print-directory -C fuzz run SECONDS=$(SECONDS)

bench: $(VENV)/.stamp-build
	tools/need.sh bench
	$(PYTHON) bench/bench.py
	$(PYTHON) bench/raw.py
	$(PYTHON) bench/pages.py
	$(PYTHON) bench/data.py
	$(PYTHON) bench/reload.py

docs: $(VENV)/.stamp-venv
	$(PYTHON) tools/check_links.py

clean:
	rm -rf build dist $(VENV) .bench-venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment with the tools of the build. Build folders remember its paths, so they go with the old one.
$(VENV)/.stamp-venv: tools/find-python.sh tools/need.sh
	tools/need.sh build
	rm -rf build
	python=$$(tools/find-python.sh) && echo "setting up $(VENV) with $$python" && $$python -m venv --clear $(VENV)
	$(PIP) install --upgrade pip
	$(PIP) install $$($(PYTHON) tools/requires.py build)
	touch $@

# The interpreter may be gone since: begin anew.
ifeq ($(shell $(PYTHON) -c '' 2>/dev/null && echo starts),)
$(VENV)/.stamp-venv: start-anew
start-anew: ;
endif

$(VENV)/.stamp-build: $(VENV)/.stamp-venv $(SOURCES)
	mkdir -p build
	$(BUILD) -Cbuild-dir=build/release .
	touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-venv pyproject.toml
	tools/need.sh test
	$(PIP) install $$($(PYTHON) tools/requires.py test)
	touch $@

# The release build brings what the program needs at run time.
build/sanitize/.stamp: $(VENV)/.stamp-build
	rm -rf build/sanitize/site
	mkdir -p build/sanitize
	$(BUILD) --no-deps --target build/sanitize/site -Cbuild-dir=build/sanitize/meson \
	    -Csetup-args=-Dbuildtype=debugoptimized -Csetup-args=-Db_lto=false -Csetup-args=-Db_ndebug=false \
	    -Csetup-args=-Db_sanitize=address,undefined -Csetup-args=-Db_lundef=false .
	touch $@
