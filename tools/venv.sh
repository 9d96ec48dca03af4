#!/usr/bin/env bash
# Make the virtual environment: exactly what requirements.lock says, checked by hash, then Obhut itself in editable form.
# --no-deps: Barman asks for the package psycopg2, which needs a compiler; the lock holds psycopg2-binary, the same module, instead.
set -euo pipefail
venv=${1:?usage: tools/venv.sh DIRECTORY}
cd "$(dirname "$0")/.."

fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
  if command -v "$candidate" >/dev/null && "$candidate" -c "$fits"; then
    python=$(command -v "$candidate")
    break
  fi
done
if [ -z "$python" ]; then
  echo "make: Obhut needs Python 3.11, 3.12 or 3.13; python3 here is: $(python3 --version 2>&1 || true)" >&2
  echo "HINT: Install one of them, or name it: make PYTHON=/path/to/python3.12" >&2
  exit 1
fi

# An environment made by another Python or half made by a killed run starts afresh.
if [ -x "$venv/bin/python" ] && ! "$venv/bin/python" -c "$fits" 2>/dev/null; then
  rm -rf "$venv"
fi
if [ ! -x "$venv/bin/pip" ]; then
  if ! "$python" -m venv --clear "$venv"; then
    echo "make: $python cannot make a virtual environment" >&2
    echo "HINT: On Debian and Ubuntu the package python3-venv is missing." >&2
    exit 1
  fi
fi
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-input)
"${pip[@]}" --require-hashes --no-deps --only-binary :all: -r requirements.lock
"${pip[@]}" --no-deps --no-build-isolation -e .
touch "$venv/.ready"
