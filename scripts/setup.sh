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
  pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  log="$(mktemp)"
  trap 'rm -f "$log"' EXIT
  "${pip[@]}" --upgrade pip >"$log" 2>&1 || true  # the pip of some systems cannot resolve this many packages
  # compat mode puts the folder itself on the path, so that a package that is added later can be imported
  install=("${pip[@]}" --config-settings editable_mode=compat -e "$root[train,web,video,encoders,onnx,dev]")
  if ! "${install[@]}" -c "$root/constraints.txt" >"$log" 2>&1; then
    echo "the tested versions cannot all be installed here; installing the newest compatible ones" >&2
    "${install[@]}" >"$log" 2>&1 || { cat "$log" >&2; echo "error: pip failed, see above" >&2; exit 2; }
  fi
  echo "$wanted" >"$stamp"
fi
echo "$venv/bin/python"
