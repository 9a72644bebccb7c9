# Every command of the project. `make help` lists them; `make setup` is run by whichever needs it.
PYTHON ?= python3
UV := .uv/bin/uv
RUN := .venv/bin/python
READY := .venv/.ready
STUDY ?= quickstart
STORE ?= results
TO ?= results/$(basename $(notdir $(STUDY)))-export
ENGINE ?= docker

.DEFAULT_GOAL := help
.PHONY: help setup lock schema reference sweep ui report export notebook check format test test-all test-numeric test-security soak drill bench sbom audit wheel image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv from requirements.lock; nothing to do the second time

# The bytecode is compiled here: torch alone takes ten seconds to compile, and every process of a sweep would pay them where the
# environment cannot be written to.
$(READY): requirements.lock pyproject.toml | $(UV)
	test -x $(RUN) || $(UV) venv --quiet --python $(PYTHON) .venv
	$(UV) pip sync --quiet --require-hashes --only-binary :all: --compile-bytecode --python $(RUN) \
		requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(RUN) --editable .
	touch $@

# The pinned uv and no other: two versions may resolve and install differently.
$(UV): requirements-uv.txt
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r $<
	touch $@

export STORE

COMPILE = $(UV) pip compile --quiet --upgrade --universal --only-binary :all: \
	--generate-hashes --no-emit-index-url --no-header

lock: | $(UV) ## renew requirements.lock from pyproject.toml, and the pinned uv
	$(COMPILE) --all-extras --output-file requirements.lock pyproject.toml
	echo uv | $(COMPILE) --output-file requirements-uv.txt -
	printf "cyclonedx-bom\npip-audit\n" | $(COMPILE) --output-file requirements-audit.txt -

schema: $(READY) ## renew search_spaces/schema.json when what a study may hold has changed
	$(RUN) -c 'import pathlib, sweep.study; pathlib.Path("search_spaces/schema.json").write_text(sweep.study.schema())'

reference: $(READY) ## renew docs/settings.md when a setting or its meaning has changed
	$(RUN) -c 'import pathlib; from sweep.study.reference import reference; pathlib.Path("docs/settings.md").write_text(reference())'

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

check: $(READY) ## formatting, lint, direction of imports, types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	.venv/bin/lint-imports --no-logo
	$(RUN) -m basedpyright

format: $(READY) ## format the code and mend what lint can
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

test: $(READY) ## the tests that a change needs, in a few minutes
	$(RUN) -m pytest -m "not slow and not chaos and not browser"

test-all: $(READY) ## every test that this machine can run: also kills, two-node clusters, a browser
	$(RUN) -m pytest

soak: $(READY) ## kill, freeze and starve whole sweeps, a hundred kills among it; half an hour
	$(RUN) -m benchmarks.soak

drill: $(READY) ## sweeps on three hosts that are killed, cut off and drained; network namespaces, some forty minutes
	$(RUN) -m benchmarks.drill

# A processor that lacks an instruction set runs these as the next lesser one it has, and says nothing. The kernels run in Triton's
# interpreter here, which asks neither for ATen's instructions nor for its threads.
test-numeric: $(READY) ## compare what is computed under two instruction sets, on one thread and on two
	for case in "default 1" "avx2 1" "avx2 2"; do set -- $$case; echo "ATEN_CPU_CAPABILITY=$$1 TEST_THREADS=$$2"; \
		ATEN_CPU_CAPABILITY=$$1 TEST_THREADS=$$2 $(RUN) -m pytest -q -n $$((3 - $$2)) -m numeric -k "not fused" || exit 1; \
	done

test-security: $(READY) ## what harmful studies, tables, stores and networks must not do; SECURITY_TREE names another checkout
	$(RUN) -m pytest tests/security

bench: $(READY) ## measure an epoch, a sweep and the plan beside their rivals; about half an hour
	$(RUN) -m benchmarks.trainer
	$(RUN) -m benchmarks.sweep
	$(RUN) -m benchmarks.plan
	$(RUN) -m benchmarks.simulation

# Apart from the product's environment, which has no use for these two commands.
.audit/.ready: requirements-audit.txt
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r $<
	touch $@

sbom: .audit/.ready ## write dist/sbom.json: every locked package, as CycloneDX
	mkdir -p dist
	.audit/bin/cyclonedx-py requirements --output-reproducible --output-format JSON --validate \
		--output-file dist/sbom.json requirements.lock

audit: .audit/.ready ## ask a database for known weaknesses of the locked packages; needs the internet
	.audit/bin/pip-audit --disable-pip --require-hashes --progress-spinner off -r requirements.lock \
		|| { echo "make audit: a weakness is listed above, or the database could not be reached." >&2; exit 1; }

# `build` is setuptools' own: what is left there from before would go into the wheel.
wheel: $(READY) ## build dist/pairsweep-VERSION-py3-none-any.whl, to install anywhere with pip
	rm -rf build dist
	$(UV) build --quiet --wheel --no-build-isolation --python $(RUN) --out-dir dist .
	rm -rf build

image: ## build the container image `pairsweep`; ENGINE is docker, podman or buildah, IMAGE_OPTIONS are for its build
	version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' sweep/__init__.py) && \
	$(ENGINE) build --file docker/Dockerfile --tag pairsweep --tag pairsweep:$$version \
		--build-arg VERSION=$$version --build-arg REVISION=$$(git rev-parse HEAD) $(IMAGE_OPTIONS) .

clean: ## remove the environment and every cache
	rm -rf .venv .uv .audit build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
