# mer_bench: every target sets up what it needs in .venv. `make help` lists targets and variables.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
DATASET ?= simulated
METHODS ?=
SEEDS ?=
EPOCHS ?=
DEVICES ?= 1
STRATEGY ?= auto
NUM_NODES ?= 1
JOBS ?= 1
PRECISION ?=
COMPILE ?=
RERUN_CHANGED ?=
WITH_PUBLISHED ?=
SHARD ?=
ROWS ?=
BUDGET ?=
FOLDS ?=
CLUSTER ?=
MEASURE ?=
KEEP ?=
SAVE_MODELS ?=
LOGGER ?= csv
CORPUS ?= auto
MER_DATA ?= data
RESULTS ?= benchmarks/results
RAW ?=
FEATURES ?=
MODELS ?=
OUT ?=
YES ?=
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: help bench tune data download test lint unit slow smoke leaderboard methods golden simulate plots report reference site check verify speed gpu list clean

help:  ## this text
	@echo "Targets:"; grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 22
	@echo; echo "Variables of make bench, each optional:"
	@echo "  DATASET    simulated (default), ravdess, iemocap, meld, diagnostic ...: the suite benchmarks/DATASET.toml"
	@echo "  METHODS    only these methods of the suite, e.g. METHODS='cfn_sr tacfn'"
	@echo "  SEEDS      these seeds instead of the suite's, e.g. SEEDS='0 1 2'"
	@echo "  EPOCHS     this many epochs instead of the suite's"
	@echo "  DEVICES    devices of one run (default 1); with more, set STRATEGY"
	@echo "  STRATEGY   as Lightning names it: auto (default), ddp, ddp_spawn, fsdp, deepspeed ..."
	@echo "  NUM_NODES  machines of one run (default 1)"
	@echo "  PRECISION  as Lightning names it, e.g. bf16-mixed, or tf32 (default: the suite's)"
	@echo "  COMPILE    1: train through torch.compile"
	@echo "  RERUN_CHANGED  1: make runs again whose method was edited since"
	@echo "  JOBS       runs side by side (default 1)"
	@echo "  SHARD      only this share of the runs, e.g. SHARD=3/10; see docs/many_machines.md"
	@echo "  CLUSTER    run on Ray: local (JOBS side by side) or ray://HOST:PORT"
	@echo "  ROWS       default: with the suite's settings, tuned: with those of make tune, or both (default)"
	@echo "  MEASURE    beside the score: literature (best test epoch), robustness, efficiency, gradients, temperature,"
	@echo "             raters, transfer:CORPUS; several in quotes"
	@echo "  KEEP       beside each record: probabilities, of the test utterances"
	@echo "  SAVE_MODELS  1: keep the trained model of each run beside its record"
	@echo "  LOGGER     csv (default), wandb (offline unless you are logged in) or none"
	@echo "  CORPUS     auto (default: a simulated stand-in where the corpus is absent), real or simulated"
	@echo "  MER_DATA   folder of the prepared corpora (default data)"
	@echo "  RESULTS    folder of the records (default benchmarks/results)"
	@echo "  WITH_PUBLISHED  1: with RESULTS, show the published rows on its leaderboard or report as well"
	@echo "Variables of make tune: DATASET, METHODS, EPOCHS, PRECISION, JOBS, CLUSTER, LOGGER, CORPUS, MER_DATA, RESULTS, and"
	@echo "  BUDGET (trials of each row and fold instead of the suite's), FOLDS (only these, e.g. FOLDS='1 2')"
	@echo "Variables of make data: DATASET, RAW (the corpus as you obtained it), MER_DATA, FEATURES (further sets: light,"
	@echo "  standard, or commands such as FEATURES='audio logmel; vision frames --side 112'), MODELS (folder of the models"
	@echo "  that standard needs, if they are not to be downloaded)"
	@echo "Variables of make download: DATASET, OUT (default downloads/DATASET), YES=1 (accept the licence unasked)"

bench: .venv/base $(if $(filter wandb,$(LOGGER)),.venv/wandb) $(if $(CLUSTER),.venv/cluster)  ## run what the suite lacks, rewrite the leaderboard
	$(BIN)/mer-bench bench benchmarks/$(DATASET).toml --methods "$(METHODS)" --seeds "$(SEEDS)" \
	  $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(PRECISION),--precision $(PRECISION)) $(if $(COMPILE),--compile) \
	  $(if $(RERUN_CHANGED),--rerun-changed) $(if $(WITH_PUBLISHED),--with-published) $(if $(SAVE_MODELS),--save-model) \
	  $(if $(SHARD),--shard $(SHARD)) $(if $(ROWS),--rows $(ROWS)) $(if $(CLUSTER),--cluster $(CLUSTER)) --jobs $(JOBS) --devices $(DEVICES) \
	  --strategy $(STRATEGY) --num-nodes $(NUM_NODES) --measure "$(MEASURE)" --keep "$(KEEP)" \
	  --logger $(LOGGER) --corpus $(CORPUS) --data "$(MER_DATA)" --results "$(RESULTS)"

