# Two commands: `make demo` and `make test`. Both first build .venv from constraints.txt, once.

PYTHON := $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test environment lint format wheel-check constraints clean

demo: $(STAMP)
	$(BIN)/polymodal demo $(ARGS)

test: $(STAMP) lint
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

environment: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "polymodal needs Python 3.11 or newer on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Builds the wheel, installs it with its extras into an environment that knows nothing of this checkout, and uses it.
wheel-check: $(STAMP)
	rm -rf build/wheel-check build/lib build/bdist.*
	$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel-check .
	$(PYTHON) -m venv build/wheel-check/venv
	build/wheel-check/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		"polymodal[all] @ file://$$(ls $(CURDIR)/build/wheel-check/*.whl)"
	cd / && $(CURDIR)/build/wheel-check/venv/bin/python $(CURDIR)/tests/e2e/use_installed.py
	cd / && $(CURDIR)/build/wheel-check/venv/bin/polymodal version

# After a change of the ranges in pyproject.toml: what pip takes today, pinned.
constraints:
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	{ sed '/^[^#]/d' constraints.txt; build/constraints/bin/python -m pip freeze --all \
		| grep -v -E '^(-e|#|pip==)' | sed 's/+cpu$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
