# One virtual environment, made from hashed lock files; every command below works in a fresh clone.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Without cached bytecode every process of ours would compile itself, and all that it imports, at each start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: venv demo test test-cluster check fmt gen lock bench chart clean
venv: $(STAMP)

$(STAMP): pyproject.toml requirements/dev.txt requirements/uv.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip sync --quiet --require-hashes requirements/dev.txt
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: venv
	$(BIN)/python -m examples.digits.demo

test: venv
	$(BIN)/python -m pytest -n 3 --dist worksteal

# What the tests of clusters say of ours must hold for a real control plane too; needs Go, and ten minutes the first time.
CLUSTER_TESTS := tests/cluster tests/contract/test_kubernetes_driver.py tests/e2e/test_kubernetes.py \
  tests/integration/test_{custom_resources,kubernetes_kit,kubernetes_workers,leadership}.py
test-cluster: venv
	$(BIN)/python -m tests.cluster.real.control_plane -- $(BIN)/python -m pytest $(CLUSTER_TESTS)

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/baseline.binpb
	$(BIN)/python tools/generate.py --check

fmt: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gen: venv
	$(BIN)/python tools/generate.py

# Hashes, and neither index nor download addresses, so that the same files serve behind any mirror.
lock: venv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	  --extra local --extra postgres --extra kubernetes --group dev \
	  --custom-compile-command "make lock" --output-file requirements/dev.txt pyproject.toml

# The chart with helm itself, which Go builds where it is not installed. (The tests render it with Helm's engine in a wheel.)
CHART := deploy/helm/cortex-batch
HELM ?= $(or $(shell command -v helm),$(HOME)/.cache/cortex-batch/helm-v3.22.0/helm)
chart: $(HELM)
	for values in $(CHART)/values-*.yaml; do \
	  $(HELM) lint --strict --kube-version 1.33.0 -f $$values $(CHART) && \
	  $(HELM) template cortex -n cortex --kube-version 1.33.0 -f $$values $(CHART) > /dev/null || exit 1; \
	done

$(HOME)/.cache/cortex-batch/helm-v3.22.0/helm:
	GOBIN=$(@D) nice go install helm.sh/helm/v3/cmd/helm@v3.22.0

bench: venv
	$(BIN)/python -m bench

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
