# `make demo` and `make test` work on a fresh machine with Python, git and make; everything is installed into .venv.
# `make help` lists the targets; what stands there is what follows `##` below.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
PHOTOS ?=
# On Linux PyPI's PyTorch brings CUDA, five of its seven gigabytes. `TORCH=cpu` takes the one without from PyTorch's own index.
TORCH ?=
CPU_INDEX := https://download.pytorch.org/whl/cpu
INDEX := $(if $(filter cpu,$(TORCH)),--extra-index-url $(CPU_INDEX))
$(if $(filter-out cpu,$(TORCH)),$(error TORCH=$(TORCH): cpu, or leave it out))
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM = false

.PHONY: help demo test test-nbs test-py export notebooks home readme mini fuzz properties crash-test memory \
	caption-memory slow-test dist-test docs pages card bench browser-test clean

# Set up once; again when what is needed has changed.
$(READY): settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "capdec needs Python 3.11 or newer: \
	make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -U pip
	$(BIN)/pip install -q --disable-pip-version-check $(INDEX) -c constraints.txt -e '.[all,dev]'
	@touch $@

help: ## List what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'PYTHON=python3.12 chooses the Python, VENV=folder where everything is installed, TORCH=cpu a PyTorch without CUDA.'

demo: $(READY) ## Caption photos (yours: PHOTOS=folder), train captioners with and without noise, make a page of it
	OMP_NUM_THREADS=2 $(BIN)/capdec demo $(if $(PHOTOS),--photos "$(PHOTOS)")

test: test-nbs test-py ## Run every test: the notebooks and tests/

# The notebooks' cells are tests; two at a time, one thread each, is the fastest on two cores.
NBS ?=
test-nbs: $(READY) ## Test the notebooks, or one: make test-nbs NBS=nbs/03_noise_injection.ipynb
ifeq ($(strip $(NBS)),)
	$(BIN)/python tools/check_notebooks.py
	$(BIN)/nbdev_test --n_workers 2 --timing --do_print
else
	for nb in $(NBS); do echo $$nb; $(BIN)/nbdev_test --path $$nb --n_workers 1 || exit 1; done
endif

TESTS ?=
# folders of tests that passed go at once: a run would leave twelve gigabytes
KEEP := -o tmp_path_retention_policy=failed
test-py: $(READY) ## Run tests/, or one file, or one test: make test-py TESTS="tests/test_noise.py -k offset"
	$(BIN)/python -m pytest -q $(KEEP) $(or $(TESTS),-n 2 --dist loadfile --durations 25 tests)

# Checkpoints of full shape through a hub on this machine, several processes, shards by the thousand photos.
slow-test: $(READY) ## Run the tests that take minutes and gigabytes, which `make test` leaves out
	$(BIN)/python -m pytest -q $(KEEP) -m slow --durations 25 $(or $(TESTS),tests)

# Each Python gets an environment of its own, in a temporary folder: seven gigabytes, or two with TORCH=cpu.
PYTHONS ?= $(PYTHON)
dist-test: $(READY) ## Build wheel and sdist, install both in fresh environments, and caption from another folder
	rm -rf _out/dist
	$(BIN)/python -m build -q --outdir _out/dist .
	$(BIN)/python tools/dist_test.py _out/dist --python $(PYTHONS) $(if $(INDEX),--index $(CPU_INDEX))

export: $(READY) ## Write the modules in capdec/ from the notebooks
	$(BIN)/nbdev_export

