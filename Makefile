# Everything that can be asked for is listed by `make help`. Versions are pinned in constraints.txt and nowhere else.
# Each recipe is one shell script (.ONESHELL), silent but for what it says itself; its first failing command ends it.
SHELL := /bin/sh
.SHELLFLAGS := -euc
.ONESHELL:
.SILENT:
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help env same-python check-settings tables notebooks test browser-test lint format lab book pins hashes clean

# What can be set on the command line: make tables DATA="/my data" PRESET=fast
SETTINGS := PYTHON TORCH DATA ENCODER WEIGHTS PRESET CATEGORY MAX_STEPS BATCH_SIZE ARGS NAMES
# They are words, never make's language: a dollar sign in a path is one, and $(shell ...) is not run.
$(foreach name,$(SETTINGS),$(if $(filter-out undefined,$(origin $(name))),$(eval override $(name) := $$(value $(name)))))
PYTHON ?= python3
TORCH ?=
ifeq ($(origin DATA),undefined)
DATA := $(value PRADOT_DATA)
endif
ENCODER ?=
WEIGHTS ?=
PRESET ?=
CATEGORY ?=
MAX_STEPS ?=
BATCH_SIZE ?=
ARGS ?=
NAMES ?=
# Recipes read the settings from the environment, where spaces and quotes in a path need no care.
export $(SETTINGS)
# Where the network is forbidden, pip may use what PIP_FIND_LINKS names.
ifneq ($(filter-out 0 false no off,$(value PRADOT_OFFLINE)),)
export PIP_NO_INDEX := 1
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Threads that wait do not spin: where other work shares the cores, spinning makes small fits many times slower.
OMP_WAIT_POLICY ?= passive
export OMP_WAIT_POLICY

# Written last, so that half an environment is never taken for a whole one.
STAMP := .venv/complete
BOOK_STAMP := .venv/book
PY := .venv/bin/python

help: ## this list
	echo "make TARGET [NAME=value ...], where TARGET is one of"
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	printf '%s\n' \
	    'and NAME is one of' \
	    '  PYTHON      the Python that .venv is made with: 3.11, 3.12 or 3.13 (default: python3)' \
	    '  TORCH       what to give to a first `pip install`, for a smaller build of torch; without a GPU:' \
	    '              make env TORCH="--index-url ADDRESS torch torchvision"' \
	    '              ADDRESS is what the install page of PyTorch prints for "CPU"; it counts when .venv is first made' \
	    '  DATA        folder of real data sets, or of one: MVTec AD, MVTec AD LOCO, VisA (default: what the environment' \
	    '              variable PRADOT_DATA says, else none: everything runs on drawn data)' \
	    '  ENCODER     a timm backbone, or FILE.py:FUNCTION (default with DATA: auto, resnet50.a1_in1k if it can be had)' \
	    '  WEIGHTS     file with the backbone'\''s weights' \
	    '  PRESET, CATEGORY, MAX_STEPS, BATCH_SIZE' \
	    '              passed to the notebooks that know them (default: what the notebooks say)' \
	    '  ARGS        more words for pytest (make test ARGS="-k transport") or JupyterLab (make lab ARGS=--no-browser)'

env: same-python $(STAMP) ## make .venv with the pinned packages: 2.5 GB of downloads, 6 GB on disk, 2 to 3 minutes

# A Python named by the user is never silently another one's environment.
same-python:
	if [ "$(origin PYTHON)" != file ] && [ -x $(PY) ]; then
	    version='import sys; print("%d.%d" % sys.version_info[:2])'
	    wanted=$$("$$PYTHON" -c "$$version" || true)
	    found=$$($(PY) -c "$$version" || true)
	    if [ "$$wanted" != "$$found" ]; then
	        echo "error: .venv was made with Python $${found:-that is gone}, and PYTHON=$$PYTHON is $${wanted:-no Python}." >&2
	        echo "       To make it anew: rm -r .venv && make env PYTHON=$$PYTHON" >&2
	        exit 1
	    fi
	fi

