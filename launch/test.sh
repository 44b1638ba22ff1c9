#!/usr/bin/env bash
# Run the tests in an environment of their own: `bash launch/test.sh [pytest arguments]`.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
install dev
exec .venv/bin/python -m pytest -n 2 "$@"
