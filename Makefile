# make demo      sets up .venv, then runs the main job on the small checkpoint in this repository (four minutes with the set-up)
# make test      sets up .venv, then checks style and types and runs the quick tests (five minutes)
# make test-all  does the same with the slow tests (24 to 48 minutes); if torch and transformers are installed, it also
#                compares with them
# make test-release   before a release: runs tests with more backends, formats, times of interruption and seeds (half an
#                     hour)
# make test-extra EXTRA=openvino   installs the built wheel with only this extra, and uses its feature (without EXTRA:
#                                  every extra)
# make test-stack STACK=colab      runs the tests with other versions (tests/stacks/*.txt) in an environment of its own;
#                                  with several stacks, each also loads .keras files of the others (without STACK: all)
# make docs      builds the documentation into site/; a broken link is an error
#
# Options: WEIGHTS=google/bit-50 (a Hub id or directory; also installs torch and transformers, to compare with them),
# PHOTOS=FOLDER, TESTS='tests/test_model.py -k size' (arguments of pytest), PYTHON=python3.11.

PYTHON ?= python3
TINY := tests/checkpoints/bit-tiny-cifar10
WEIGHTS ?= $(TINY)
PHOTOS ?=
TESTS ?=
EXTRA ?=
STACK ?= oldest colab newest cpu jax
# Seconds after which a test counts as hanging; the slowest test takes a fraction of this.
HANG := 1500

BIN := .venv/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2

ifeq ($(WEIGHTS),$(TINY))
SETUP := .venv/installed
REFERENCE := --reference $(TINY)/golden.npz
else
# The repository has no golden file for other weights, so the reference itself runs.
SETUP := .venv/installed-reference
REFERENCE :=
test test-all test-release: export KERAS_BIT_TEST_WEIGHTS := $(WEIGHTS)
endif

.PHONY: demo test test-all test-release test-stack test-extra docs clean

demo: $(SETUP)
	$(BIN)/python -m convert.demo $(WEIGHTS) $(if $(PHOTOS),"$(PHOTOS)") $(REFERENCE)

test: LEVEL := -m "not slow and not release"
test-all: LEVEL := -m "not release" --durations=25 --durations-min=10
test-release: LEVEL := -m release --durations=25 --durations-min=10
test test-all test-release: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder --timeout $(HANG) $(LEVEL) $(TESTS)

test-extra:
	PYTHONPATH=tests $(PYTHON) -m extras $(EXTRA)

test-stack:
	$(PYTHON) tests/stacks/run.py $(STACK) $(if $(TESTS),-- $(TESTS))

docs: .venv/installed-docs
	$(BIN)/mkdocs build --strict

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,demo]'
	touch $@

.venv/installed-reference: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,demo,reference]'
	touch $@

clean:
	rm -rf .venv out site build dist *.egg-info
