#!/usr/bin/env bash
# A program of jft on a TPU slice in a GKE cluster, by launch/gke.yaml. Needs kubectl, pointed at the cluster.
#
#   bash launch/gke.sh run --name=ft --accelerator=tpu-v5-lite-podslice --topology=4x4 --spot --claim=jft \
#     --source=gs://my-bucket/jft.tar.gz -- train --config=... --workdir=/mnt/jft/ft
#   bash launch/gke.sh logs|status|delete --name=ft
#
# `run` applies the manifest and shows the log of the first pod. Pods that are preempted or die come again, and go on
# from the last checkpoint; a wrong config or data (exit code 2) ends the job. Ctrl-C ends the watching alone, and
# the same command watches it again. `delete` saves and ends the program: what it leaves, another `run` goes on with.
# Nodes cost money as long as they are there: with autoscaling or Autopilot, some minutes longer than the pods.
#
#   --accelerator=NAME, --topology=AxB  labels of the node pool; --host-chips=N where its machines have another
#                    number of chips than is usual for these
#   --claim=NAME     a PersistentVolumeClaim, ReadWriteMany, on Filestore (storage class standard-rwx): mounted at
#                    /mnt/jft in all pods, as a workdir must be. It stays, and costs, until you delete it
#   --source=URL     this tree as https://... or gs://... .tar.gz, installed at each start. To make one:
#                    git archive --format=tar.gz HEAD | gcloud storage cp - gs://my-bucket/jft.tar.gz
#   --image=IMAGE    instead: one whose working directory is this tree, and whose `python` has jft[tpu]
#   --spot, and --dry-run, which prints the manifest and the commands and runs none
set -euo pipefail

name='' accelerator='' topology='' host_chips='' claim='' source='' image='' spot='' dry='' what='' rest=()

say() { [ -n "$dry" ] || echo "$name: $*"; }
fail() { echo "error: $*" >&2; exit 2; }

parse() {
  while [ $# -gt 0 ]; do
    case "$1" in
      -h | --help) sed -n '2,23s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
      --name=?*) name="${1#*=}" ;;
      --accelerator=?*) accelerator="${1#*=}" ;;
      --topology=?*) topology="${1#*=}" ;;
      --host-chips=?*) host_chips="${1#*=}" ;;
      --claim=?*) claim="${1#*=}" ;;
      --source=?*) source="${1#*=}" ;;
      --image=?*) image="${1#*=}" ;;
      --spot) spot=1 ;;
      --dry-run) dry=1 ;;
      --) shift; rest+=("$@"); break ;;
      -*) fail "$1: no such flag, or it lacks a value; they are written --name=value, the program's after --" ;;
      *) if [ -z "$what" ]; then what="$1"; else fail "$1: the program and what it takes come after --"; fi ;;
    esac
    shift
  done
  case "$what" in
    run | logs | status | delete) ;;
    *) fail "${what:-nothing to do}: say run, logs, status or delete; --help tells more" ;;
  esac
  [ -n "$name" ] || fail "--name is missing: what the job is called, or is to be"
  # It becomes a host's name, with the number of a pod.
  [[ "$name" =~ ^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$ ]] ||
    fail "--name=$name: begins with a small letter, and goes on with them, digits and -, 50 at most"
  [ "$what" != run ] || check_run
}

