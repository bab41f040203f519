#!/bin/sh
# Makes or refreshes the virtual environment: scripts/setup.sh VENV [extra ...]
# uv installs where it can be had (seconds instead of a minute), pip where it cannot.
set -eu
venv=$1
shift
extras=cluster,dev
for extra in "$@"; do extras=$extras,$extra; done

python=${PYTHON3:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "setup: Python 3.11 or newer is needed, $python is $("$python" -V 2>&1); name another with PYTHON3=..." >&2
    exit 2
fi
if [ ! -x "$venv/bin/python" ]; then
    echo "setup: making $venv" >&2
    "$python" -m venv "$venv"
fi
if [ ! -x "$venv/bin/uv" ]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv >&2 || true
fi
# The Cython core is built with this environment's own setuptools, Cython and numpy: no second download for the build.
if [ -x "$venv/bin/uv" ] && "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" \
    "setuptools>=77" "Cython>=3.1" "numpy>=2.0" >&2; then
    install="$venv/bin/uv pip install --quiet --python $venv/bin/python --no-build-isolation"
else
    echo "setup: uv is not to be had, using pip" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "setuptools>=77" "Cython>=3.1" "numpy>=2.0" >&2
    install="$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation"
fi
echo "setup: installing the engine with extras $extras" >&2
$install --editable ".[$extras]" >&2
