# Every stage is a target; each installs what it needs. Override a variable on the command line: make train RUN=runs/mine

# Only the command line changes these: a variable of the same name in the environment does not (`:=`, not `?=`).
PYTHON := python3
TORCH :=
DATA := data/synthetic
RUN := runs/train
WEIGHTS := weights/agegendernet-128.safetensors
SHIPPED := weights/agegendernet-128.onnx
REPOSITORY := model_repository
VERSION := 1
MODEL :=
COUNT := 20000
GRPC_PORT := 8001
HTTP_PORT := 8000
METRICS_PORT := 8002
PAGE_PORT := 8080
DOCKER :=
LIBRARY :=
FP32 := runs/shipped/model.onnx
PYTORCH := runs/shipped/model.pt2
INT8 := weights/agegendernet-128.int8.onnx
INT8_ONNXRUNTIME :=
USERS := 8
RUN_TIME := 30s
LOAD := GrpcTensor
ARGS :=
TENSORRT_STUBS :=

# A few minutes on two cores: one cycle of the learning rate, and no augmentation but the flip, since few epochs overfit little.
DEMO_SETTINGS := --resolution 128 --epochs 6 --batch-size 16 --learning-rate 1e-3 --schedule one_cycle --quick-start \
	--augmentation.rotation-degrees 0 --augmentation.brightness 0 --augmentation.contrast 0 --augmentation.saturation 0 --augmentation.hue 0

UV := .venv-uv/bin/uv
PY := .venv/bin/python
ONNX := $(REPOSITORY)/agegendernet/$(VERSION)/model.onnx
comma := ,
MANIFESTS := $(patsubst %,%/manifest.csv,$(subst $(comma), ,$(DATA)))
# What is served: MODEL, else what was exported into REPOSITORY, else the weights that ship.
SERVED := $(or $(MODEL),$(if $(wildcard $(ONNX)),,$(SHIPPED)))
SERVE := $(PY) -m serving.run --repository $(REPOSITORY) $(if $(SERVED),--model $(SERVED))

# They would send the packages elsewhere, or other packages here.
unexport PIP_USER PIP_TARGET PIP_PREFIX PYTHONPATH PYTHONHOME
# uv keeps its cache below HOME, and a server its key.
ifeq ($(shell { test -w "$$HOME/.cache" || test -w "$$HOME"; } && echo writable),)
export UV_CACHE_DIR := $(CURDIR)/.venv-uv/cache
export AGEGENDERNET_KEYS := $(CURDIR)/.venv-uv/keys
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo data train export quantize profile engine serve page evaluate loadtest loadtest-ui bench compare sweep test test-fast test-gpu lint lock clean
.DELETE_ON_ERROR:

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed .venv-triton/installed ## install everything into .venv and .venv-triton (the other targets install what they need)

