# Every command of the project. `make help` lists them; `make setup` is run by whichever needs it.
PYTHON ?= python3
UV := $(or $(shell command -v uv),.uv/bin/uv)
RUN := .venv/bin/python
READY := .venv/.ready
STUDY ?= quickstart
STORE ?= results
TO ?= results/$(basename $(notdir $(STUDY)))-export

.DEFAULT_GOAL := help
.PHONY: help setup lock schema sweep ui report export notebook check format test bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv from requirements.lock; nothing to do the second time

# The bytecode is compiled here: torch alone takes ten seconds to compile, and every process of a sweep would pay them where the
# environment cannot be written to.
$(READY): requirements.lock pyproject.toml | $(UV)
	test -x $(RUN) || $(UV) venv --quiet --python $(PYTHON) .venv
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(RUN) requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(RUN) --editable .
	touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

export STORE

lock: | $(UV) ## renew requirements.lock from pyproject.toml
	$(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header --all-extras \
		--output-file requirements.lock pyproject.toml

schema: $(READY) ## renew search_spaces/schema.json when what a study may hold has changed
	$(RUN) -c 'import pathlib, sweep.study; pathlib.Path("search_spaces/schema.json").write_text(sweep.study.schema())'

sweep: $(READY) ## run STUDY (quickstart), or go on with it; STORE, RAY_ADDRESS and DATA_DIR say where
	.venv/bin/sweep run $(STUDY)

ui: $(READY) ## open MLflow on the gains of STUDY, also while it runs
	.venv/bin/sweep ui $(STUDY)

report: $(READY) ## the gains of STUDY as a table, and a page with pictures
	.venv/bin/sweep report $(STUDY)

export: $(READY) ## STUDY as Parquet with a notebook, into TO
	.venv/bin/sweep export $(STUDY) --to $(TO)

# JupyterLab is not in the lock, so `make setup` removes it when the lock has changed; this puts it back.
notebook: export ## export STUDY and open its notebook in JupyterLab, which is installed into .venv
	$(UV) pip install --quiet --python $(RUN) --constraint requirements.lock jupyterlab
	.venv/bin/jupyter lab $(TO)/significance.ipynb

check: $(READY) ## formatting, lint and types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m basedpyright

format: $(READY) ## format the code and mend what lint can
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

test: $(READY) ## every test that this machine can run
	$(RUN) -m pytest

bench: $(READY) ## measure an epoch, a sweep and the plan beside their rivals; about half an hour
	$(RUN) -m benchmarks.trainer
	$(RUN) -m benchmarks.sweep
	$(RUN) -m benchmarks.plan
	$(RUN) -m benchmarks.simulation

clean: ## remove the environment and every cache
	rm -rf .venv .uv *.egg-info .pytest_cache .ruff_cache .hypothesis
