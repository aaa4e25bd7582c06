#!/usr/bin/env bash
# Install into .venv where needed and run the test suite; arguments go to pytest (`bash scripts/test.sh -m slow`).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
exec "$bin/python" -m pytest "$@"
