#!/usr/bin/env bash
# A program of jft on a TPU VM slice, a process on each of its machines. Needs the gcloud CLI, logged in.
#
#   bash launch/tpu_vm.sh run --name=ft --zone=us-west4-a --type=v5litepod-16 --spot --nfs=10.0.0.2:/share -- \
#     train --config=... --workdir=/mnt/jft/ft
#   bash launch/tpu_vm.sh logs|status|stop|delete --name=ft --zone=us-west4-a
#   bash launch/tpu_vm.sh fetch --name=ft --zone=us-west4-a /mnt/jft/ft [FOLDER]
#
# `run` queues for the slice unless it is there, installs this tree, starts the program and shows its log. What is
# preempted or dies is begun again, and goes on from its last checkpoint; a wrong config or data (exit code 2) is
# not. Ctrl-C ends the watching alone: the program goes on, and the same command watches it again. A slice costs
# money until it is deleted: by `delete`, or at the end by --delete-after. `stop` saves, and ends the program.
#
#   --type=TYPE         of `gcloud compute tpus accelerator-types list`; --version=IMAGE where no usual one is known
#   --nfs=HOST:/SHARE   mounted at /mnt/jft on all machines; results elsewhere are on one of them, and go with it.
#                       A Filestore instance, or any NFS server of the network; launch/README.md tells why not a bucket
#   --spot, --project=ID, --delete-after, and --dry-run, which prints the commands and runs none
#
# JFT_RESTARTS=20 is how often it begins again. With PYTHON=PATH nothing is installed: that Python of the machines'
# image has what jft needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/tpu_slice.sh
source launch/tpu_slice.sh

what='' nfs='' delete_after='' dry='' rest=()
remote='bash jft/launch/tpu_worker.sh'
[ -z "${PYTHON:-}" ] || remote="PYTHON=$(printf %q "$PYTHON") $remote"

say() { [ -n "$dry" ] || echo "$name: $*"; }
fail() { echo "error: $*" >&2; exit 2; }

