#!/bin/sh
# From nothing to a ready .venv: a pinned uv in .uv, then what uv.lock says. Again it only checks.
# Nothing is installed outside this folder (uv keeps its own cache of downloads).
set -eu
cd "$(dirname "$0")/.."
uv_version=0.13.9

say() { printf '%s\n' "setup: $*" >&2; }
die() { say "$*"; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
    # The real file: what answers in PATH may be a shim that depends on the folder.
    if new_enough "$candidate"; then "$candidate" -c 'import sys; print(sys.executable)'; return; fi
  done
  found=$(${PYTHON:-python3} --version 2>/dev/null || echo "not there")
  die "Python 3.11 or newer is needed, ${PYTHON:-python3} is $found; install one or name it:" \
    "make setup PYTHON=/path/to/python3"
}

install_uv() {
  python=$1
  rm -rf .uv
  if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    say "uv $uv_version into .uv, with $python"
    "$python" -m venv .uv
    .uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
  elif "$python" -m pip --version >/dev/null 2>&1; then
    say "uv $uv_version into .uv, with pip of $python"
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .uv "uv==$uv_version"
  else
    die "$python has neither venv with ensurepip nor pip: apt-get install python3-venv"
  fi
}

uv_is_there() { [ "$(.uv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" = "$uv_version" ]; }

export UV_PYTHON_DOWNLOADS=never # the Python that is here, never one from elsewhere
export UV_SYSTEM_CERTS=1         # certificates of a company's proxy are known to the system only
unset VIRTUAL_ENV                # the .venv of this folder, whatever is active

# An existing .venv keeps its Python; one whose Python is gone is made again.
if uv_is_there && new_enough .venv/bin/python; then
  exec .uv/bin/uv sync --frozen --quiet
fi
UV_PYTHON=$(find_python)
export UV_PYTHON
uv_is_there || install_uv "$UV_PYTHON"
uv_is_there || die "uv $uv_version does not run from .uv/bin/uv"
say "packages of uv.lock into .venv"
.uv/bin/uv sync --frozen
say "ready"
