# Each target does its own set-up: a virtual environment with the pinned requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo
# Memory that a step frees is kept and backed by huge pages: on a CPU, page faults cost a fifth.
MEMORY := MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 \
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1

.PHONY: setup setup-dev demo demo-tasks joint test lint clean

setup: $(VENV)/.ready
setup-dev: $(VENV)/.ready-dev

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.ready-dev: requirements-dev.txt $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

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

test: setup-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup-dev
	$(BIN)/ruff check .

clean:
	rm -rf $(RUN) runs/joint .cache
