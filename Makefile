# make demo      watch a signed message cross from SIP to XMPP and back (ONCE=1: end by itself)
# make test      everything; installs the peers it needs (as root by apt)
# make check     format, lint, types, import table, docs
# make prove     kill -9, power loss and sabotage at full size (an hour; see docs/topics/promise.md)
# make bench     figures beside the peers' (see docs/reference/performance.md; QUICK=1: one short repeat)
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check prove bench format lock clean

.venv: .venv/.installed
.venv/.installed: requirements/dev.lock pyproject.toml
	scripts/venv $(PYTHON)

demo: .venv
	$(BIN)/comity demo $(if $(ONCE),--once)

test: .venv
	scripts/test

check: .venv
	scripts/check

prove: .venv
	scripts/prove

bench: .venv
	scripts/bench $(if $(QUICK),--quick)

format: .venv
	$(BIN)/ruff format src tests fuzz examples scripts/*.py
	$(BIN)/ruff check --fix src tests fuzz examples

lock:
	scripts/lock $(PYTHON)

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache
