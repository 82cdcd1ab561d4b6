# Needs Python 3.11+, pip and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUESTION ?= What percentage of gross salary does the company pay into the pension?
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -q
PARALLEL := -n auto --dist worksteal
UNUSUAL := slow or gpu or network or hostile
# They run whole requests, or import frameworks.
HEAVY := adapters benchmarks cli engine evaluation langchain_rapid llama_index_rapid proposers server trace

# A worker keeps a core busy: threads of one would wait for those of the other. Dozens of processes import the same
# modules, which are compiled once.
test test-quick test-nightly test-fallback test-lowest test-triton: export OMP_NUM_THREADS := 1
test test-quick test-nightly test-fallback test-lowest test-triton: export OMP_WAIT_POLICY := passive
test test-quick test-nightly test-fallback test-lowest test-triton: export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-quick test-slow test-nightly test-fallback test-lowest test-triton test-hostile test-hosts test-memory test-sanitizers coverage lint bench gpu-check docs-reference clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rapid-integrations needs Python 3.11 or newer: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt torch
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/rapid ask examples/handbook.md -q "$(QUESTION)"

test: $(STAMP)
	$(PYTEST) $(PARALLEL) --timeout 600 --durations=25

# The modules by themselves, with a twentieth of the generated examples; nothing that starts a process or takes a second.
test-quick: $(STAMP)
	RAPID_TESTS=quick $(PYTEST) $(PARALLEL) -m "not (process or long or $(UNUSUAL))" tests/unit $(HEAVY:%=--ignore=tests/unit/%)

# Without what needs a GPU or downloads from a hub.
test-slow: $(STAMP)
	$(PYTEST) -m "slow and not (gpu or network)"

# Everything that needs neither an accelerator nor a model hub, with all examples.
test-nightly: $(STAMP) test-fallback
	RAPID_TESTS=nightly $(PYTEST) $(PARALLEL) -m "not (gpu or network or hostile)"

# As on a machine without a C++ compiler: PyTorch's operators everywhere.
test-fallback: $(STAMP)
	RAPID_NATIVE=0 $(PYTEST) $(PARALLEL)

# With the lowest versions that pyproject.toml allows, in an environment of its own. Old packages call what others that
# came later deprecate, and PyTorch 2.9.0 warns of a variable that nobody has set.
test-lowest: export TORCH_CPP_LOG_LEVEL := ERROR
test-lowest:
	$(PYTHON) tests/lowest_versions.py $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pytest -q $(PARALLEL) -W default::DeprecationWarning

# Kernels for GPUs in Triton's interpreter, and compiled for two GPUs. Its wheel of 286 MB is not among what `setup` needs.
test-triton: export TRITON_INTERPRET := 1
test-triton: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[cuda]'
	$(PYTEST) $(PARALLEL) tests/unit/kernels/cuda tests/unit/kernels/test_ops.py

# Megabytes of hostile text and thousands of generated examples; bounded in time.
test-hostile: $(STAMP)
	RAPID_HOSTILE=1 $(BIN)/python -m pytest -q -m "hostile or not (slow or gpu or network)" tests/hostile

# LlamaIndex's and LangChain's own tests with our classes in the place of their fake models; see docs/host-suites.md.
test-hosts: $(STAMP)
	$(BIN)/python -m tests.hosts $(if $(LLAMA_INDEX),--llama-index "$(LLAMA_INDEX)") $(if $(LANGCHAIN),--langchain "$(LANGCHAIN)") $(if $(LANGGRAPH),--langgraph "$(LANGGRAPH)")

# 200 requests of every length and outcome; writes the picture of docs/robustness.md.
test-memory: $(STAMP)
	MALLOC_ARENA_MAX=1 RAPID_MEMORY_PLOT=docs/memory.png $(BIN)/python -m pytest -q -s -m slow tests/accidents/test_leaks.py

# Random rounds on kernels that check every address and every operation; a minute for each of their two paths.
test-sanitizers: $(STAMP)
	$(BIN)/python -m pytest -q -m slow tests/unit/kernels/cpu/test_sanitizers.py

# What decides over right or wrong output is covered line by line, but for the ends of processes and some errors.
COVERING := sampling cache decoding proposers cli/test_cached.py
COVERING_LAWS := lenient several_drafters recurrent_families freed_rows chunk_views
coverage: $(STAMP)
	$(PYTEST) $(PARALLEL) $(COVERING:%=tests/unit/%) $(COVERING_LAWS:%=tests/laws/test_%.py) tests/accidents/test_memory.py \
		--cov=rapid_integrations.sampling --cov=rapid_integrations.cache --cov-report=term-missing --cov-fail-under=99

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/rapid bench decode

# On a machine with a GPU, eight minutes at most: correctness first, then times. See docs/gpu.md.
gpu-check: $(STAMP)
	$(BIN)/python benchmarks/gpu_check.py --out build/gpu-check --seconds 470
	$(BIN)/python benchmarks/gpu_results.py build/gpu-check/results.jsonl

docs-reference: $(STAMP)
	$(BIN)/python docs/make_reference.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
