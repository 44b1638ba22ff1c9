"""Notes that a reader of the numbers should heed: what is missing, skipped, or not the same."""

from __future__ import annotations

import shlex

from jft.evaluation import texts
from jft.evaluation.metrics import ACCURACY, ROUGE_L
from jft.reporting.constant_answers import one_label
from jft.reporting.models import FOREIGN, UNKNOWN, ScoredCell, ScoredModel
from jft.runtime.records import Key
from jft.tasks import RETENTION_TASKS

# Share of the letters that ROUGE-L may leave out without a word.
DROPPED = 0.1
UNTRAINED = (
    "No model here was fine-tuned by jft, as far as is known, so there is nothing to compare; of "
    "what jft.export has made of a run, score the workdir of that run instead."
)


def missing(model: ScoredModel, bases: list[ScoredModel], models: list[ScoredModel]) -> list[str]:
    """Name the cells that the base lacks, and the evaluation that would supply them.

    Args:
      model: the tuned model.
      bases: the evaluations of its base.
      models: all that were scored.
    """
    if not bases and any(other.path == model.base for other in models):
        return [f"{model.name}: {model.base} is not any more what it was tuned from."]
    known = {key for base in bases for key in base.cells}
    keys = [key for key in model.cells if key not in known]
    notes = _lacking(model, known)
    if not keys:
        return notes
    if all(key.task == FOREIGN for key in keys):
        tasks = ", ".join(sorted({key.dataset for key in keys}))
        return [*notes, f"{model.name}: run lm_eval on its base {model.base}, too, for {tasks}."]
    folders = [
        folder
        for folder, evaluation in model.evaluations.items()
        if not known.issuperset(evaluation.keys)
    ]
    what = (
        f"its base {model.base} lacks {len(keys)} of its {len(model.cells)} cells"
        if bases
        else f"no evaluation of its base {model.base} is among the folders given"
    )
    what += f". To compare them, run {_commands(model, folders)} and add what that makes"
    return [*notes, f"{model.name}: {what}."]


def _lacking(model: ScoredModel, known: set[Key]) -> list[str]:
    """Name what retention was measured on for the base, and not for the model."""
    names = {FOREIGN: "tasks of lm-evaluation-harness"}
    lacking: dict[str, int] = {}
    for key in known - model.cells.keys():
        if key.task in (*RETENTION_TASKS, FOREIGN):
            what = names.get(key.task, "sets of the retention panel")
            lacking[what] = lacking.get(what, 0) + 1
    return [
        f"{model.name} was not scored on {number} {what} that its base was."
        for what, number in sorted(lacking.items())
    ]


def unequal(model: ScoredModel, name: str | None, reference: dict[Key, ScoredCell]) -> list[str]:
    """Name the cells in which a model and the reference were scored on different items."""
    notes = []
    for key, cell in model.cells.items():
        other = reference.get(key)
        if other and cell.items.keys() != other.items.keys():
            common = len(cell.items.keys() & other.items.keys())
            notes.append(
                f"{key}: {model.name} was scored on {cell.n} items and {name} on {other.n}; "
                f"the {common} that both have are compared."
            )
    return notes


def cautions(models: list[ScoredModel]) -> list[str]:
    """List what the evaluations counted that bears on the numbers, once for each dataset."""
    cells = [cell for model in models for cell in model.cells.values()]
    skipped = {(c.key.task, c.key.dataset): c.skipped for c in cells if c.skipped}
    notes = [
        f"{task}/{dataset}: {count} rows were skipped, without a gold label or too long."
        for (task, dataset), count in sorted(skipped.items())
    ]
    for field, text in (
        ("demos_among_items", "test items are among their own demonstrations"),
        ("shortened", "inputs lost their end to fit data.max_length, or eval.max_length"),
    ):
        counts: dict[tuple, int] = {}
        for cell in cells:
            place = cell.key[:3]
            counts[place] = max(counts.get(place, 0), cell.cautions[field])
        notes += [
            f"{task}/{dataset} at {shots} shots: {count} {text}."
            for (task, dataset, shots), count in sorted(counts.items())
            if count
        ]
    return [
        *_unfinished(models),
        *notes,
        *_trained_on(models),
        *_constant(models),
        *_letters(models),
    ]


def _unfinished(models: list[ScoredModel]) -> list[str]:
    """Name the models that are not the last step of their training, and what that means."""
    notes = []
    for model in models:
        if not model.steps or model.step >= model.steps:
            continue
        what, run = [], model.run.config if model.run else {}
        if run and run["optim"]["schedule"] != "constant":
            what.append("its learning rate had not come down")
        seen = model.step * run["train"]["batch_size"] if run else 0
        if run and model.examples and seen < model.examples:
            what.append("not all examples had been seen")
        end = f": {', and '.join(what)}" if what else ""
        notes.append(
            f"{model.name} is step {model.step:,} of the {model.steps:,} of its training{end}."
        )
    return notes


def _trained_on(models: list[ScoredModel]) -> list[str]:
    """Name the datasets whose answers a model has seen in training."""
    notes = []
    for model in models:
        counts: dict[tuple[str, str], int] = {}
        for key, cell in model.cells.items():
            place = (key.task, key.dataset)
            counts[place] = max(counts.get(place, UNKNOWN), cell.cautions["items_trained_on"])
        if not model.is_base and UNKNOWN in counts.values():
            notes.append(f"{model.name}: which test items it was trained on is not known.")
        notes += [
            f"{task}/{dataset}: {model.name} was trained on {count} of the test items, so that its "
            "value tells in part what it memorized."
            for (task, dataset), count in counts.items()
            if count > 0
        ]
    return notes


def _constant(models: list[ScoredModel]) -> list[str]:
    """Name the datasets on which a model gives one label whatever the item."""
    notes = []
    for model in models:
        found: dict[tuple[str, str, str], set[int]] = {}
        for key, cell in model.cells.items():
            if cell.metric == ACCURACY and (label := one_label(cell)):
                found.setdefault((key.task, key.dataset, label), set()).add(key.shots)
        places = [
            f"{task}/{dataset} ({label} at {_numbers(shots)} shots)"
            for (task, dataset, label), shots in found.items()
        ]
        if places:
            notes.append(
                f"{model.name} gives one label to nearly every item of {', '.join(places)}: its "
                "accuracy there is that label's share of the items, whatever it knows."
            )
    return notes


def _letters(models: list[ScoredModel]) -> list[str]:
    """Name the datasets of which ROUGE-L leaves out many letters."""
    lost: dict[str, float] = {}
    for model in models:
        for key, cell in model.cells.items():
            if cell.metric == ROUGE_L:
                shares = [texts.dropped_letters(item.gold) for item in cell.items.values()]
                lost[f"{key.task}/{key.dataset}"] = sum(shares) / len(shares)
    return [
        f"{name}: ROUGE-L leaves out {share:.0%} of the letters of the references, those with "
        "accents; go by chrF, under All other metrics."
        for name, share in lost.items()
        if share > DROPPED
    ]


def _commands(model: ScoredModel, folders: list[str]) -> str:
    """Write the commands that repeat the model's evaluations with its base."""
    overrides = [f"--config.model.path={model.base}", "--config.model.name="]
    return " and ".join(f"`{reproduce('jft.eval', folder, *overrides)}`" for folder in folders)


def reproduce(program: str, folder: str, *overrides: str) -> str:
    """Write the command that does again, in a new workdir, what was done in a folder."""
    config = f"--config={folder}/config.json"
    return shlex.join(["python", "-m", program, config, *overrides, "--workdir=NEW"])


def _numbers(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