$(STAMP): pyproject.toml constraints.txt
	stop() { printf 'error: %s\n' "$$1" >&2; shift; [ $$# -eq 0 ] || printf '       %s\n' "$$@" >&2; exit 1; }
	start=$$(date +%s)
	rm -f $(STAMP)
	command -v git >/dev/null || echo "note: git is missing (Debian, Ubuntu: sudo apt install git); run records cannot name the commit"
	# What makes the environment: an environment that is there keeps its own Python.
	if $(PY) -m pip --version >/dev/null 2>&1; then python=$(PY); else python=$$PYTHON; fi
	command -v "$$python" >/dev/null || stop "no $$python here; Python 3.11, 3.12 or 3.13 is needed." \
	    "Debian, Ubuntu: sudo apt install python3 python3-venv" \
	    "Or name another: make PYTHON=/path/to/python3.12 ..."
	version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || stop "$$python does not start."
	case $$version in
	    3.11 | 3.12 | 3.13) ;;
	    *) stop "$$python is Python $$version; 3.11, 3.12 or 3.13 is needed." \
	        "Name another: make PYTHON=python3.12 ... (Debian, Ubuntu: sudo apt install python3.12 python3.12-venv)" ;;
	esac
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || stop "$$python has no venv module." \
	    "Debian, Ubuntu: sudo apt install python3-venv (python$$version-venv for a Python of another version)"
	# While installing, the downloads lie beside what is unpacked from them; 6 GB stay.
	used=$$(du -sk .venv 2>/dev/null | cut -f 1 || true)
	free=$$(df -Pk . | awk 'NR == 2 { print $$4 }')
	need=$(if $(TORCH),4,9)
	if [ $$(( $${used:-0} + free )) -lt $$(( need * 1000000 )) ]; then
	    stop "$$(( free / 1000000 )) GB are free in $$PWD; installing needs $$need GB (6 GB with a GPU's torch, 2 GB without, stay)." \
	        "Free some, clone to another disk, or choose a smaller torch: see TORCH in make help"
	fi
	if [ $$free -lt 12000000 ]; then export PIP_NO_CACHE_DIR=1; fi  # pip's own cache would take 2.5 GB more
	if [ "$$python" = $(PY) ]; then
	    echo "Bringing .venv (Python $$version) up to date with constraints.txt: seconds, or minutes if much has changed ..."
	else
	    echo "Making .venv with Python $$version: $(if $(TORCH),with a smaller torch about 1 GB of downloads and 2 GB on \
	disk,about 2.5 GB of downloads and 6 GB on disk), 2 to 3 minutes on a fast line ..."
	    "$$python" -m venv --clear .venv || stop "$$python could not make .venv." "Debian, Ubuntu: sudo apt install python3-venv"
	fi
	# pip writes a line per odd folder and per retry; they are shown when something goes wrong.
	mkdir -p build .venv/tmp
	trap 'rm -rf .venv/tmp' EXIT
	export TMPDIR="$$PWD/.venv/tmp"  # the disk looked at above, not a small /tmp
	log=build/pip.log
	: >$$log
	pinned=$$(grep -E '^torch(vision)?==' constraints.txt | tr '\n' ' ')
	pip_install() {
	    $(PY) -m pip install -q -c constraints.txt "$$@" >>$$log 2>&1 && return
	    grep -v 'WARNING: Location' $$log | tail -n 20 >&2
	    stop "pip failed; above are its last lines, all of them are in $$log." \
	        $(if $(TORCH),"What TORCH names has to offer the versions pinned here: $$pinned") \
	        "Once the cause is mended (network, disk space), the same command goes on."
	}
	# Without dependencies: those of the right versions need not be where the smaller torch is.
	$(if $(TORCH),pip_install --no-deps $$TORCH)
	pip_install -e '.[dev]'
	$(PY) -c 'import pradot, pradot.cli' || stop "the packages are installed but do not load; see above."
	touch $(STAMP)
	echo ".venv is ready ($$(( $$(date +%s) - start )) s)."

check-settings:
	if [ -n "$$DATA" ] && [ ! -d "$$DATA" ]; then
	    echo "error: DATA=$$DATA is no folder (looked from $$PWD)." >&2
	    echo "       Give the folder of the data sets, or of one's categories; without DATA the drawn data are used." >&2
	    exit 1
	fi
	if [ -n "$$WEIGHTS" ] && [ ! -f "$$WEIGHTS" ]; then
	    echo "error: WEIGHTS=$$WEIGHTS is no file (looked from $$PWD)." >&2
	    exit 1
	fi

