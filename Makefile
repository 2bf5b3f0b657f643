# make demo      the main job on the embedded model, from an empty folder to a picture
# make evaluate  a policy of the embedded image model beside other methods, signed by an evaluator
# make test      the tests, in two processes (JOBS=4: in four)
# make slow      the long tests that CI runs too (SLOW=endless: those that take too long even for CI, SLOW=slow: both)
# make lint      ruff, mypy, import rules
# make release   what a release is made of, built and checked; uploads nothing
# make docs      the documentation as a site, in out/docs
# make clean     everything that the others made

# The oldest Python from 3.11 on that runs here; PYTHON=... takes another.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3.14 python3,$(shell $(name) -c \
  'import sys; print(sys.executable if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
EVALUATE_ARGS ?=
JOBS ?= 2
# Where to find a CPU build of torch, if the usual index would bring CUDA along.
PIP_ARGS ?=
# What `make slow` runs. Endless are fifty kills of each command, searches of ten landscapes, long fuzzing, whole exports in half
# precision, and the embedded models measured against their cards.
SLOW ?= slow and not endless

.PHONY: demo evaluate test slow lint docs release clean install

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: there is no Python 3.11 or newer; give one as PYTHON=/path/to/python" >&2; exit 1; }
	@echo "make: $$($(PYTHON) --version) from $(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python benchmarks/demo.py --out out/demo $(DEMO_ARGS)

# What docs/evaluate.md describes. Measurements stay in out/evaluate: the next call resumes.
evaluate: export BUDC_TRUST := out/evaluate/trust.toml
evaluate: $(VENV)/.installed
	mkdir -p out/evaluate
	test -e out/evaluate/lab.pub || $(BIN)/budc keygen --out out/evaluate/lab
	test -e $(BUDC_TRUST) || $(BIN)/budc trust add out/evaluate/lab.pub --role publisher --role evaluator
	test -e out/evaluate/policy.budc.json || $(BIN)/budc compile --model flux-nano --budget 6 --search uniform \
	  --no-frames --key out/evaluate/lab.key --out out/evaluate/policy.budc.json
	$(BIN)/budc evaluate out/evaluate/policy.budc.json --samples 16 --metrics psnr,ssim --calibration-size 8 \
	  --against fewer-steps,uniform,magcache,taylorseer-1,dpcache,lemica --repeats 3 \
	  --key out/evaluate/lab.key --out out/evaluate $(EVALUATE_ARGS)
	$(BIN)/budc verify out/evaluate/policy.budc.json --require-evaluation "n>=16"

# A file's tests share a worker, and what is expensive to set up; tests/conftest.py has the exception and the order.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

slow: $(VENV)/.installed
	$(MAKE) test ARGS="-m '($(SLOW)) and not gpu' $(ARGS)"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -q -W --keep-going -d out/doctrees docs out/docs
	@echo "out/docs/index.html"

release:
	PIP_ARGS="$(PIP_ARGS)" .ci/release

clean:
	rm -rf $(VENV) out build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
