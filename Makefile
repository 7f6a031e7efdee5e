PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# the last step of setup leaves this file, so setup is done once, and again when what is to be installed changes
READY  := $(VENV)/.ready
MIN    := $(shell sed -n 's/^min_python *= *//p' settings.ini)
# seconds; a notebook that hangs must not hang the tests
NB_TIMEOUT ?= 1800
TIMEOUT := $(if $(shell command -v timeout),timeout $(NB_TIMEOUT))

export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# PyTorch's threads spin a little, then sleep: as fast on an idle machine, and on a busy one many times faster (00_env)
ifndef OMP_WAIT_POLICY
export GOMP_SPINCOUNT ?= 10000
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo results gpu-check export test test-long mutants soak test-lerobot test-browser test-space test-colab test-tabs release-check site space bench notebooks standin standin-check clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY) ## the virtual environment .venv with the package and everything its tests need

$(READY): settings.ini setup.py pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "setup: no $(PYTHON) here: install Python $(MIN) or newer, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < tuple(map(int, "$(MIN)".split("."))))' || \
	  { echo "setup: $$($(PYTHON) -V 2>&1) is too old: install Python $(MIN) or newer, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e '.[dev]'
	@touch $@

demo: $(READY) ## the whole chain, from demonstrations to report, at demo size: runs/demo
	$(BIN)/thinkact demo --run runs/demo

results: $(READY) ## every number of the site from today's weights, what is outdated; killed it goes on; ARGS=--plan, --check or "--only loop"
	$(BIN)/python tools/results.py $(ARGS)

gpu-check: $(READY) ## loads Gemma, takes every kind of step once, writes receipts/here; on a CPU the stand-in, and Gemma's memory counted
	$(BIN)/thinkact check gemma --shapes --out receipts/here

export: $(READY) ## after a change to a notebook: clean, export to thinkact_nb/, write README.md
	$(BIN)/python tools/links.py
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_export
	$(BIN)/python tools/readme.py

test: $(READY) ## linter, notebooks and package in step, README, site and its links, outputs of fast pages, notebooks run, pytest
	$(BIN)/ruff check
	$(BIN)/python tools/dialect.py
	$(BIN)/python tools/check_sync.py
	$(BIN)/python tools/links.py --check
	$(BIN)/python tools/readme.py --check
	$(BIN)/python tools/build_site.py
	OMP_NUM_THREADS=1 $(BIN)/python tools/run_notebooks.py --check --fast
	TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(TIMEOUT) $(BIN)/nbdev_test --n_workers 2 --skip_file_re "$$($(BIN)/python tools/run_notebooks.py --names)" || { s=$$?; [ $$s -ne 124 ] || echo "nbdev_test: not done after $(NB_TIMEOUT) s" >&2; exit $$s; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not long" tests

test-long: $(READY) ## the tests that take minutes each: trainings killed again and again, bandits, processes that share a training
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m long tests

mutants: $(READY) ## a line of science code changed at a time: would a test notice? Up to half an hour; ARGS="--only NAME" or --resume
	$(BIN)/python tools/mutants.py $(ARGS)

soak: $(READY) ## an hour of bad luck on this machine: what is killed, cut or failed may lose nothing and change no bit; ARGS="--minutes 60"
	$(BIN)/python tools/soak.py --write $(ARGS)

test-lerobot: $(READY) ## an export to LeRobot, read by the lerobot library in an environment of its own
	rm -rf .lerobot/data && mkdir -p .lerobot/data
	$(BIN)/python tools/check_lerobot.py write .lerobot/data
	test -x .lerobot/bin/pip || $(PYTHON) -m venv .lerobot
	.lerobot/bin/pip install -q 'lerobot==0.4.4'
	HF_HUB_OFFLINE=1 .lerobot/bin/python tools/check_lerobot.py read .lerobot/data

test-browser: $(READY) ## the site and the demo's report in headless Chromium, screenshots in .browser/shots
	$(BIN)/python tools/build_site.py
	test -x .browser/bin/pip || $(PYTHON) -m venv .browser
	.browser/bin/pip install -q playwright brotli matplotlib jupyterlab ipywidgets
	$(BIN)/pip install -q ipykernel
	.browser/bin/python tools/check_browser.py

# the Space in an environment of its own: gradio beside the versions of .venv, whose packages it sees
.space/.ready: $(READY)
	test -x .space/bin/pip || $(PYTHON) -m venv .space
	$(BIN)/pip freeze --exclude-editable | grep -E "^(huggingface[_-]hub|numpy|pandas)==" > .space/constraints.txt
	.space/bin/pip install -q -c .space/constraints.txt "gradio>=6"
	for site in .space/lib/python*/site-packages; do realpath $(VENV)/lib/python*/site-packages . > $$site/thinkact.pth; done
	@touch $@

space: .space/.ready ## the Space of space/ at http://127.0.0.1:7860: choose a scene, edit the think, watch the arm
	.space/bin/python space/app.py

test-space: .space/.ready ## the same, visited in headless Chromium
	test -x .browser/bin/pip || $(PYTHON) -m venv .browser
	.browser/bin/pip install -q playwright brotli matplotlib
	.browser/bin/python tools/check_space.py .space/bin/python

release-check: ## wheel and sdist, built and installed by pip and uv in clean environments; ARGS="python3.13": there, without a compiler
	test -x .release/bin/pip || $(PYTHON) -m venv .release
	.release/bin/pip install -q build uv
	.release/bin/python tools/check_release.py $(ARGS)

# a Python of the version that Colab has
COLAB_PYTHON ?= python3.13
test-colab: $(READY) ## every notebook alone, as on Colab, from an empty machine; an hour and 12 GB of disk; ARGS="01_sim": only this one, ARGS="--resume --write"
	$(BIN)/python tools/check_colab.py --python $(COLAB_PYTHON) $(or $(ARGS),--write)

test-tabs: $(READY) ## start and the pages 00 to 09, all cells, each alone on an empty machine; then one run across tabs with a Hub on 127.0.0.1
	OMP_NUM_THREADS=1 $(BIN)/python tools/run_all.py
	OMP_NUM_THREADS=1 $(BIN)/python tools/run_all.py --hub

site: $(READY) ## the pages in _docs, without Quarto, links checked
	$(BIN)/python tools/build_site.py

# without what it depends on: it wants the official pybullet, which pip would put over the one that is there
bench: $(READY) ## how long things take on this machine, panda-gym beside it if it installs
	-$(BIN)/pip install -q --no-deps panda-gym
	$(BIN)/python tools/bench.py

notebooks: $(READY) ## run all notebooks again, keep their outputs and say which changed
	$(BIN)/python tools/run_notebooks.py
	$(BIN)/nbdev_clean
	$(BIN)/python tools/check_numbers.py

standin: $(READY) ## train the stand-in's weights again: about an hour on two idle cores, killed and called again it goes on
	MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=1073741824 $(BIN)/python tools/pretrain_standin.py

standin-check: $(READY) ## what the stand-in sees: 500 tables it never saw, in four bits and in float32
	$(BIN)/python tools/check_standin.py

clean: ## take away what was built; .venv and runs stay
	rm -rf .tabs _docs _proc .lerobot .browser .space .release .colab .soak build dist *.egg-info .pytest_cache nbs/nbdev.yml
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
