#!/usr/bin/env bash
# Set up, check the style, run the tests. Options of pytest may follow: bash scripts/test.sh -k lab
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
python="$(bash scripts/setup.sh)"
"$python" -m ruff check .
"$python" -m ruff format --check .
exec "$python" -m pytest "$@"
