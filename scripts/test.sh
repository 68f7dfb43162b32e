#!/usr/bin/env bash
# Set up, check the style, run the tests. Options of pytest may follow: bash scripts/test.sh -k lab
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
python="$(bash scripts/setup.sh)"

# The browser tests use the system's Chromium, and are skipped with a message if there is none.
found=""
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  command -v "$name" >/dev/null && found="$name" && break
done
if [ -z "$found" ] && [ -z "${CHROMIUM:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing chromium for the browser tests" >&2
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium; } \
    >/dev/null 2>&1 || echo "chromium cannot be installed here" >&2
fi

"$python" -m ruff check .
"$python" -m ruff format --check .
# One process per core, each with one thread: threads of several processes would wait for each other.
export OMP_NUM_THREADS=1
exec "$python" -m pytest -n auto --maxprocesses 8 --dist loadfile "$@"
