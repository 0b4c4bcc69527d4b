# The usual jobs; `just` lists them. Each line works without just as well.

export OMP_NUM_THREADS := env("OMP_NUM_THREADS", "2")

_default:
    @just --list

# Install into the current environment, with everything needed to work on KORE
install:
    pip install -c constraints.txt -e ".[dev]"

# The fast tests
test *args:
    pytest {{args}}

# The slow tests: kills, two processes, fuzzing
slow *args:
    pytest -m slow -n 0 {{args}}

# The picture encoder with the real open-clip (needs the clip extra: a torchvision that fits torch)
clip *args:
    pytest -m clip -n 0 {{args}}

# Format, lint, types and import rules, without changing a file
check:
    ruff format --check
    ruff check
    mypy
    lint-imports

# Format, and fix what the linter can fix safely
fix:
    ruff format
    ruff check --fix

# Write docs/cli.md, keys.md, settings.md and models.md anew from the code
docs:
    python -m scripts.write_docs
    python -m scripts.models_page

# Compare the benchmark scorers with the original ones, in an environment of their own (needs a package index)
oracle *args:
    python -m tests.oracle.run {{args}}

# Everything, in a clean environment
ci:
    .ci/run

# The main job, end to end
demo *args:
    kore demo {{args}}

# Serve an export of a kore-tiny run with a real vLLM, in an environment of its own, and check it
interop-vllm run *args:
    python -m scripts.interop.vllm {{run}} --out docs/results/interop/vllm.txt {{args}}
