#!/usr/bin/env bash
# Install into .venv where needed and run the test suite; arguments go to pytest (`bash scripts/test.sh -m slow`).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
if [[ " $* " == *" -m slow "* ]] && ! "$bin/python" -c "import physical_validation" 2> /dev/null; then
  "$bin/python" -m pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e ".[slow]"
fi
exec "$bin/python" -m pytest "$@"
