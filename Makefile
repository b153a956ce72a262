# `make demo` and `make test` work on a fresh machine with Python, git and make; everything is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PHOTOS ?=
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-nbs test-py readme notebooks mini docs export clean crash-test memory caption-memory browser-test pages card bench fuzz

# Set up once; again when what is needed has changed.
$(VENV)/.installed: settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("capdec needs Python 3.11 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -U pip 'setuptools<81' wheel
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	OMP_NUM_THREADS=2 $(BIN)/capdec demo $(if $(PHOTOS),--photos "$(PHOTOS)")

test: test-nbs test-py

# The notebooks' cells are tests; two at a time, one thread each, is the fastest on two cores.
test-nbs: $(VENV)/.installed
	$(BIN)/python tools/check_notebooks.py
	$(BIN)/nbdev_test --n_workers 2 --timing --do_print

test-py: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 25 tests

export: $(VENV)/.installed
	$(BIN)/nbdev_export

# Run notebooks in place and keep their outputs: make notebooks NBS=nbs/03_noise_injection.ipynb
NBS ?= $(sort $(wildcard nbs/*.ipynb))
notebooks: $(VENV)/.installed
	$(BIN)/python tools/run_notebooks.py $(NBS)

readme: $(VENV)/.installed
	$(BIN)/python tools/build_readme.py

# Train the bundled models again from the research data in ../shared (about an hour on two cores).
mini: $(VENV)/.installed
	$(BIN)/python -m capdec.recipe --shared ../shared --out _out/mini

# The property tests with new random examples, N times over.
N ?= 5
fuzz: $(VENV)/.installed
	for i in $$(seq $(N)); do HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -q -n 2 --dist loadfile -m hypothesis tests || exit 1; done

# Kill embed, train, predict and caption with -9 at random moments, 30 times each, and compare with uninterrupted runs (about half an hour).
crash-test: $(VENV)/.installed
	$(BIN)/python tools/crash_test.py

# Peak memory of parsing, embedding and loading 600,000 captions (about three minutes of computing).
memory: $(VENV)/.installed
	$(BIN)/python tools/memory_check.py

# Caption 10,000 links to packaged photos and watch the memory (a quarter of an hour): make caption-memory PHOTOS_N=2000
PHOTOS_N ?= 10000
caption-memory: $(VENV)/.installed
	$(BIN)/python tools/caption_memory.py --photos $(PHOTOS_N)

# Needs Quarto (https://quarto.org); the tests do not.
docs: $(VENV)/.installed
	@command -v quarto >/dev/null || { echo "make docs needs Quarto: install it from https://quarto.org"; exit 1; }
	PYTHONPATH=. $(BIN)/nbdev_docs

# The same pages without Quarto, to look at: _out/site/index.html
pages: $(VENV)/.installed
	PYTHONPATH=. $(BIN)/python tools/render_site.py

# The picture that social networks show beside a link
card: $(VENV)/.installed
	$(BIN)/python tools/social_card.py

# Speed against the plain official algorithms, on this machine (a GPU when there is one); on the research data where it is at hand.
# Threads that wait asleep keep a busy machine fair to both sides, and cost milliseconds where single photos make small products: that row is measured once more without.
BENCH ?=
SHARED := $(wildcard ../shared/data)
REAL := $(if $(SHARED),--captions $(SHARED)/karpathy/dataset_coco.json.gz --images $(SHARED)/coco_mini/images --gpt2 $(SHARED)/gpt2_bpe)
bench: $(VENV)/.installed
	OMP_WAIT_POLICY=passive OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m capdec.bench --out nbs/data/bench.json $(REAL) $(BENCH)
	$(if $(BENCH),,OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m capdec.bench --out nbs/data/bench.json $(REAL) --rows mini)
	$(BIN)/python tools/run_notebooks.py nbs/14_benchmark.ipynb nbs/15_scale.ipynb nbs/16_results.ipynb

# The explorer in a real browser. Voila and playwright come with the development packages; Chromium is the system's.
browser-test: $(VENV)/.installed
	@command -v chromium chromium-browser google-chrome >/dev/null || { echo "make browser-test needs Chromium: apt-get install -y chromium (Debian, Ubuntu), brew install --cask chromium (macOS)"; exit 1; }
	$(BIN)/python -m pytest -q tests/test_browser.py

clean:
	rm -rf _out _proc _docs build dist *.egg-info