tables: check-settings env ## every notebook in order: all tables and figures, on drawn data or on DATA
	set --
	datasets=
	if [ -n "$$DATA" ]; then
	    $(PY) -m pradot data --quick --root "$$DATA" || true  # what is found, what is missing
	    datasets=$$($(PY) -m pradot data --names --root "$$DATA")
	    if [ -z "$$datasets" ]; then echo "error: none of these data sets is in DATA=$$DATA." >&2; exit 1; fi
	    set -- -p root "$$DATA"
	    ENCODER=$${ENCODER:-auto}
	    echo "Running all notebooks on" $$datasets "in $$DATA: minutes to days, by the number of categories, the preset and the machine ..."
	else
	    echo "Running all notebooks on drawn data: about 30 minutes on 2 cores ..."
	fi
	if [ -n "$$ENCODER" ]; then set -- "$$@" -p encoder "$$ENCODER"; fi
	if [ -n "$$WEIGHTS" ]; then set -- "$$@" -p weights "$$WEIGHTS"; fi
	if [ -n "$$PRESET" ]; then set -- "$$@" -p preset "$$PRESET"; fi
	if [ -n "$$CATEGORY" ]; then set -- "$$@" -p category "$$CATEGORY"; fi
	if [ -n "$$MAX_STEPS" ]; then set -- "$$@" -p max_steps "$$MAX_STEPS"; fi
	if [ -n "$$BATCH_SIZE" ]; then set -- "$$@" -p batch_size "$$BATCH_SIZE"; fi
	if [ $$# -gt 0 ]; then echo "parameters: $$*"; fi
	start=$$(date +%s)
	if [ -z "$$datasets" ]; then $(PY) -m pradot notebooks "$$@"; fi
	for dataset in $$datasets; do
	    echo "$$dataset"
	    $(PY) -m pradot notebooks "$$@" -p dataset "$$dataset" --out "build/notebooks/$$dataset"
	done
	echo "All notebooks ran ($$(( $$(date +%s) - start )) s). Figures and tables: figures/; the notebooks with their outputs: build/notebooks/."

test: env ## the tests: 2 to 6 minutes on 2 cores
	PYTEST_ADDOPTS="$${PYTEST_ADDOPTS-} $$ARGS" $(PY) -m pytest

notebooks: env ## run the notebooks on drawn data and keep their outputs in notebooks/, to be committed (NAMES="03 05": these)
	env -u PRADOT_DATA $(PY) -m pradot notebooks --keep-outputs $$NAMES

browser-test: env ## the notebooks' explorers in a real JupyterLab and Chromium: minutes; screenshots in build/browser/
	found=
	for name in chromium chromium-browser google-chrome chrome; do
	    if [ -z "$$found" ]; then found=$$(command -v $$name || true); fi
	done
	if [ -z "$$found" ]; then
	    echo "error: no Chromium on the PATH." >&2
	    echo "       Debian: sudo apt install chromium   Ubuntu: sudo snap install chromium" >&2
	    exit 1
	fi
	mkdir -p build
	$(PY) -m pip install -q -c constraints.txt -e '.[browser]' >build/pip.log 2>&1 || { tail -n 20 build/pip.log >&2; exit 1; }
	PYTEST_ADDOPTS="$${PYTEST_ADDOPTS-} $$ARGS" $(PY) -m pytest -m browser

lint: env ## style of code and notebooks (ruff), rules for committed notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) tests/notebook_rules.py

format: env ## mend what lint can mend: style, and tools' metadata left in notebooks
	$(PY) -c 'from pathlib import Path; from pradot.paper.committed import tidy; [tidy(p) for p in Path("notebooks").glob("*.ipynb")]'
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lab: env ## JupyterLab in notebooks/
	cd notebooks
	# It would ask the package index for a newer version.
	exec ../$(PY) -m jupyterlab --LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate $$ARGS

$(BOOK_STAMP): $(STAMP)
	echo "Installing what the book is built with: 20 MB of downloads ..."
	$(PY) -m pip install -q -c constraints.txt -e '.[book]' >build/pip.log 2>&1 || {
	    grep -v 'WARNING: Location' build/pip.log | tail -n 20 >&2
	    echo "error: pip failed; above are its last lines, all of them are in build/pip.log." >&2
	    exit 1
	}
	touch $(BOOK_STAMP)

book: env $(BOOK_STAMP) ## HTML book in build/book: the notebooks as `make tables` left them, and the API (2 minutes)
	$(PY) notebooks/book/build.py

# aiohttp (papermill) and setuptools (torch) are asked for on Python 3.12 and later only, so they are named here.
pins: env ## choose the newest versions that pyproject.toml allows and write constraints.txt (on Python 3.11)
	$(PY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
	    echo "error: pins are made on Python 3.11, which needs the most packages: rm -r .venv && make pins PYTHON=python3.11" >&2
	    exit 1
	}
	echo "Resolving: about a minute; nothing is installed but a new pip in build/pins, whose dry run downloads no packages ..."
	mkdir -p build
	$(PY) -m venv --clear build/pins
	pins() { build/pins/bin/python -m pip install -q "$$@" >build/pip.log 2>&1 || { tail -n 20 build/pip.log >&2; exit 1; }; }
	pins --upgrade pip
	pins --dry-run --ignore-installed --only-binary :all: --report build/pins.json -e '.[dev,book,browser]' aiohttp setuptools
	$(PY) .ci/pins.py build/pins.json constraints.txt
	rm -rf build/pins
	echo "Now: make hashes test tables, then commit constraints.txt and release.txt."

# uv takes the package index from its own settings (UV_DEFAULT_INDEX, SSL_CERT_FILE); no host gets into the file.
hashes: env ## write release.txt: the pins of constraints.txt with the SHA-256 of every file they may be installed from
	mkdir -p build
	$(PY) -m venv --clear build/hashes
	build/hashes/bin/python -m pip install -q uv >build/pip.log 2>&1 || { tail -n 20 build/pip.log >&2; exit 1; }
	echo "# The pins of constraints.txt with the SHA-256 of their files, for Linux: \`make hashes\` writes it." >build/release.txt
	build/hashes/bin/uv pip compile constraints.txt --python $(PY) --generate-hashes --no-deps --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links -q >>build/release.txt
	mv build/release.txt release.txt
	rm -rf build/hashes
	echo "release.txt: $$(grep -c == release.txt) packages, $$(grep -c -e --hash release.txt) files"

clean: ## remove what was built: caches, computed features, executed notebooks (not .venv, data, runs, figures)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
