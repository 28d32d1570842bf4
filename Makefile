# One command set for people and CI. `make help` lists it.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP_ARGS ?=
# What labels; what trains as well; what tests and checks. Each includes those before it.
SETUP := $(VENV)/.setup-stamp
LOCAL := $(VENV)/.local-stamp
DEV := $(VENV)/.dev-stamp
# Tools that pin much of what we use too, each kind in an environment of its own.
SUPPLY := .venv-supply/.stamp
CHECKOV := .venv-checkov/.stamp
INSTALL = $(BIN)/python -m pip install -q $(PIP_ARGS) -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-browser demo demo-loop test test-images test-vllm test-adapters check check-platforms licences sbom hashes checkov protos up clean bench judge-table models format chaos chaos-cluster simulate simulate-faults fuzz test-wheel wheel images release site notebooks

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 10

setup: $(SETUP)  ## Install what labels into .venv (needs a package registry).

$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qrelay needs Python 3.11 or newer: set PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e ".[label]"
	touch $@

$(LOCAL): $(SETUP)
	$(INSTALL) -e ".[local]"
	touch $@

# Their own readers of training files, for tests; what else they depend on is not needed for that.
READERS := flagembedding==1.4.2 tevatron==0.1.0

$(DEV): $(LOCAL) scripts/fetch_schemas.py scripts/crd_models.py scripts/schemas.yaml
	$(INSTALL) -e ".[dev]"
	$(INSTALL) --no-deps $(READERS)
	$(BIN)/python -m scripts.fetch_schemas $(PIP_ARGS)
	touch $@

setup-dev: $(DEV)  ## Install the developer's tools as well: tests, types, schemas of clusters.

AXE := .axe/node_modules/axe-core/axe.min.js
setup-browser: $(AXE)  ## Install selenium and axe-core (npm) for the browser tests, which need Debian's chromium and chromium-driver too.

$(AXE): $(DEV)
	$(INSTALL) selenium==4.51.0
	npm install --no-save --no-audit --no-fund --prefix .axe axe-core@4.14.1

models: $(SETUP)
	$(BIN)/qrelay models pull all-MiniLM-L6-v2 smollm2-135m-instruct qwen2.5-coder-0.5b-instruct

demo: $(SETUP)  ## Label how-to questions over the Python documentation with real models (3 to 6 minutes after downloads).
	$(BIN)/qrelay demo

demo-loop: $(LOCAL) models  ## One turn of the loop on the Python documentation: labels, training, gate, hot swap (at most 15 minutes).
	$(BIN)/python -m qrelay.demo.loop.run

JOBS ?= 3
test: $(DEV) models  ## Run the test suite (JOBS=3 processes side by side).
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

SEEDS ?= 20
QUERIES ?= 300
chaos: $(DEV)  ## Break a real installation on purpose (SEEDS=20 QUERIES=300); the last line is one JSON object.
	$(BIN)/python -m tests.chaos --seeds $(SEEDS) --queries $(QUERIES)

chaos-cluster: $(DEV)  ## Break three NATS servers on purpose, under load (as root: power failures too); a JSON line a fault.
	$(BIN)/python -m tests.chaos.cluster_run

START ?= 1
simulate: SEEDS = 1000
simulate: $(DEV)  ## Run the pipeline in a simulated world (SEEDS=1000 START=1); a finding comes with the command that replays it.
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --start $(START)

simulate-faults: $(DEV)  ## Put old faults back, one by one, and see that the simulation finds each.
	$(BIN)/python -m pytest -q tests/simulation -k put_back -rA

