# make demo: a table and a report from the quick-start study.  make test: everything that must hold.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
DEMO := out/quickstart

.PHONY: demo test install clean captures

demo: .venv/.installed
	@$(BIN)/hwsim run studies/quickstart.yaml --out $(DEMO)
	@echo "Report: $$(ls $(CURDIR)/$(DEMO)/*.html)"

test: .venv/.installed-dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/pytest -q -n 2

install: .venv/.installed

# The pages as HTML, in out/docs.
.PHONY: docs
docs: .venv/.installed
	@$(BIN)/python docs/build.py

clean:
	@rm -rf .venv out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first and alone, so that the build which the configured index offers for this machine is kept.
.venv/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) torch==2.13.0
	@$(PIP) --editable '.[torch,onnx]'
	@touch $@

.venv/.installed-dev: .venv/.installed
	@$(PIP) --editable '.[torch,onnx,dev]'
	@touch $@

# After a change of the zoo or the tracer: the captures that ship with the package.
captures: .venv/.installed
	@$(BIN)/python -m hwsim.models.ship