.venv-uv/installed: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is missing or older than Python 3.11; run make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv --clear .venv-uv || { echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# One environment in three layers, each in the one below: serving and clients; runtimes of ONNX models; training, tests, lint.
.venv/created: .venv-uv/installed
	$(UV) venv --quiet --clear --python $(PYTHON) .venv
	@touch $@

.venv/base: requirements/base.txt .venv/created
	$(UV) pip install --python .venv --require-hashes -r requirements/base.txt
	@touch $@

.venv/runtimes: requirements/runtimes.txt .venv/base
	$(UV) pip install --python .venv --require-hashes -r requirements/runtimes.txt
	@touch $@

# TORCH=cpu leaves out 2.5 GB for GPUs. Those wheels are in an index of their own, so uv takes the locked versions without
# their hashes. (Not tried where this was written: that index could not be reached.)
.venv/installed: requirements/main.txt .venv/runtimes
ifeq ($(TORCH),)
	$(UV) pip sync --python .venv --require-hashes requirements/main.txt
else
	sed -n 's/^\([a-z0-9_.-]*==[^ ;]*\).*/\1/p' requirements/main.txt | grep -v '^nvidia-\|^cuda-\|^triton=' > .venv/versions.txt
	$(UV) pip install --python .venv --torch-backend=$(TORCH) -r requirements/main.in --constraint .venv/versions.txt
endif
	@touch $@

# An extra on top, 91 MB: builds engines without a GPU. In the same environment, since the build imports what the export does
# and the tests call both; in a lock of its own, since nothing but `make engine` and the tests needs it.
.venv/rtx: requirements/rtx.txt .venv/installed
	$(UV) pip install --python .venv --require-hashes -r requirements/rtx.txt
	@touch $@

# The server has an environment of its own: its Python backend needs NumPy 1, which has wheels up to Python 3.12.
.venv-triton/installed: requirements/triton.txt .venv-uv/installed
	@$(UV) venv --quiet --clear .venv-triton --python \
		"$$($(PYTHON) -c 'import sys; print(sys.executable if sys.version_info < (3, 13) else ">=3.11,<3.13")')" || \
		{ echo "error: the Triton server needs Python 3.11 or 3.12; install one (Debian, Ubuntu: apt-get install python3.12-venv; anywhere: $(UV) python install 3.12)"; exit 1; }
	$(UV) pip sync --python .venv-triton --require-hashes requirements/triton.txt
	@touch $@

# What others would serve with, for make compare alone.
.venv-peers/installed: requirements/peers.txt .venv-uv/installed
	$(UV) venv --quiet --clear --python $(PYTHON) .venv-peers
	$(UV) pip sync --python .venv-peers --require-hashes requirements/peers.txt
	@touch $@

demo: setup ## the whole way on synthetic faces in minutes: train, ONNX, Triton server, four evaluations side by side
	$(PY) -m training.data.synthetic --count 2000 --out data/demo/raw --seed 0
	$(PY) -m training.data.ffhq --images data/demo/raw --annotations data/demo/raw --out data/demo
	$(PY) -m training.train --manifest data/demo/manifest.csv --out runs/demo --restart $(DEMO_SETTINGS)
	rm -rf runs/demo/model_repository && cp -r model_repository runs/demo/
	$(PY) -m convert.export_onnx --checkpoint runs/demo/best.safetensors --manifest data/demo/manifest.csv --out runs/demo/model_repository/agegendernet/1/model.onnx
	$(PY) -m convert.evaluate --runtime onnx --model runs/demo/model_repository/agegendernet/1/model.onnx --manifest data/demo/manifest.csv --out runs/demo/onnx.csv
	$(PY) -m serving.run --repository runs/demo/model_repository --http-port 0 --grpc-port 0 --metrics-port 0 --then '$(PY) -m clients.evaluate --url $$GRPC_URL --manifest data/demo/manifest.csv --out runs/demo/grpc.csv && $(PY) -m clients.evaluate --url $$HTTP_URL --manifest data/demo/manifest.csv --out runs/demo/http.csv'
	$(PY) -m evaluation.comparison --title 'AgeGenderNet demo: the same evaluation at every stage' --evaluations checkpoint runs/demo/metrics_holdout.csv 'ONNX Runtime' runs/demo/onnx.csv 'served gRPC' runs/demo/grpc.csv 'served HTTP' runs/demo/http.csv --out runs/demo/report.md --pictures metrics_by_age_group.png training_history_final.png

data: $(MANIFESTS) ## COUNT synthetic faces in DATA; for FFHQ see README

$(MANIFESTS): | .venv/installed
	$(PY) -m training.data.synthetic --count $(COUNT) --out $(@D)/raw
	$(PY) -m training.data.ffhq --images $(@D)/raw --annotations $(@D)/raw --out $(@D)

train: .venv/installed $(MANIFESTS) ## train on DATA into RUN, or continue; DATA=data/ffhq,data/utkface mixes; ARGS='--resolution 128 ...'
	$(PY) -m training.train --manifest $(MANIFESTS) --out $(RUN) $(ARGS)

export: .venv/installed $(MANIFESTS) ## RUN's best checkpoint to ONNX in REPOSITORY, checked against PyTorch
	$(PY) -m convert.export_onnx --checkpoint $(RUN)/best.safetensors --manifest $(firstword $(MANIFESTS)) --out $(ONNX) $(ARGS)

quantize: .venv/installed $(MANIFESTS) $(FP32) ## FP32, an ONNX file, to INT8 in RUN: calibrated on DATA's training faces, held against FP32 on its test faces
	$(PY) -m convert.quantize --onnx $(FP32) --manifest $(MANIFESTS) --out $(RUN)/model.int8.onnx $(ARGS)

profile: .venv/installed $(MANIFESTS) ## images/s of training on DATA and what it waits for; ARGS as for train
	$(PY) -m training.profile --manifest $(MANIFESTS) $(ARGS)

# Expanded when the recipe runs: TensorRT where it and a GPU are found, else what needs neither.
engine_library = $(or $(LIBRARY),$(if $(DOCKER),tensorrt,$(shell nvidia-smi -L > /dev/null 2>&1 && $(PY) -c 'import tensorrt' 2> /dev/null && echo tensorrt || echo tensorrt-rtx)))

engine: .venv/installed $(MANIFESTS) ## RUN's best checkpoint to half-precision ONNX, then an engine of LIBRARY=tensorrt or tensorrt-rtx; DOCKER=1 in Triton's container
	@echo 'LIBRARY=$(engine_library)$(if $(LIBRARY)$(DOCKER),, (tensorrt where a GPU and TensorRT are installed, else tensorrt-rtx: for GeForce and RTX cards, not for the container))'
	$(if $(filter tensorrt-rtx,$(engine_library)),@$(MAKE) --no-print-directory .venv/rtx)
	$(PY) -m convert.export_onnx --checkpoint $(RUN)/best.safetensors --manifest $(firstword $(MANIFESTS)) --out $(ONNX) --precision fp16
	$(PY) -m $(if $(DOCKER),serving.docker build-engine,convert.build_engine) --library $(engine_library) --onnx $(ONNX) --precision fp16 $(ARGS)

serve: .venv/base .venv-triton/installed ## serve on loopback until Ctrl-C: MODEL=FILE, else REPOSITORY's export, else the weights that ship; DOCKER=1 the engine
	$(SERVE) $(if $(DOCKER),--docker) --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT) $(ARGS)

