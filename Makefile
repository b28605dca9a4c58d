# Everything there is to learn: make demo, make test, make check; `make` alone lists the others. Each sets up what it needs.
#
#   make test ARGS="-k redis"                       options for pytest
#   make test ARGS="-n auto --dist worksteal"       in several processes, on a machine that has little else to do
#   make test PYTHON=python3.13 VENV=.venv-3.13     another Python, in an environment of its own

VENV ?= .venv
export VENV

PY := $(VENV)/bin/python
CODE := $(wildcard src tests examples bench soak fuzz docs)

# Its own check for a newer release needs the network and says nothing about this code.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Says what will be maintained in a year from now; nothing about these pages.
export NO_MKDOCS_2_WARNING := 1

# Many a container sets it. All would be compiled by each process anew that a test starts.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test tests faults soak interop bench pages compare instructions scale idle fuzz docs check format clean
.PHONY: setup-demo setup-check setup-test setup-interop setup-bench setup-instructions setup-fuzz setup-docs

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: setup-demo ## start a broker and show PubSub, patterns and RPC between processes
	@$(VENV)/bin/commlib demo $(ARGS)

test: setup-test ## run all tests, against real brokers
	$(PY) -m pytest $(ARGS)

faults: setup-test ## run the tests that last: outages and silence of 10 s and more
	$(PY) -m pytest -m slow $(ARGS)

soak: setup-test ## run under load and random faults on each broker, 3 minutes or as long as you like
	@PYTHONPATH=.:tests $(PY) -m soak $(ARGS)

interop: setup-interop ## run the tests against released commlib-py, each in an environment of its own
	$(PY) -m pytest -m interop tests/interop $(ARGS)

bench: setup-bench ## measure ours, the peers and the bare limit side by side, for an hour; or a part of it
	@PYTHONPATH=.:tests $(PY) -m bench $(ARGS)

pages: setup-bench ## make anew what is shown of the newest record of make bench, pictures and all
	@$(PY) -m bench.shown

compare: setup-check ## tell what became slower between two records of make bench: A=old.json B=new.json
	@$(PY) -m bench.compare $(A) $(B) $(ARGS)

instructions: setup-instructions ## count the instructions of a message, and compare with the record
	@PYTHONPATH=.:tests $(PY) -m bench.instructions $(ARGS)

scale: setup-test ## measure what 1 to 10 000 topics, services and nodes in a process cost, and judge it: 25 minutes a round
	@PYTHONPATH=.:tests $(PY) -m bench.scale $(ARGS)

idle: setup-bench ## count how often a node wakes up that has nothing to do, ours and the peers'
	@PYTHONPATH=.:tests $(PY) -m bench.idle $(ARGS)

fuzz: setup-fuzz ## look for bytes that crash the readers and links, a minute each
	@PYTHONPATH=.:tests $(PY) -m fuzz $(ARGS)

docs: setup-docs ## build the documentation into site/; a dead link or a public name without docstring ends it
	$(PY) -m mkdocs build --strict $(ARGS)
	@echo "the site begins in site/index.html"

tests: test ## the same as make test

check: setup-check ## check format, lint and types
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m ruff check $(CODE)
	$(PY) -m mypy --strict src tests/typed
	$(PY) -m pyright --pythonpath $(PY) src tests/typed

format: setup-check ## bring the code into the format that make check asks for
	$(PY) -m ruff check --fix $(CODE)
	$(PY) -m ruff format $(CODE)

clean: ## remove what the other targets made, .venv included
	rm -rf .venv .venv-interop .venv-bench .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist site
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

setup-demo setup-check setup-test setup-interop setup-bench setup-instructions setup-fuzz setup-docs:
	@scripts/setup.sh $(@:setup-%=%)
