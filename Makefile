# One local environment, made on first use. Every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 2

.PHONY: install app demo pictures browser test lint bench-hostile bench-inference bench-interaction bench-kill bench-learning bench-noisy bench-reflection bench-pretraining bench-bootstrap bench-latency bench-heartbeat bench-app soak clean
.DEFAULT_GOAL := install

install: $(STAMP)

# Networks of others that tests import: alone, because what they ask for (windows, CUDA builds) is not needed.
OTHERS := deepbet==1.0.2 dynamic-network-architectures==0.4.4

# torch first and alone: a later resolver would otherwise take a build with gigabytes of CUDA.
$(STAMP): pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet torch==2.13.0
	$(PY) -m pip install --quiet --editable ".[engine,demo,tests,service,cluster,app]"
	$(PY) -m pip install --quiet --no-deps $(OTHERS)
	touch $@

# Opens the workspace in a browser, where there is one, and prints its address. OPTIONS="--volume head.nii.gz"
app: install
	$(VENV)/bin/refseg app $(OPTIONS)

demo: install
	$(VENV)/bin/refseg demo --out demo-output

# The pictures of the tutorials, drawn off screen by both panels and Slicer's own views at work.
pictures: install
	$(PY) Testing/tutorial_pictures.py
	$(PY) Testing/app_pictures.py

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The tests of the browser workspace need Chromium; without it they are skipped, and say so.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    { apt-get update --quiet=2; DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes chromium; } || true; }

# Two workers with a thread each: two each would be four on two cores. In the order of their names, so that the long
# tests in a browser come first, while both workers have something to do.
test: export OMP_NUM_THREADS := 1
test: lint browser
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench-inference: install
	$(PY) Testing/benchmarks/bench_inference.py

# REFSEG_DATA names the folder with msd_hippocampus and acdc. Methods of others in an environment of their own, as they
# ask for older numpy and scipy. Goes on where it was stopped.
PEERS := out/bench-interaction/peers
$(PEERS)/.installed: Testing/benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement $<
	touch $@

bench-interaction: install $(PEERS)/.installed
	$(PY) Testing/benchmarks/bench_interaction.py

bench-hostile: install
	$(PY) Testing/benchmarks/bench_hostile.py

# Kills writers, learners and the service a thousand times, and fills disks (those need root). Goes on where it stopped.
bench-kill: install
	OMP_NUM_THREADS=1 $(PY) Testing/benchmarks/bench_service_kill.py

# REFSEG_DATA names the folder with msd_hippocampus. Half an hour each.
bench-latency: install
	$(PY) Testing/benchmarks/bench_latency.py --out out/bench-latency/latency.json

# The longest time the window is deaf while both modules work on a head of 256 cubed voxels.
bench-heartbeat: install
	$(PY) Testing/benchmarks/bench_heartbeat.py

# From a click to the mask on the page, from the wheel to the next frame, in a real browser; then how long views stand
# still while images and masks are opened and saved.
bench-app: install browser
	$(PY) Testing/benchmarks/bench_app.py
	$(PY) Testing/benchmarks/bench_app_loop.py

soak: install
	OMP_NUM_THREADS=1 $(PY) Testing/benchmarks/bench_soak.py --out out/bench-soak/soak.json

# REFSEG_DATA names the folder with msd_hippocampus and acdc. Under two hours on two cores; goes on where it was stopped.
bench-learning: install
	$(PY) Testing/benchmarks/bench_learning.py --tables docs/learning-tables.md

# REFSEG_DATA names the folder with cxr_lung. Under two hours on two cores; goes on where it was stopped.
bench-pretraining: install
	OMP_NUM_THREADS=1 $(PY) Testing/benchmarks/bench_pretraining.py --tables docs/pretraining-tables.md

# REFSEG_DATA names the folder with cxr_lung, hc18_fetal_head, qubiq_brain_growth and fundus_vessels. Goes on where it was stopped.
bench-noisy: install
	OMP_NUM_THREADS=1 $(PY) Testing/benchmarks/bench_noisy.py --tables docs/noisy-tables.md

# REFSEG_DATA names the folder with acdc and cxr_lung. Two hours on two cores; goes on where it was stopped.
bench-reflection: install
	$(PY) Testing/benchmarks/bench_reflection.py

# REFSEG_DATA names the folder with hc18_fetal_head, fundus_optic_disc_drishti and cxr_lung. Under an hour on one core;
# goes on where it was stopped.
bench-bootstrap: install
	$(PY) Testing/benchmarks/bench_bootstrap.py --tables docs/bootstrap-tables.md

clean:
	rm -rf $(VENV) build out demo-output
