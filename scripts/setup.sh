#!/usr/bin/env bash
# Install the project into the active virtual environment, or into .venv, which is created if it is missing.
# Prints the Python to use on stdout, everything else on stderr. A second call installs nothing.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

venv="${VIRTUAL_ENV:-$root/.venv}"
if [ ! -x "$venv/bin/python" ]; then
  base=""
  for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
      base="$candidate"
      break
    fi
  done
  [ -n "$base" ] || { echo "error: Python 3.10 or newer is needed and was not found" >&2; exit 2; }
  echo "creating $venv with $("$base" --version)" >&2
  if ! "$base" -m venv "$venv" >&2; then
    rm -rf "$venv"
    echo "error: $base cannot create a virtual environment: install its venv package (python3-venv on Debian)" >&2
    exit 2
  fi
fi
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >&2

# The pinned versions were tested on one version of Python. If one is not available for another, lower bounds apply.
stamp="$venv/.colorization-lab"
wanted="$root $(cat "$root/setup.cfg" "$root/constraints.txt" | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "installing or updating colorization-lab in $venv (a few minutes and several GB the first time)" >&2
  # compat mode puts the folder itself on the path, so that a package that is added later can be imported
  install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check
    --config-settings editable_mode=compat -e "$root[dev,encoders,onnx,video,web]")
  if ! "${install[@]}" -c "$root/constraints.txt" >&2; then
    echo "the tested versions cannot all be installed here; trying the newest compatible ones" >&2
    "${install[@]}" >&2
  fi
  echo "$wanted" >"$stamp"
fi
echo "$venv/bin/python"
