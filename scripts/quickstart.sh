#!/usr/bin/env bash
# Install into .venv where needed, then train on data/, test, run molecular dynamics, plot. Results in quickstart/.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
exec "$bin/python" scripts/quickstart.py "$@"
