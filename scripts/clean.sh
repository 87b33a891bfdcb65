#!/bin/sh
# What setup and the tools made. Not .prebuilds: that is somebody's data.
set -eu
cd "$(dirname "$0")/.."
rm -rf .venv .uv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
find libs services deploy tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
