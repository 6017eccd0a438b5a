# Two commands matter: `make repro` and `make test`. Each sets up all it needs in .venv first.
#
#   make repro [PROFILE=smoke|quick|thorough|paper] [PAPER=siamese|mvfnet] [JOBS=2] [RAY=address]   the pipeline: tables, figures, executed notebooks
#   make test          lint, types, unit tests and the smoke pipeline in a scratch clone
#   make test-machines the fast tests as other processors and libraries would run them, one after the other
#   make test-fast     unit tests only; make lint, make format: style, types and code.yaml
#   make lab           JupyterLab on the notebooks
#   make gpu [MINUTES=8] [OUT=results] [TINY=1]   checks, speed and training on a CUDA card; needs torch, no .venv (TINY: walks it on the CPU)
#   make compare-runs A=folder B=folder [OUT=file.md]   two results folders side by side: rows, differences, verdicts, machines
#   make benchmarks    time the renderer, the synthesis and the training steps, on what `make repro` made
#   make tune          choose every arm's learning rate on the validation split
#   make photo-prior   choose the photo fit's prior by cross-validation on synthetic people
#   make git-filters   notebooks without outputs in commits, readable notebook diffs (this clone only)
#   make lock          write requirements.lock anew from requirements.in
#   make clean         remove generated data and caches (not results/, not .venv)

PYTHON ?= python3
VENV ?= .venv
PROFILE ?=
PAPER ?=
JOBS ?=
RAY ?=
MINUTES ?= 8
OUT ?=
TINY ?=

BIN := $(VENV)/bin
# The environment is ready when a stamp named after the lock file's checksum is there.
READY := $(VENV)/.ready-$(shell cksum < requirements.lock | cut -d ' ' -f 1)

.PHONY: repro test test-fast test-machines lint format lab benchmarks compare-runs gpu tune photo-prior git-filters lock clean env
.DEFAULT_GOAL := repro

repro: env
	@$(BIN)/python -m lib.pipeline $(if $(PROFILE),--profile $(PROFILE)) $(if $(PAPER),--paper $(PAPER)) $(if $(JOBS),--jobs $(JOBS)) $(if $(RAY),--ray $(RAY))

test: lint
	@echo "== tests, the smoke pipeline among them"
	@$(BIN)/python -m pytest

test-fast: env
	@$(BIN)/python -m pytest -m "not slow"

# What a processor offers changes last digits: each of these stands for another machine.
MACHINES := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ATEN_CPU_CAPABILITY=avx512 \
  ONEDNN_MAX_CPU_ISA=SSE41 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell NUMBA_CPU_NAME=generic

test-machines: env
	@mkdir -p out/machines; failed=; for machine in $(MACHINES); do \
	  echo "== $$machine"; \
	  env $$machine $(BIN)/python -m pytest -m "not slow" -p no:cacheprovider > out/machines/$$machine.log 2>&1 || failed="$$failed $$machine"; \
	  tail -n 1 out/machines/$$machine.log; \
	done; \
	for machine in $$failed; do echo "== failed with $$machine (out/machines/$$machine.log)"; \
	  grep -E "^(FAILED|ERROR)" out/machines/$$machine.log; done; \
	test -z "$$failed"

lint: env
	@echo "== ruff, mypy, and what each room of lib may import"
	@$(BIN)/ruff check lib tests
	@$(BIN)/ruff format --check --quiet lib tests
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports --no-cache --no-logo

format: env
	@$(BIN)/ruff check --fix lib tests
	@$(BIN)/ruff format lib tests
	@$(BIN)/python -m lib.pipeline.code

lab: env
	@PYTHONPATH="$(CURDIR)" $(BIN)/jupyter lab --notebook-dir="$(CURDIR)"

benchmarks: env
	@$(BIN)/python -m lib.bench

compare-runs: env
	@$(BIN)/python -m lib.report.compare "$(A)" "$(B)" $(if $(OUT),--out "$(OUT)")

# On a bare machine with a card: no environment is set up.
gpu:
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m lib.bench.gpu --minutes $(MINUTES) --out "$(or $(OUT),results)" $(if $(TINY),--tiny --device cpu)

tune: env
	@$(BIN)/python -m lib.tune siamese
	@$(BIN)/python -m lib.tune mvfnet

photo-prior: env
	@$(BIN)/python -m lib.photos.tuning.prior

git-filters: env
	@git config filter.strip-output.clean '"$(abspath $(BIN))/nbstripout" --drop-empty-cells --keep-id'
	@git config filter.strip-output.smudge cat
	@git config filter.strip-output.required true
	@git config diff.jupyternotebook.command '"$(abspath $(BIN))/git-nbdiffdriver" diff'
	@git config merge.jupyternotebook.driver '"$(abspath $(BIN))/git-nbmergedriver" merge %O %A %B %L %P'
	@git config merge.jupyternotebook.name 'jupyter notebook merge driver'
	@echo "notebooks/ is committed without outputs; git diff shows notebooks readably"

lock: env
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --upgrade --no-emit-package opencv-python \
	  requirements.in -o requirements.lock

clean:
	rm -rf data out .dvc/cache .dvc/tmp .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find lib tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

env: $(READY)

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "== setting up $(VENV) (once; about 2 GB to fetch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null || true
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock || \
	  { echo "uv could not; trying pip (slower)" >&2; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock; }
	@rm -f $(VENV)/.ready-*
	@touch $@