check_run() {
  [ -n "${rest[0]:-}" ] || fail "which program? End with: -- train --config=... --workdir=..."
  [ -f "$(dirname "$0")/../jft/${rest[0]}.py" ] || fail "-- ${rest[0]}: no program of jft; train and eval are"
  [ -n "$accelerator" ] || fail "--accelerator is missing: the node pool's, such as --accelerator=tpu-v5-lite-podslice"
  [[ "$topology" =~ ^[0-9]+x[0-9]+(x[0-9]+)?$ ]] ||
    fail "--topology=$topology: is the node pool's, such as --topology=4x4 or --topology=2x2x4"
  [ -n "$claim" ] || fail "--claim is missing: without a share, what pods save is gone with them"
  [ -n "$source$image" ] || fail "--source is missing: where pods get jft from; or give --image"
  [ -z "$source" ] || [[ "$source" =~ ^(gs|https?)://.+ ]] || fail "--source=$source: begins with gs:// or https://"
  [[ "${host_chips:-4}" =~ ^[1-9][0-9]*$ ]] || fail "--host-chips=$host_chips: is a number, such as 4"
  chips=$((${topology//x/*}))
  case "$topology" in
    1x1) : "${host_chips:=1}" ;;
    2x4) : "${host_chips:=8}" ;;
    *) : "${host_chips:=4}" ;;
  esac
  [ "$((chips % host_chips))" -eq 0 ] ||
    fail "--topology=$topology: its $chips chips are not whole machines of $host_chips; see --host-chips"
}

# A string of JSON, which YAML is too. Kubernetes would read $(NAME) as a variable, and $$ as $.
json() {
  local text="${1//\\/\\\\}"
  text="${text//\"/\\\"}"
  text="${text//$'\n'/\\n}"
  text="${text//$'\t'/\\t}"
  text="${text//$'\r'/\\r}"
  printf '"%s"' "${text//\$/\$\$}"
}

arguments() {
  local argument
  printf '[%s' "$(json "${rest[0]}")"
  # All pods are there when their machines are, which may take long; a --wait of yours counts instead.
  for argument in --wait=3600 "${rest[@]:1}"; do printf ', %s' "$(json "$argument")"; done
  printf ']'
}

manifest() {
  local hosts=$((chips / host_chips))
  NAME="$(json "$name")" HOSTS="$hosts" CHIPS="$host_chips" FAILURES="$((hosts * ${JFT_RESTARTS:-20}))" \
    ACCELERATOR="$(json "$accelerator")" TOPOLOGY="$(json "$topology")" IMAGE="$(json "${image:-python:3.12-slim}")" \
    SOURCE="$(json "$source")" CLAIM="$(json "$claim")" ARGS="$(arguments)" SPOT="$spot" awk '
      /# only with --spot/ && !ENVIRON["SPOT"] { next }
      {
        while (match($0, /__[A-Z]+__/)) {
          printf "%s%s", substr($0, 1, RSTART - 1), ENVIRON[substr($0, RSTART + 2, RLENGTH - 4)]
          $0 = substr($0, RSTART + RLENGTH)
        }
        print
      }' "$(dirname "$0")/gke.yaml"
}

# Run a command, or only print it.
does() {
  if [ -z "$dry" ]; then "$@"; else { printf '%q ' "$@"; echo; } >&3; fi
}

apply() {
  if [ -n "$dry" ]; then
    printf "kubectl apply --filename=- <<'MANIFEST'\n%s\nMANIFEST\n" "$(manifest)"
  else
    manifest | kubectl apply --filename=-
  fi
}

# Of the job: Complete or Failed, once it is.
outcome() {
  does kubectl get job "$name" --output='jsonpath={range .status.conditions[?(@.status=="True")]}{.type} {end}'
}

# The pod that is first now; those before it stay, to be looked at.
first_pod() {
  does kubectl get pods --selector="job-name=$name,batch.kubernetes.io/job-completion-index=0" \
    --sort-by=.metadata.creationTimestamp --output=name | tail -n 1
  [ -z "$dry" ] || echo "pod/$name-0-..."
}

# Show the log of the first pod, and of the one after it, until the job has ended.
follow() {
  local pod before='' since='' state
  while :; do
    pod="$(first_pod)"
    if [ -n "$pod" ]; then
      [ "$pod" = "$before" ] || since=''
      before="$pod"
      [ -n "$since" ] || does kubectl wait "$pod" --for=condition=Ready --timeout=60s >/dev/null 2>&1 || true
      # Of a pod whose log broke off, what came since.
      ! does kubectl logs --follow ${since:+--since-time="$since"} "$pod" || since="$(date -u +%FT%TZ)"
    fi
    state="$(outcome)" || state=''
    case "$state${dry:+Complete}" in
      *Complete*) say "done"; return ;;
      *Failed*)
        say "failed: $(kubectl get job "$name" --output='jsonpath={.status.conditions[?(@.type=="Failed")].message}')"
        return 1
        ;;
    esac
    sleep "${JFT_POLL:-15}"
  done
}

remains() { say "job and log stay until: bash launch/gke.sh delete --name=$name; nodes and claim cost as before"; }

interrupted() {
  echo
  say "what runs there goes on; to watch it: bash launch/gke.sh logs --name=$name"
  exit 130
}

parse "$@"
exec 3>&1
trap interrupted INT
case "$what" in
  run)
    apply || fail "--name=$name: not applied; where a job of that name is there with other flags, delete it first"
    trap remains EXIT
    follow
    ;;
  logs) follow ;;
  status)
    does kubectl get job "$name"
    does kubectl get pods --selector="batch.kubernetes.io/job-name=$name" --output=wide
    ;;
  delete) does kubectl delete job,service "$name" --ignore-not-found ;;
esac
