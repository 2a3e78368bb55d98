# One command per need. `make help` lists them; each makes the virtual environment when it is missing.
VENV := .venv
BIN := $(VENV)/bin
# Python 3.11 to 3.13 with venv; `make PYTHON=/path/to/python …` decides otherwise.
PYTHON ?= $(shell for each in python3 python3.12 python3.11 python3.13; do \
	"$$each" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { command -v "$$each"; break; }; done)
TIERS := unit store live faults
SUITES := path load coverage comparison alike sweep
TIER ?= $(TIERS)
SUITE ?= $(SUITES)
SOAK ?= changes sweep alike
ARGS ?=
# Test processes, more than cores: tests wait for servers most of the time. tests/conftest.py deals the tests out.
SPREAD ?= 3

# Tests and demo start hundreds of processes of ours: none compiles the sources anew, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help venv demo test check bench soak build clean

help:
	@echo 'make demo                 the whole story on a live Triton server'
	@echo 'make test                 every tier: $(TIERS); TIER=unit for one, ARGS="-k word" for pytest'
	@echo '                          SPREAD=0 for one process, which shows what tests print'
	@echo 'make check                style, types, import contracts, rules of the house'
	@echo 'make bench [SUITE=path]   measure ($(SUITES)); writes build/bench/SUITE.json'
	@echo 'make soak [SOAK=sweep]    hours of it ($(SOAK)): random changes and crashes for MINUTES=120; sweeps beside'
	@echo '                          an exhaustive one and Model Analyzer; equal and slower candidates told apart'
	@echo 'make build                sdist and wheel in build/dist'
	@echo 'make venv | make clean    make the virtual environment | remove it and build/'

# Hash-locked dependencies first, then the project alone. The stamp is written last, so a broken installation is
# made again; an interpreter that is gone (a moved checkout, an upgraded system) counts as missing.
$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 with venv was found; name one: make PYTHON=…" >&2; exit 1; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || "$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

venv: $(VENV)/.installed

# The server's environment in build/runtime serves the tests as well.
demo: venv
	TRITONCTL_HOME="$${TRITONCTL_HOME:-$(CURDIR)/build}" $(BIN)/tritonctl demo $(ARGS)

# Each tier by itself, so that one without tests fails (pytest's exit status 5) and all are reported.
test: venv
	@failed=; for tier in $(TIER); do \
		echo "== $$tier"; $(BIN)/python -m pytest "tests/$$tier" -n $(SPREAD) --dist loadscope $(ARGS) \
			|| failed="$$failed $$tier"; \
	done; test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

check: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/unit/test_house.py tests/unit/test_errors.py

bench: venv
	@for suite in $(SUITE); do $(BIN)/python -m tests.bench.$$suite || exit 1; done

soak: venv
	@test -z "$(ARGS)" || test $(words $(SOAK)) = 1 || { echo "error: ARGS are for one soak: name it by SOAK=sweep" >&2; exit 2; }
	@for soak in $(SOAK); do case $$soak in \
		changes) $(BIN)/python -m tests.bench.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS) ;; \
		sweep) $(BIN)/python -m tests.bench.sweep --seeds 10 --reference-seconds 1800 --rivals 2 $(ARGS) ;; \
		alike) $(BIN)/python -m tests.bench.alike --comparisons 100 $(ARGS) ;; \
		*) echo "error: no soak $$soak: use changes, sweep or alike" >&2; exit 2 ;; \
	esac || exit 1; done

build: venv
	$(BIN)/python -m hatchling build -d build/dist

clean:
	rm -rf $(VENV) build
