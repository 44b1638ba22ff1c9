"""The model card: how a model was trained, and what training did to it, from its own records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jft import config as config_lib
from jft.checkpoints.model_ref import ModelRef
from jft.errors import UserError, expand
from jft.evaluation import results
from jft.runtime import records


def model_card(ref: ModelRef, cells: list[dict], name: str, dtype: str, adapters: bool) -> str:
    """Write Markdown with the header that the Hugging Face hub reads.

    Args:
      ref: the model.
      cells: records of cells, as `read_cells` returns them.
      name: title of the card.
      dtype: type of the exported weights.
      adapters: whether these alone are exported, in float32.
    """
    dtype = "float32" if adapters else dtype
    library = "peft" if adapters else "transformers"
    lines = ["---", f"library_name: {library}", "pipeline_tag: text-generation"]
    lines += ["tags:", "- jft", "---", "", f"# {name}", ""]
    if ref.run is None:
        lines.append(f"Converted by jft from `{Path(ref.path).name}`, in {dtype}.")
    else:
        lines += _training_lines(ref, ref.run, dtype)
        lines += _probe_lines(ref.folder, ref.step)
    lines += _score_lines(cells)
    return "\n".join(lines) + "\n"


def _training_lines(ref: ModelRef, run: config_lib.Config, dtype: str) -> Iterator[str]:
    saved, data = ref.record, run.data
    assert saved
    kind = f"with {data.shots} demonstrations in the prompt" if data.shots else "plainly"
    yield f"Fine-tuned by jft from `{Path(saved.base).name}`, {kind}; weights in {dtype}."
    yield ""
    yield "| | |"
    yield "|---|---|"
    optim = run.optim
    facts = {
        "task": ", ".join(dict.fromkeys(task for task, _ in results.training_sets(ref) or ())),
        "training rows": " + ".join(data.train)
        + (f", the first {data.examples}" if data.examples else ""),
        "steps": f"{ref.step} of {saved.steps}, of {run.train.batch_size} examples",
        "demonstrations": f"{data.shots}, {data.demo_mode}" if data.shots else "none",
        "trained": _trained(run.lora),
        "optimizer": f"AdamW, lr {optim.lr:g}, {optim.schedule}, decay {optim.weight_decay:g}",
        "longest sequence": f"{data.max_length} tokens",
        "seed": str(data.seed),
    }
    for fact, value in facts.items():
        yield f"| {fact} | {_escaped(value)} |"


def _trained(adapters: config_lib.Lora) -> str:
    """Name the weights that were trained."""
    if not adapters.rank:
        return "all weights"
    kind, base = "DoRA" if adapters.dora else "LoRA", adapters.base
    held = "" if base == "auto" else f", beside a base in {base}"
    targets = ", ".join(adapters.targets)
    return f"{kind} of rank {adapters.rank}, alpha {adapters.alpha:g}, of {targets}{held}"


def _probe_lines(folder: Path, step: int) -> Iterator[str]:
    found = records.read_lines(folder, records.PROBES)
    last = [each for each in found if each["step"] == step and step]
    if not last:
        return
    yield ""
    yield "What training changed on a few test items: nats per token of the right answer, less is"
    yield "better; and the divergence from the base's next token."
    yield ""
    yield "| dataset | relation | items | change of loss | KL from the base |"
    yield "|---|---|---|---|---|"
    for each in last:
        name, relation = _escaped(each["dataset"]), each["relation"]
        change = f"{each['nll_change']:+.4f} | {each['kl']:.4f}"
        yield f"| {name} | {relation} | {each['n']} | {change} |"


def read_cells(ref: ModelRef, evaluations: list[str]) -> list[dict]:
    """Read the records of cells in workdirs of jft.eval, for the card of a model.

    Raises:
      UserError: a workdir has none, or scores of neither the model nor its base.
    """
    known = {ref.fingerprint()} if evaluations else set()
    if evaluations and ref.record:
        known.add(ref.record.base_sha256)
    found: list[dict] = []
    for folder in evaluations:
        workdir = expand(folder)
        cells = records.read_lines(workdir, records.CELLS)
        if not cells:
            raise UserError(f"{folder}: no scores there; jft.eval makes them")
        model = records.read_scored_model(workdir)
        if model["model_sha256"] not in known:
            raise UserError(
                f"{folder}: holds scores of {model['model']} at step {model['step']}, which is "
                "neither this model nor its base"
            )
        found += cells
    return found


def _score_lines(cells: list[dict]) -> Iterator[str]:
    if not cells:
        return
    yield ""
    yield "| model | dataset | relation | shots | prompt | metric | value | std. error | items |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for cell in cells:
        error = "-" if cell["stderr"] is None else f"{cell['stderr']:.4f}"
        yield (
            f"| {_escaped(cell['model'])} | {_escaped(cell['dataset'])} | {cell['relation']} | "
            f"{cell['shots']} | {cell['prompt']} | {cell['metric']} | {cell['value']:.4f} | "
            f"{error} | {cell['n']} |"
        )


def _escaped(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