parse() {
  while [ $# -gt 0 ]; do
    case "$1" in
      -h | --help) sed -n '2,22s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
      --name=?*) name="${1#*=}" ;;
      --zone=?* | --project=?*) where+=("$1") ;;
      --type=?*) type="${1#*=}" ;;
      --version=?*) version="${1#*=}" ;;
      --nfs=?*:/*) nfs="${1#*=}" ;;
      --nfs=*) fail "$1: is written HOST:/SHARE, such as --nfs=10.0.0.2:/share" ;;
      --spot) spot=1 ;;
      --delete-after) delete_after=1 ;;
      --dry-run) dry=1 ;;
      --) shift; rest+=("$@"); break ;;
      -*) fail "$1: no such flag, or it lacks a value; they are written --name=value, the program's after --" ;;
      *)
        if [ -z "$what" ]; then what="$1"; elif [ "$what" = fetch ]; then rest+=("$1"); else
          fail "$1: the program and what it takes come after --"
        fi
        ;;
    esac
    shift
  done
  case "$what" in
    run | logs | status | stop | fetch | delete) ;;
    *) fail "${what:-nothing to do}: say run, logs, status, stop, fetch or delete; --help tells more" ;;
  esac
  [ -n "$name" ] || fail "--name is missing: what the slice is called, or is to be"
  case " ${where[*]:-}" in
    *" --zone="*) ;;
    *) fail "--zone is missing: where the slice is, or is to be, such as --zone=us-west4-a" ;;
  esac
  [ "$what" != fetch ] || [ -n "${rest[0]:-}" ] || fail "fetch which folder? Such as: fetch ... /mnt/jft/ft"
  [ "$what" != run ] || check_run
}

check_run() {
  [ -n "${rest[0]:-}" ] || fail "which program? End with: -- train --config=... --workdir=..."
  [ -f "jft/${rest[0]}.py" ] || fail "-- ${rest[0]}: no program of jft; train and eval are"
  [ -n "$type" ] || fail "--type is missing: which slice to ask for, such as --type=v5litepod-16"
  case "${version:-$type}" in
    "$version") ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v4-* | v3-* | v2-*) version=tpu-ubuntu2204-base ;;
    *) fail "--type=$type: no usual image is known; name one with --version=..." ;;
  esac
  [ -n "$nfs" ] || [ -z "$delete_after" ] ||
    fail "--delete-after: the results would go with the slice; give --nfs=HOST:/SHARE, too"
  [ -n "$nfs" ] || say "without --nfs the results go with the slice, and what loses it begins from nothing"
}

# A command on machine 0, 1, ... or all. A lost connection is noticed in a minute.
on() { tpus tpu-vm ssh "$name" --worker="$1" --ssh-flag=-oServerAliveInterval=20 --command="$2"; }

install() {
  local tree=() file sum found archive="runs/$name.tar.gz"
  local clear="mkdir -p jft && find jft -mindepth 1 -maxdepth 1 ! -name .venv ! -name runs -exec rm -rf {} +"
  # What belongs to this machine stays here.
  while IFS= read -r file; do tree+=("$file"); done < <(find . -mindepth 1 -maxdepth 1 ! -name .git ! -name .venv \
    ! -name runs ! -name exports ! -name build ! -name '.*_cache' ! -name '*.egg-info')
  sum="$({ find "${tree[@]}" -name __pycache__ -prune -o -type f -exec cksum {} + && echo "${PYTHON:-}"; } |
    LC_ALL=C sort | cksum | tr ' ' -)"
  found="$(on all "$remote has $sum 2>/dev/null || echo missing")" || return
  case "$found" in *missing* | '') ;; *) return 0 ;; esac
  say "installing"
  does mkdir -p runs &&
    does tar --exclude=__pycache__ -czf "$archive" "${tree[@]}" &&
    tpus tpu-vm scp "$archive" "$name:jft.tar.gz" --worker=all &&
    on all "$clear && tar -xzf jft.tar.gz -C jft && $remote install $sum" &&
    does rm "$archive"
}

start() { on all "$remote start $(printf '%q ' "$nfs" "${rest[@]}")"; }

# How the run stands, all machines together: as tpu_worker.sh calls it, or `unreachable`.
outcome() {
  local said each
  said="$(on all "$remote result")" || { echo unreachable; return; }
  for each in running stopped 2; do
    if grep -qx "$each" <<<"$said"; then echo "$each"; return; fi
  done
  grep -vx 0 <<<"${said:-0}" | sed q | grep . || echo 0
}

# Show the log until the run has ended; `result` then is as of `outcome`, or `lost`.
follow() {
  local line seen=0 from missed=0
  while :; do
    from=$seen
    while IFS= read -r line; do
      case "$line" in [0-9]*:*) ;; *) continue ;; esac
      # gcloud connects again by itself, and then begins again at `from`.
      [ $((from + ${line%%:*})) -gt "$seen" ] || continue
      seen=$((seen + 1))
      printf '%s\n' "${line#*:}"
    done < <(on 0 "$remote log $from")
    result="$(outcome)"
    case "$result" in
      running) missed=0 ;;
      unreachable)
        case "$(slice_state || echo unknown)" in
          READY) [ "$((missed += 1))" -lt 3 ] || { result=lost; return; } ;;
          '' | PREEMPTED | TERMINATED | DELETING) result=lost; return ;;
        esac
        ;;
      *) return ;;
    esac
    sleep "$poll"
  done
}

run() {
  local restarts=0
  while :; do
    if have_slice && install && start; then
      follow
    elif on all true; then
      [ "$(outcome)" != running ] || delete_after='' # that is another run's slice
      finish 1 "could not begin, see above"
    else
      result=lost
    fi
    case "$result" in
      0) finish 0 "done" ;;
      stopped) finish 0 "stopped, and where it was training, saved; the same command goes on" ;;
      2) finish 2 "a mistake in config or data, which stays one" ;;
    esac
    [ "$restarts" -lt "$most_restarts" ] || finish 1 "begun again $most_restarts times already; giving up"
    restarts=$((restarts + 1))
    say "ended ($result); beginning again, time $restarts of $most_restarts"
    [ "$result" != lost ] || remove || true # have_slice waits for what is left
    sleep "$poll"
  done
}

me() { printf 'bash launch/tpu_vm.sh %s --name=%q%s' "$1" "$name" "$(printf ' %q' "${where[@]}")"; }
costs() { say "what there is of it costs money until: $(me delete)"; }

finish() {
  say "$2"
  trap - EXIT
  if [ -z "$delete_after" ]; then costs; elif ! remove; then
    say "not deleted, see above"
    costs
  fi
  exit "$1"
}

interrupted() {
  echo
  say "what runs there goes on; to watch it: $(me logs), to end it: $(me stop)"
  exit 130
}

parse "$@"
exec 3>&1
[ "$what" = delete ] || trap costs EXIT
trap interrupted INT
case "$what" in
  run) run ;;
  logs)
    follow
    say "ended: $result"
    case "$result" in 0 | stopped) ;; 2) exit 2 ;; *) exit 1 ;; esac
    ;;
  status)
    pretended=READY
    state="$(slice_state)"
    say "slice: ${state:-none}"
    say "request: $(request_state)"
    [ "$state" != READY ] || say "program: $(outcome)"
    ;;
  stop)
    on all "$remote stop"
    say "asked to save and end; to see it: $(me logs)"
    ;;
  fetch)
    case "${rest[0]}" in /*) ;; *) rest[0]="jft/${rest[0]}" ;; esac
    tpus tpu-vm scp --recurse "$name:${rest[0]}" "${rest[1]:-.}" --worker=0
    ;;
  delete) remove ;;
esac
