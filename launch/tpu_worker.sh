#!/usr/bin/env bash
# What launch/tpu_vm.sh does on each machine of a slice, where this tree lies in ~/jft.
#
#   has SUM             `installed` where the tree of that sum is, `running` where a run must not lose its own,
#                       else `missing`
#   install SUM         the environment for the tree that has just come
#   start SHARE ARGS    mounts SHARE, unless empty, at /mnt/jft, and leaves worker.sh running
#   log LINES           the lines after so many, numbered from 1, until the run has ended
#   result              its exit code, `stopped`, `running`, `gone` where it was killed, `none` where none was
#   stop
set -euo pipefail

# Of the last run: log, pid, command, code, and `stopped` where somebody wanted that.
run=~/jft-run
mkdir -p "$run"

running() {
  [ ! -e "$run/code" ] && [ -e "$run/pid" ] || return
  # After a restart of the machine the number may be another program's.
  grep -qs worker.sh "/proc/$(cat "$run/pid")/cmdline"
}

mount_share() {
  ! mountpoint -q /mnt/jft || return 0
  if ! command -v mount.nfs >/dev/null; then
    # A machine that has just started may be updating itself.
    sudo apt-get -qq -o DPkg::Lock::Timeout=600 update
    sudo apt-get -qq -o DPkg::Lock::Timeout=600 install -y nfs-common
  fi
  sudo mkdir -p /mnt/jft
  # noac: what one machine writes, all see at once. local_lock: an NFSv3 server would keep the locks of machines
  # that are gone.
  sudo mount -t nfs -o noac,local_lock=flock "$1" /mnt/jft
  [ -w /mnt/jft ] || sudo chmod a+rwx /mnt/jft
}

start() {
  local command
  command="$(printf '%q ' "$@")"
  if running; then
    # gcloud sends a command again when it has lost the connection.
    [ "$command" != "$(cat "$run/command")" ] || return 0
    echo "error: another run is going on here: $(cat "$run/command"); stop it first" >&2
    return 3
  fi
  [ -z "$1" ] || mount_share "$1"
  rm -f "$run"/{pid,code,stopped}
  printf '%s' "$command" >"$run/command"
  # In a session of its own, which outlives the connection.
  # shellcheck disable=SC2016
  setsid bash -c 'run=$1 && shift
    bash "$@" & echo $! >"$run/pid"
    wait $! && code=0 || code=$?
    echo "$code" >"$run/code.part" && mv "$run/code.part" "$run/code"
  ' start "$run" ~/jft/launch/worker.sh "${@:2}" >"$run/log" 2>&1 </dev/null &
  until [ -s "$run/pid" ]; do sleep 0.1; done
}

result() {
  [ -e "$run/pid" ] || { echo none; return; }
  # Between the end of the program and its code lies a moment.
  running || [ -e "$run/code" ] || sleep 1
  if [ ! -e "$run/code" ]; then
    ! running || { echo running; return; }
    echo gone
  elif [ -e "$run/stopped" ] && [ "$(cat "$run/code")" != 2 ]; then
    echo stopped
  else
    cat "$run/code"
  fi
}

case "${1:-}" in
  has)
    if running; then
      echo running
    elif [ "$(cat ~/jft/installed 2>/dev/null)" = "$2" ]; then
      echo installed
    else
      echo missing
    fi
    ;;
  install)
    if [ -z "${PYTHON:-}" ]; then
      # shellcheck source=launch/environment.sh
      source ~/jft/launch/environment.sh
      fetch_python
      install tpu
    fi
    echo "$2" >~/jft/installed
    ;;
  start) start "${@:2}" ;;
  log)
    [ -e "$run/pid" ] || exit 0
    tail -n "+$(($2 + 1))" -f --pid="$(cat "$run/pid")" "$run/log" | grep -n --line-buffered '' || true
    ;;
  result) result ;;
  stop)
    running || { echo "nothing is running here"; exit; }
    touch "$run/stopped"
    kill -TERM "$(cat "$run/pid")"
    ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" ;;
esac
