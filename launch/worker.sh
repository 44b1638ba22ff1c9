#!/usr/bin/env bash
# One process of a program of jft, for launchers that start again what did not come to its end:
#
#   bash launch/worker.sh train --config=... --workdir=...
#
# It ends with the program's exit code, but with 75 where training saved and ended with steps left: it was
# told to, here or on another machine, and a launcher must not take that for its end.
set -euo pipefail

case "${1:-}" in
  -h | --help | '') sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac

# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"
python="${PYTHON:-.venv/bin/python}"
# On a shared file system any of the machines goes on with what another has written, and one user can have
# different numbers on them.
umask 0

workdir=
dry=
before=
for argument in "$@"; do
  case "$before" in -workdir | --workdir) workdir="$argument" ;; esac
  case "$argument" in
    -workdir=* | --workdir=*) workdir="${argument#*=}" ;;
    -dry_run | --dry_run | -dry_run=[tT1]* | --dry_run=[tT1]*) dry=1 ;;
  esac
  before="$argument"
done

trained() {
  "$python" -c 'import pathlib, sys
from jft.runtime import workdir
sys.exit(not workdir.is_trained(pathlib.Path(sys.argv[1]).expanduser()))' "$workdir"
}

told=
trap 'told=1; kill -TERM "$job" || true' TERM
"$python" -m "jft.$1" "${@:2}" &
job=$!
# A signal ends the waiting, not what is waited for.
while kill -0 "$job" 2>/dev/null; do wait "$job" || true; done
wait "$job" || exit

[ "$1" = train ] && [ -z "$dry" ] && [ -n "$workdir" ] || exit 0
# A shared file system may show the last checkpoint some time after another machine has finished it.
for _ in 1 2 3 4 5 6 7; do
  ! trained || exit 0
  [ -z "$told" ] || break
  sleep "${JFT_POLL:-10}"
done
exit 75