tune: .venv/base $(if $(filter wandb,$(LOGGER)),.venv/wandb) $(if $(CLUSTER),.venv/cluster)  ## try settings on validation alone, write benchmarks/tuned/DATASET.toml
	$(BIN)/mer-bench tune benchmarks/$(DATASET).toml --methods "$(METHODS)" $(if $(BUDGET),--budget $(BUDGET)) \
	  $(if $(FOLDS),--folds "$(FOLDS)") $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(PRECISION),--precision $(PRECISION)) \
	  $(if $(CLUSTER),--cluster $(CLUSTER)) --jobs $(JOBS) --logger $(LOGGER) --corpus $(CORPUS) \
	  --data "$(MER_DATA)" --results "$(RESULTS)"

data: .venv/prep  ## prepare a corpus: make data DATASET=ravdess RAW=<folder>
	@test -n "$(RAW)" || { echo "error: make data needs RAW=<the corpus as you obtained it>; see data_prep/README.md" >&2; exit 2; }
	$(BIN)/python -m data_prep $(DATASET) --raw "$(RAW)" --out "$(MER_DATA)" \
	  $(if $(FEATURES),--features "$(FEATURES)") $(if $(MODELS),--models "$(MODELS)")

download: .venv/prep  ## fetch a corpus: make download DATASET=ravdess (or meld)
	$(BIN)/python -m data_prep download $(DATASET) $(if $(OUT),--out "$(OUT)") $(if $(YES),--yes)

test: lint unit smoke check  ## everything that CI runs

lint: .venv/dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: .venv/dev  ## the test suite
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

slow: .venv/dev .venv/cluster  ## the tests that take minutes: Ray with a worker killed, two machines (root), the pages in docs
	$(BIN)/python -m pytest -m slow

smoke: .venv/dev  ## a small bench on a simulated corpus, from nothing to a leaderboard, twice: the second finds all done
	rm -rf build/smoke
	for run in first second; do \
	  $(BIN)/mer-bench bench benchmarks/simulated.toml --epochs 2 --seeds 0 --logger none \
	    --data build/smoke/data --results build/smoke/results; done
	$(BIN)/mer-bench leaderboard --check --results build/smoke/results
	$(BIN)/mer-bench verify --data build/smoke/data

leaderboard: .venv/base  ## regenerate leaderboard.md, benchmarks/tables and the generated parts of pages from the records
	$(BIN)/mer-bench leaderboard --results "$(RESULTS)" $(if $(WITH_PUBLISHED),--with-published)
	$(BIN)/python -m mer_bench.report.readme

methods: .venv/base  ## rewrite methods.json and corpora.json in src/mer_bench, the facts of the classes
	$(BIN)/python -m mer_bench.training.describe

golden: .venv/dev  ## rewrite the numbers that tests/fusion/test_golden.py expects of methods whose version changed
	PYTHONPATH=tests $(BIN)/python tests/fusion/golden.py

simulate: .venv/dev  ## how often ties and ranks are wrong, simulated: rewrites a table in docs/protocol.md (10 minutes)
	$(BIN)/python tests/report/simulate.py

plots: .venv/report  ## draw every table into benchmarks/plots; make leaderboard then links to the pictures
	$(BIN)/mer-bench plots --results "$(RESULTS)" --jobs $(JOBS)

report: .venv/report  ## write build/report.html: one page to sort, filter and compare, with pictures and provenance
	$(BIN)/mer-bench report --results "$(RESULTS)" --jobs $(JOBS) $(if $(WITH_PUBLISHED),--with-published)

reference: .venv/prep  ## rewrite the generated pages of docs: suites, commands, methods, datasets
	$(BIN)/python -m website

site: .venv/site .venv/report  ## build build/site: the interactive leaderboard and the documentation, for any static host
	$(BIN)/mer-bench report --results "$(RESULTS)" --jobs $(JOBS) --site build/site --docs docs/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict --config-file website/mkdocs.yml
	$(BIN)/python -m website.links build/site

check: .venv/base  ## fail if leaderboard.md or benchmarks/tables is not what the records give, or a submission in benchmarks/contributed has problems
	$(BIN)/mer-bench leaderboard --check

verify: .venv/base  ## recompute the hashes of the prepared features
	$(BIN)/mer-bench verify --data "$(MER_DATA)"

speed: .venv/dev  ## what an epoch, a start and a leaderboard cost: benchmarks/speed/README.md
	$(BIN)/python -m benchmarks.speed

gpu: .venv/base  ## check and time the GPU of this machine in at most eight minutes: benchmarks/speed/GPU.md
	$(BIN)/python -m benchmarks.speed.gpu

list: .venv/base  ## methods and datasets
	$(BIN)/mer-bench list methods
	$(BIN)/mer-bench list datasets --data "$(MER_DATA)"

clean:  ## remove the environment and what was built (not data, not results)
	rm -rf .venv build runs .mypy_cache .ruff_cache .pytest_cache "$(RESULTS)/.mer_bench_cache"

# One stamp for each set of extras, remade when pyproject.toml changes.
.venv/base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: mer_bench needs Python 3.11 or newer; set PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/dev .venv/prep .venv/report .venv/site .venv/wandb .venv/cluster: .venv/%: pyproject.toml | .venv/base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@
