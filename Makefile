# Three commands do everything: `make picture`, `make explore` and `make test`. Each sets up .venv first.
#
# Without a GPU a smaller torch does, which Linux gets from PyTorch's own index:
#   make picture TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN = $(VENV)/bin
NODE_TOOLS = tests/web/node_modules
CODE = __init__.py setup.py common creps_core kernels nodes tests benchmarks recipes

.PHONY: constants fuzz kill soak pictures picture explore test test-matrix check format gpu bench clean

picture: $(VENV)/standalone.stamp  ## render the built-in generator to picture.png
	$(BIN)/creps render --seed 3 --size 2048x1152 --fit extend --out picture.png

explore: $(VENV)/explore.stamp  ## fly through the built-in generators in the browser
	$(BIN)/creps explore

test: check  ## lint, types, all tests, on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-matrix: $(VENV)/test.stamp  ## the tests under other BLAS kernels, instruction sets, threads, users: an hour or more
	$(BIN)/python tests/matrix.py

check: $(VENV)/test.stamp $(NODE_TOOLS)/stamp
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python
	$(BIN)/python tests/web/web_tools.py tsc --project tests/web
	$(BIN)/python tests/web/web_tools.py eslint --config tests/web/eslint.config.mjs web tests/web

constants: $(VENV)/test.stamp  ## write web/explorer/constants.mjs from creps_core/explorer/scene.py
	$(BIN)/python recipes/page_constants.py

gpu:  ## test and measure this machine's GPU, at most 6 minutes; needs torch, Triton and pytest, no network
	$(PYTHON) benchmarks/gpu.py --out gpu-report.txt

bench: $(VENV)/standalone.stamp  ## measure speed and memory of this machine; appends to benchmarks/results.jsonl
	$(BIN)/creps bench --results benchmarks/results.jsonl

fuzz: $(VENV)/test.stamp  ## N mutated files, read under limits of time and memory
	$(BIN)/python tests/robustness/fuzz.py --count $(or $(N),2000)

kill: $(VENV)/test.stamp  ## N trainings and renders of each kind killed, stopped, short of disk
	$(BIN)/python tests/robustness/kill.py --count $(or $(N),20)

soak: $(VENV)/test.stamp  ## N prompts in a real ComfyUI (tests/host/comfy_host.py), with its memory
	$(BIN)/python tests/robustness/soak.py --count $(or $(N),1000)

pictures: $(VENV)/test.stamp  ## templates, thumbnails, pictures of help pages and README; needs ComfyUI (COMFYUI_DIR)
	$(BIN)/python recipes/templates.py
	$(BIN)/python recipes/pictures.py

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

$(VENV)/standalone.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[standalone]"
	touch $@

$(VENV)/explore.stamp: $(VENV)/standalone.stamp
	$(BIN)/python -m pip install --quiet --editable ".[standalone,explore]"
	touch $@

# torchvision, which a test needs, is made for one version of torch each: take that of the torch that is there.
$(VENV)/test.stamp: $(VENV)/standalone.stamp
	$(BIN)/python -c "import torch; print('torch==' + torch.__version__)" > $(VENV)/torch.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/torch.txt --editable ".[standalone,test]"
	touch $@

# Checks of web/. Node.js comes with pyright, from PyPI; TypeScript and ESLint come from npm.
$(NODE_TOOLS)/stamp: tests/web/package-lock.json $(VENV)/test.stamp
	$(BIN)/python tests/web/web_tools.py npm ci --loglevel=error
	touch $@

clean:
	rm -rf $(VENV) $(NODE_TOOLS) picture.png
