# What a contributor needs. BIN is the bin directory of the environment that `make setup` makes.
BIN ?= .venv/bin

.PHONY: help setup quick test lint pages outputs site lock

help:  ## list these commands
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/: .*##/ -/'

setup:  ## make the environment .venv with all that the tests need
	python3 -m venv .venv
	.venv/bin/pip install -c requirements-dev.txt -e '.[test]'

quick:  ## the tests that need no framework, server, browser or process: under a minute
	$(BIN)/python -m pytest -m quick -n auto

test:  ## all tests
	$(BIN)/python -m pytest -n auto

lint:  ## linter, formatter, types, workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/zizmor --offline --quiet .

pages:  ## make the pages of rules and causes, and the pictures of the documents, again
	$(BIN)/python docs/make_pages.py
	$(BIN)/python -m tests.support.pictures

outputs:  ## write again what the commands in the documents print
	$(BIN)/python -m tests.support.outputs

site:  ## build the site of the documents in site/
	$(BIN)/python docs/make_site.py site

lock:  ## choose the versions in requirements-dev.txt anew
	$(BIN)/uv pip compile pyproject.toml --extra test --universal --python-version 3.10 \
		--no-emit-index-url --no-header --upgrade --output-file requirements-dev.txt