notebooks: $(READY) ## Run notebooks in place and keep their outputs: make notebooks NBS=nbs/03_noise_injection.ipynb
	$(BIN)/python tools/run_notebooks.py $(or $(NBS),$(sort $(wildcard nbs/*.ipynb)))

home: $(READY) ## Carry the repository's address (settings.ini, home) to the README, the site and the tutorials
	$(BIN)/python tools/home.py
	$(BIN)/nbdev_export
	$(BIN)/python tools/build_readme.py

readme: $(READY) ## Write README.md from nbs/index.ipynb
	$(BIN)/python tools/build_readme.py

mini: $(READY) ## Train the bundled models again, from the research data in ../shared (six hours on two cores)
	$(BIN)/python -m capdec.studies.recipe --shared ../shared --out _out/mini

# Each input is a function of its number: make fuzz N=500 FUZZ="--only images --first 90000" tries others.
N ?= 50000
fuzz: $(READY) ## Damage files and answers of every kind, and count how capdec ends (50,000 inputs, or N=500)
	$(BIN)/python tools/fuzz.py --n $(N) $(FUZZ)

ROUNDS ?= 5
properties: $(READY) ## Run the property tests with new random examples, five times over (or ROUNDS=times)
	for i in $$(seq $(ROUNDS)); do HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -q -n 2 --dist loadfile -m hypothesis tests \
		|| exit 1; done

# Embed, train, predict and caption are killed 30 times each; what they leave is compared with uninterrupted runs.
crash-test: $(READY) ## Kill the long verbs with -9 at random moments, run them again (half an hour)
	$(BIN)/python tools/crash_test.py

memory: $(READY) ## Measure the memory that parsing, embedding and loading 600,000 captions take (three minutes)
	$(BIN)/python tools/memory_check.py

PHOTOS_N ?= 10000
caption-memory: $(READY) ## Caption 10,000 photos (or PHOTOS_N=2000) and watch the memory (a quarter of an hour)
	$(BIN)/python tools/caption_memory.py --photos $(PHOTOS_N)

# Where Quarto is missing, PyPI's quarto-cli is installed, which fetches the program from GitHub. We have not seen that way
# work: see CONTRIBUTING.md. nbdev writes a README of its own when it finds ours older than its notebook: ours is written
# before, so that it does not, and after, to be sure.
QUARTO_VERSION ?= 1.6.40
docs: readme ## Make the site with Quarto: _docs/index.html (missing, it comes from PyPI and GitHub: see CONTRIBUTING.md)
	@command -v quarto >/dev/null || test -x $(BIN)/quarto || $(BIN)/pip install -q --disable-pip-version-check \
		--no-deps quarto-cli==$(QUARTO_VERSION) >$(VENV)/quarto-cli.log 2>&1 || { echo "make docs: no quarto here, and \
	installing quarto-cli $(QUARTO_VERSION) from PyPI failed ($(VENV)/quarto-cli.log): install Quarto from \
	https://quarto.org, or look at the pages without it: make pages"; exit 1; }
	PATH="$(abspath $(BIN)):$$PATH" PYTHONPATH=. $(BIN)/nbdev_docs
	$(BIN)/python tools/build_readme.py

pages: $(READY) ## Make the pages without Quarto, to look at: _out/site/index.html
	PYTHONPATH=. $(BIN)/python tools/render_site.py

card: $(READY) ## Draw the pictures of the README and of social networks; tools/fresh_photos.py fetches the photos
	$(BIN)/python tools/pictures.py

# On a GPU when there is one, and on the research data where it is at hand. Threads that wait asleep keep a busy machine
# fair to both sides, and cost milliseconds where single photos make small products: that row is measured again without.
BENCH ?=
SHARED := $(wildcard ../shared/data)
REAL := $(if $(SHARED),--captions $(SHARED)/karpathy/dataset_coco.json.gz --images $(SHARED)/coco_mini/images \
	--gpt2 $(SHARED)/gpt2_bpe)
bench: $(READY) ## Measure the speed against the plain official algorithms, and write the pages that show it
	OMP_WAIT_POLICY=passive OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m capdec.studies.bench --out nbs/data/bench.json \
		$(REAL) $(BENCH)
	$(if $(BENCH),,OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m capdec.studies.bench --out nbs/data/bench.json $(REAL) --rows mini)
	$(BIN)/python tools/run_notebooks.py nbs/14_benchmark.ipynb nbs/15_scale.ipynb nbs/16_results.ipynb

# Voila and playwright come with the development packages; Chromium is the system's.
browser-test: $(READY) ## Test the explorer in a real browser (needs Chromium)
	@command -v chromium chromium-browser google-chrome >/dev/null || { echo "make browser-test needs Chromium: \
	apt-get install -y chromium (Debian, Ubuntu), brew install --cask chromium (macOS)"; exit 1; }
	$(BIN)/python -m pytest -q tests/test_browser.py

clean: ## Delete what was made, but for .venv
	rm -rf _out _proc _docs build dist *.egg-info
