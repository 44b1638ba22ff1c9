"""Generations of a few validation rows at each probe: what the model would say, over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from jft import config as config_lib
from jft.batch import PackingRules
from jft.checkpoints.session import Session
from jft.data import eval_batches
from jft.data.draws import TrainingSet
from jft.data.eval_batches import PackedCells
from jft.data.eval_grid import Cell
from jft.data.packed import in_order
from jft.data.prompting.prompter import PromptEncoder, is_chat
from jft.data.rows import forms
from jft.data.validation import ValidationSet
from jft.evaluation import generation, results
from jft.evaluation.compiled import CompiledModel
from jft.model import decoder, lora
from jft.runtime import records
from jft.runtime.progress import phase
from jft.tasks import GENERATION, Example

# Rows that are looked at for one that fits.
CANDIDATES = 8


class AskedRows(NamedTuple):
    """Validation rows that are asked again and again: their prompts, and their indices."""

    packed: PackedCells
    indices: list[int]


def plan_generations(
    config: config_lib.Config,
    tokenizer: PromptEncoder,
    valid: Sequence[ValidationSet],
    shards: int = 1,
    packing_rules: PackingRules | None = None,
) -> list[AskedRows]:
    """Pack the prompts of the first rows of each set whose answers are generated.

    Args:
      config: of the run.
      tokenizer: the model's.
      valid: from `validation.validation_sets`.
      shards: devices that the rows of a batch are split over.
      packing_rules: those of the model; None: not known.
    """
    unlimited = replace(config, eval=replace(config.eval, limit=0))
    number = config.probe.generations
    wanted = [v for v in valid if number and v.of.dataset.task.kind == GENERATION]
    found = []
    for each in wanted:
        rows = _short_rows(each, number)
        if not rows:
            continue
        cell = _cell(each.of, rows, config.data)
        packed = eval_batches.pack_cell(cell, tokenizer, unlimited, shards, packing_rules)
        found.append(AskedRows(packed, [rows[i] for i in packed.cells[0].indices]))
    return found


def _short_rows(valid: ValidationSet, number: int) -> list[int]:
    """Choose the first rows that fit as they are, among some."""
    tried = valid.indices[: CANDIDATES * number]
    encoded = valid.of.prompter.encode([valid.of.request(i, ()) for i in tried])
    fit = [i for i, e in zip(tried, encoded, strict=True) if e.fits and not e.shortened]
    return fit[:number]


def _cell(of: TrainingSet, indices: list[int], data: config_lib.Data) -> Cell:
    """Make a cell of some rows, asked as examples to train on are written."""
    dataset, task = of.dataset, of.dataset.task
    rows = [dataset.examples[i] for i in indices]
    own = {task.inputs(row) for row in rows}
    demos = [demo for demo in of.demos if task.inputs(demo) not in own][: data.shots]
    few = dataset._replace(examples=rows, left_out=(), parts=())
    chat = is_chat(data.chat, task)
    return Cell(few, len(demos), data.prompt, 0, of.template, tuple(demos), chat)


class Generations:
    """The generations of a run, written to `generations.jsonl`."""

    def __init__(
        self,
        session: Session,
        model: decoder.DecoderConfig,
        asked: list[AskedRows],
        folder: Path,
        done: int,
    ):
        """Drop the records of steps after `done`, which are trained again."""
        self.asked, self.folder, self.tokenizer = asked, folder, session.tokenizer
        self._most = session.config.eval.max_new_tokens
        self._dtype = session.dtype
        self._model = CompiledModel(model, {}, session.mesh, session.dtype, self._most)
        records.keep_lines(
            folder, records.GENERATIONS, lambda record: done > 0 and record["step"] <= done
        )

    def run(self, step: int, params: decoder.Params) -> None:
        """Continue the prompts, and write what comes of it, with its ROUGE-L."""
        if not self.asked:
            return
        with phase(f"Generating at step {step}"):
            self._model.params = lora.cast(params, self._dtype)  # no copy of what is in it already
            for packed, indices in self.asked:
                texts = in_order(generation.generate(self._model, packed, self.tokenizer))
                (cell,) = packed.cells
                scored = results.text_records("", cell, texts, self._most)
                asked = [cell.cell.dataset.examples[i] for i in cell.indices]
                found = [
                    _record(step, index, each, _asked(example))
                    for index, each, example in zip(indices, scored, asked, strict=True)
                ]
                records.append(self.folder, records.GENERATIONS, found)
            self._model.params = {}


def _asked(example: Example) -> str:
    """Return what a row asks, in short: the last message before the answer, or its first field."""
    if "messages" in example:
        return forms.read_conversation(example).messages[-1]["content"]
    return next(iter(example.values()))


def _record(step: int, index: int, scored: dict, prompt: str) -> dict:
    kept = {name: scored[name] for name in ("task", "dataset", "output", "generation", "rougeL")}
    return {"step": step, "index": index, "prompt": prompt} | kept
