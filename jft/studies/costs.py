"""What a study takes: its tokens, exactly, and the arithmetic that its time depends on."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass

from jft.batch import Shape
from jft.data import data_report, datasets, probe_batches
from jft.data import eval_batches as items_lib
from jft.data import eval_grid as settings_lib
from jft.data import train_batches as batches_lib
from jft.data.eval_batches import PackedCell
from jft.data.prompts import Encoder
from jft.data.train_batches import Batches
from jft.errors import UserError
from jft.model import flops
from jft.model.decoder import DecoderConfig
from jft.runtime.progress import Bar, say
from jft.studies.parts import Part


@dataclass(frozen=True, slots=True)
class Training:
    """The training of one model.

    Attributes:
      name: of its part.
      batches: the planned run.
      seconds: that planning took, as it will again.
      probes, probe: how many batches a probe has, and their shape.
      report: on its data, as `data_report.training_report` gives it.
    """

    name: str
    batches: Batches
    seconds: float
    probes: int
    probe: Shape | None
    report: dict

    def flops(self, config: DecoderConfig) -> float:
        """Of all steps, padding included."""
        micro_batches = self.batches.micro_batches.items()
        return sum(n * flops.training(config, shape) for shape, n in micro_batches)

    def probe_flops(self, config: DecoderConfig, every: int) -> float:
        """Of all probes, `every` so many steps and at both ends; their heads left out."""
        steps = set(range(0, self.batches.steps, every) if every else (0,)) | {self.batches.steps}
        return len(steps) * self.probes * flops.forward(config, self.probe) if self.probe else 0.0


@dataclass(frozen=True, slots=True)
class Scoring:
    """The cells that each model is scored on.

    Attributes:
      cells: planned.
      seconds: that planning took, as it will again for every model.
      report: on their data, as `data_report.evaluation_report` gives it.
    """

    cells: list[PackedCell]
    seconds: float
    report: dict

    @property
    def prompts(self) -> int:
        """Texts to generate."""
        return sum(len(cell.encoded) for cell in self.cells if generates(cell))


def generates(cell: PackedCell) -> bool:
    """Whether the model is to go on from the prompts, rather than to score labels."""
    return cell.slots is not None


def forward_flops(cell: PackedCell, config: DecoderConfig) -> float:
    """Of a cell's forward passes."""
    shape = cell.shape._replace(num_entries=0) if generates(cell) else cell.shape
    return math.ceil(len(cell.rows) / shape.rows) * flops.forward(config, shape)


def decoding_flops(cell: PackedCell, config: DecoderConfig, prompts: int, new_tokens: int) -> float:
    """Of so many new tokens for so many prompts of a cell, which keep its slots busy."""
    assert cell.slots
    keys = cell.slots.slot_tokens + cell.slots.prefix_size
    prompts = max(prompts, cell.slots.num_slots)  # slots that are free cost what the others do
    return prompts * new_tokens * flops.new_token(config, keys)


def plan(
    parts: list[Part], tokenizer: Encoder, seen: Collection[str] | None, shards: int
) -> tuple[list[Training], Scoring]:
    """Plan all trainings, and the cells that every model is scored on, for so many devices.

    A training that cannot be planned is named, and left out: in the study it will fail.
    """
    trained = [part for part in parts if part.training]
    with Bar("Planning", len(trained) + 1) as bar:
        scoring = _scoring(parts[0], tokenizer, shards)
        bar.advance("scoring")
        trainings = []
        for part in trained:
            try:
                trainings.append(_training(part, tokenizer, seen, shards))
            except UserError as error:
                say(f"{part.name} would fail: {error}")
            bar.advance(part.name)
    return trainings, scoring


def _training(
    part: Part, tokenizer: Encoder, seen: Collection[str] | None, shards: int
) -> Training:
    assert part.training
    config, start = part.training.config, time.monotonic()
    batches = batches_lib.plan_run(config, tokenizer, shards)
    watched = probe_batches.plan_probes(config, tokenizer, batches.dataset, seen, shards)
    report = data_report.training_report(batches, datasets.suite(config.data), config.data)
    seconds = time.monotonic() - start
    probes, probe = 0, None
    if watched:
        probes, probe = watched.num_batches, watched.shape
    return Training(part.name, batches, seconds, probes, probe, report)


def _scoring(part: Part, tokenizer: Encoder, shards: int) -> Scoring:
    config, start = part.scoring.config, time.monotonic()
    grid = settings_lib.all_cells(config)
    cells = [items_lib.pack_cell(cell, tokenizer, config, shards) for cell in grid]
    report = data_report.evaluation_report(part.name, cells, config, None)
    return Scoring(cells, time.monotonic() - start, report)