page: .venv/base .venv-triton/installed ## a page to try it on, at http://127.0.0.1:PAGE_PORT: drop photos or use the webcam, nothing leaves this machine
	@$(call with_server,$(PY) -m clients.page --url $$GRPC_URL --port $(PAGE_PORT) $(ARGS))

evaluate: .venv/base $(MANIFESTS) ## the evaluation through a running server, gRPC then HTTP
	@set -e; for manifest in $(MANIFESTS); do for url in grpc://127.0.0.1:$(GRPC_PORT) http://127.0.0.1:$(HTTP_PORT); do \
		$(PY) -m clients.evaluate --url $$url --manifest $$manifest $(ARGS); done; done

# Against the server that runs on HTTP_PORT; where none does, one is started for as long as it takes.
LOCUST := .venv/bin/locust -f loadtest/locustfile.py
with_server = if $(PY) -m clients.health --url http://127.0.0.1:$(HTTP_PORT) > /dev/null 2>&1; \
	then export GRPC_URL=grpc://127.0.0.1:$(GRPC_PORT) HTTP_URL=http://127.0.0.1:$(HTTP_PORT); $(1); \
	else $(SERVE) --http-port 0 --grpc-port 0 --metrics-port 0 --then '$(1)'; fi

loadtest: .venv/base .venv-triton/installed ## load on a running server, or on one of its own, by USERS for RUN_TIME; LOAD='GrpcTensor HttpEncoded'
	@$(call with_server,$(LOCUST) --headless --users $(USERS) --spawn-rate 100 --run-time $(RUN_TIME) $(ARGS) $(LOAD))

loadtest-ui: .venv/base .venv-triton/installed ## locust's own page on http://127.0.0.1:8089, until Ctrl-C
	@$(call with_server,$(LOCUST) --web-host 127.0.0.1 --class-picker $(ARGS))

# The weights that ship as plain float32, which is what quantization starts from.
runs/shipped/model.onnx: $(WEIGHTS) | .venv/installed
	$(PY) -m convert.export_onnx --checkpoint $(WEIGHTS) --out $@

runs/shipped/model.pt2: $(WEIGHTS) | .venv/installed
	$(PY) -m convert.export_torch --checkpoint $(WEIGHTS) --out $@

bench: setup $(FP32) ## how much of the engine reaches a client: FP32 and INT8 side by side, six minutes
	$(PY) -m loadtest.bench --fp32 $(FP32) $(if $(INT8),--int8 $(INT8)) --out runs/bench $(ARGS)

compare: setup .venv-peers/installed $(FP32) $(PYTORCH) ## beside FastAPI, LitServe, BentoML and PyTriton, nine minutes; INT8_ONNXRUNTIME=FILE adds INT8
	$(PY) -m loadtest.compare --fp32 $(FP32) --pytorch $(PYTORCH) --out runs/compare \
		$(if $(INT8_ONNXRUNTIME),--int8 $(INT8) --int8-onnxruntime $(INT8_ONNXRUNTIME)) $(ARGS)

sweep: .venv/base .venv-triton/installed ## which batching, instances and precision serve best here; ARGS='--model fp32=a.onnx int8=b.onnx'
	$(PY) -m loadtest.sweep --repository $(REPOSITORY) $(if $(SERVED),--model own=$(SERVED)) $(ARGS)

test: setup .venv/rtx ## all tests, with a real Triton server on CPU and TensorRT-RTX's real builder
	$(PY) -m pytest $(ARGS)

test-fast: setup .venv/rtx ## the tests that need no server and no training, under a minute
	$(PY) -m pytest -m 'not slow and not server' $(ARGS)

test-gpu: setup ## the tests that need an NVIDIA GPU and TensorRT, alone; without them each says what it lacks
	$(PY) -m pytest -m gpu -rs $(ARGS)

lint: .venv/installed ## ruff and mypy --strict; TENSORRT_STUBS=DIR checks the engine build against DIR/*/tensorrt
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	@for stubs in $(if $(TENSORRT_STUBS),$(wildcard $(TENSORRT_STUBS)/*)); do \
		echo "mypy --strict with TensorRT's signatures from $$stubs" && \
		MYPYPATH=$$stubs .venv/bin/mypy --strict convert/build_engine.py convert/engine/runner.py || exit 1; \
	done

COMPILE := $(UV) pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-annotate --no-header

lock: .venv-uv/installed ## pin requirements/*.in anew, with hashes
	for name in uv main triton peers rtx; do $(COMPILE) --upgrade requirements/$$name.in --output-file requirements/$$name.txt; done
	for name in runtimes base builder; do $(COMPILE) --constraint requirements/main.txt requirements/$$name.in --output-file requirements/$$name.txt; done

clean: ## remove runs, demo data and caches; environments, other data and exported models stay
	rm -rf runs data/demo .mypy_cache .ruff_cache .pytest_cache
