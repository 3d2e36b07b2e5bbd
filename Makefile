# Every target does its own set-up: 'make demo' on a fresh machine is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS ?= cpu,dev,deepspeed,postgres
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: install demo test slow soak postgres lint audit format clean

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[$(EXTRAS)]'
	touch $(STAMP)

demo: install  ## the whole flow on a simulated reserve, into ./demo
	$(BIN)/wildray demo --store demo

test: install  ## everything that takes less than minutes
	$(BIN)/python -m pytest -q

slow: install postgres  ## what takes minutes
	$(BIN)/python -m pytest -q -m slow

# for the one test that logs to it, which says so and is skipped where this cannot install it
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && { apt-get install -qq -y postgresql || { apt-get update -qq && apt-get install -qq -y postgresql; }; } >/dev/null 2>&1; } \
	  || echo "PostgreSQL is not there and could not be installed" >&2

soak: install  ## what takes an hour and more
	$(BIN)/python -m pytest -q -m soak --timeout 14400

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive wildray jobs bench cluster

# Vulnerabilities that are known and do not concern us: ID  # why. None yet.
AUDIT_IGNORED :=

audit: install  ## known vulnerabilities of what is installed; asks PyPI, and fails where a package cannot be asked for
	$(BIN)/python -m pip install --quiet -e '.[audit]'
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[A-Za-z0-9.]*$$//' > $(VENV)/audited.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $(VENV)/audited.txt \
	  $(addprefix --ignore-vuln ,$(AUDIT_IGNORED))

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
