#!/usr/bin/env bash
# Run the tests, installing what they need into .venv: `bash launch/test.sh [pytest arguments]`.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"
install dev
exec .venv/bin/python -m pytest -n 2 --dist worksteal "$@"