SECONDS ?= 600
FUZZ ?=
fuzz: $(DEV)  ## Feed every reader with mutants of valid inputs (SECONDS=600 of processor time; FUZZ="--parser NAME").
	TQDM_DISABLE=1 $(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(FUZZ)

test-images: $(DEV)  ## Install each image's libraries on their own, start its command, see that it holds no other's (5 minutes).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "" -rP tests/deploy/docker/test_images.py

wheel: $(DEV)  ## Build the wheel and the source archive into dist/: the same files give the same bytes.
	$(BIN)/python -m scripts.package

test-wheel: $(DEV) $(SUPPLY) models  ## Install the wheel into empty environments: light in seconds, local with the whole demo (6 minutes).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "" -rP tests/packaging/test_installed.py

images: $(SETUP)  ## Describe every image and the command that builds it, as JSON; BUILD=1 builds them where an engine is at hand.
	$(BIN)/python -m scripts.images $(if $(BUILD),--build)

TAG ?=
release: $(DEV) $(SUPPLY)  ## Rehearse the release of a tag (TAG=v0.1.0): wheel, images' recipes, SBOM, site, notes; PUBLISH=1 publishes.
	$(BIN)/python -m scripts.release $(TAG) $(if $(PUBLISH),--publish)

test-vllm: $(DEV) models  ## Install vLLM for the CPU into .venv-vllm and run the judge's contract tests with it.
	$(BIN)/python -m scripts.setup_vllm $(PIP_ARGS)
	.venv-vllm/bin/python -m pytest --timeout 400 tests/llm/test_backends.py tests/llm/test_vllm.py tests/llm/test_vllm_server.py -k vllm

test-adapters: $(DEV) models  ## Install other people's tools into .venv-adapters and run the adapters' tests with them (3 minutes).
	$(BIN)/python -m scripts.setup_adapters $(PIP_ARGS)
	.venv-adapters/bin/python -m scripts.licences scripts/adapters.txt
	PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 .venv-adapters/bin/python -m pytest tests/integrations

check: $(DEV)  ## Lint, types, layers, contracts, generated files, the documentation's site with its links.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m scripts.check_generated
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m scripts.licences
	$(BIN)/hadolint deploy/docker/*.Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/docker/compose*.yaml

check-platforms: $(LOCAL)  ## Ask the package registry for a wheel of each dependency on each kind of machine.
	$(BIN)/python -m scripts.check_wheels $(PIP_ARGS)

licences: $(DEV)  ## Compare every dependency's licence with scripts/licences.yaml.
	$(BIN)/python -m scripts.licences

$(SUPPLY): Makefile
	$(PYTHON) -m venv .venv-supply
	.venv-supply/bin/python -m pip install -q $(PIP_ARGS) cyclonedx-bom==7.5.0 twine==7.0.0 uv==0.13.9
	touch $@

sbom: $(SETUP) $(SUPPLY)  ## Write build/sbom: CycloneDX of this environment, and of what each image installs.
	$(BIN)/python -m scripts.sbom

hashes: $(SUPPLY)  ## Write constraints-hashed.txt anew, after a change of constraints.txt (needs a package registry).
	.venv-supply/bin/python -m scripts.hashed --write

$(CHECKOV): Makefile
	$(PYTHON) -m venv .venv-checkov
	.venv-checkov/bin/python -m pip install -q $(PIP_ARGS) checkov==3.3.30
	touch $@

checkov: $(DEV) $(CHECKOV)  ## Ask checkov about every overlay; deploy/k8s/checkov.yaml explains what is skipped.
	$(BIN)/python -m scripts.checkov .venv-checkov/bin/checkov

SITE := $(VENV)/.site-stamp
site: $(SITE)  ## Build the documentation as a site into build/site; a dead link or anchor fails.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(SITE): $(SETUP)
	$(INSTALL) -e ".[docs]"
	touch $@

notebooks: $(DEV) models  ## Run the notebooks of examples/ anew, and store what they print.
	$(BIN)/python -m scripts.notebooks --write

protos: $(DEV)  ## Generate qrelay/v1 from protos/, and the reference pages of docs/ from the code.
	$(BIN)/python -m scripts.check_generated --write

up: setup  ## Run the four services here until Ctrl-C.
	$(BIN)/qrelay up

bench: $(DEV) models  ## Measure every service, the pipeline and the bare libraries; writes docs/benchmarks.md (about an hour).
	$(BIN)/python -m benchmarks.suite
	$(BIN)/python -m scripts.check_generated --write

CACHE ?= .qrelay/judge-cache.sqlite
DL19 ?=
judge-table: $(DEV)  ## The judges on public collections beside published labels, from the judgment cache (CACHE=FILE DL19=1); writes docs/judge.md.
	$(BIN)/python -m benchmarks.judge_table --cache $(CACHE) $(if $(DL19),--dl19)
	$(BIN)/python -m benchmarks.judge_table --cache $(CACHE) $(if $(DL19),--dl19) --transfer

format: $(DEV)  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment, state and caches of this checkout (models stay in their cache).
	rm -rf $(VENV) .venv-vllm .venv-adapters .venv-supply .venv-checkov build dist .axe .qrelay .fuzz demo-output demo-loop-output .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
