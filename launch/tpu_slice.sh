# shellcheck shell=bash
# Sourced by tpu_vm.sh: having a slice of a name, and being rid of it.
#
#   slice_state    of the slice; nothing where there is none
#   have_slice     returns when it is ready: asks for it, and waits, and asks again where that came to nothing
#   remove         deletes it, and the request for it

# Of these, `name` and `where` say which slice; `type`, `version` and `spot` what to ask for.
name='' type='' version='' spot='' where=()
most_restarts="${JFT_RESTARTS:-20}"
poll="${JFT_POLL:-15}" # seconds between looks

# Run a command, or in a dry run print it.
does() {
  if [ -z "$dry" ]; then "$@" </dev/null; else { printf '%q ' "$@"; echo; } >&3; fi
}

tpus() { does gcloud --quiet compute tpus "$@" "${where[@]}"; }

pretended='' # the state of everything, in a dry run
had=''       # whether there was a slice already, so that what is asked for can be had

state_of() {
  tpus "$1" list --format="value(name.basename(),$2)" | awk -v name="$name" '$1 == name { print $2 }' || return
  [ -z "$dry" ] || echo "$pretended"
}
slice_state() { state_of tpu-vm state; }
request_state() { state_of queued-resources state.state; }

ask() {
  say "asking for $type"
  tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$type" --runtime-version="$version" \
    ${spot:+--spot} || [ -n "$had" ] || fail "--type=$type: cannot be asked for in this zone, see above"
  pretended=READY
}

# A request takes its slice with it; a slice may have been made without one.
remove() {
  local request slice
  pretended=ACTIVE
  request="$(request_state)" || return
  if [ -n "$request" ]; then
    tpus queued-resources delete "$name" --force
    return
  fi
  slice="$(slice_state)" || return
  [ -z "$slice" ] || tpus tpu-vm delete "$name"
}

have_slice() {
  local state='' before asked=0 unanswered=0 polls=0 start=$SECONDS
  while :; do
    before="$state"
    state="$(slice_state)" || state=unknown
    [ "$state" != READY ] || { had=1; return 0; }
    [ -n "$state" ] || state="$(request_state)" || state=unknown
    case "$state" in
      unknown)
        [ -n "$had$before" ] && [ "$((unanswered += 1))" -lt 10 ] || fail "gcloud cannot say what there is, see above" ;;
      '')
        [ "$asked" -le "$most_restarts" ] || fail "--type=$type: asked for $asked times, and got nothing, see above"
        ask
        [ -z "$dry" ] || continue
        asked=$((asked + 1))
        state=asked
        ;;
      FAILED | SUSPENDED | SUSPENDING | PREEMPTED | TERMINATED)
        say "$state; deleting what is left of it"
        [ "$state" != FAILED ] || tpus queued-resources describe "$name" --format="value(state)" || true
        remove || true # or again, at the next look
        ;;
      ACTIVE) [ "$before" != ACTIVE ] || remove || true ;; # its slice was deleted alone
      STOPPED | STOPPING | HIDDEN | HIDING | UNKNOWN)
        fail "--name=$name: is $state; start it or delete it, or choose another name" ;;
      "$before") [ "$(((polls += 1) % 20))" -ne 0 ] || say "$state for $(((SECONDS - start) / 60)) min" ;;
      *) say "$state" ;;
    esac
    [ "$state" = unknown ] || unanswered=0
    sleep "$poll"
  done
}
