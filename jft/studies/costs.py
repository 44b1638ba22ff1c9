"""What a study takes: its tokens, exactly, and the arithmetic that its time depends on."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass

from jft.data import batches as batches_lib
from jft.data import data_report, probe_items, sources
from jft.data import items as items_lib
from jft.data import settings as settings_lib
from jft.data.batches import Batches
from jft.data.items import Items
from jft.data.probe_items import ProbeItems
from jft.data.prompts import Encoder
from jft.errors import UserError
from jft.evaluation import decoding
from jft.model import flops
from jft.model.decoder import DecoderConfig
from jft.progress import Bar, say
from jft.studies.parts import Part

# A training step computes forward once and backward twice.
PASSES = 3


@dataclass(frozen=True, slots=True)
class Training:
    """The training of one model.

    Attributes:
      name: of its part.
      batches: the planned run.
      seconds: that planning took, as it will again.
      watched: the items of its probes.
      report: on its data, as `data_report.training` gives it.
    """

    name: str
    batches: Batches
    seconds: float
    watched: ProbeItems
    report: dict

    def flops(self, config: DecoderConfig, shards: int, micro_batch_tokens: int) -> float:
        """Of all steps, padding included."""
        rows = self.batches.micro_rows(shards, micro_batch_tokens)
        micro_batches = sum(math.ceil(len(plan.rows) / rows) for plan in self.batches.plans)
        shape = (rows, self.batches.row_length, self.batches.num_entries)
        return PASSES * micro_batches * flops.forward(config, *shape)

    def probe_flops(self, config: DecoderConfig, every: int) -> float:
        """Of all probes, `every` so many steps and at both ends; their heads left out."""
        steps = set(range(0, self.batches.steps, every) if every else (0,)) | {self.batches.steps}
        rows = len(self.watched.rows)
        return len(steps) * flops.forward(config, rows, self.watched.row_length, 0)


@dataclass(frozen=True, slots=True)
class Scoring:
    """The cells that each model is scored on.

    Attributes:
      cells: planned.
      seconds: that planning took, as it will again for every model.
      report: on their data, as `data_report.evaluation` gives it.
    """

    cells: list[Items]
    seconds: float
    report: dict

    @property
    def prompts(self) -> int:
        """Texts to generate."""
        return sum(len(cell.encoded) for cell in self.cells if generates(cell))


def generates(cell: Items) -> bool:
    """Whether the model is to go on from the prompts, rather than to score labels."""
    return not cell.setting.dataset.task.labels


def forward_flops(cell: Items, config: DecoderConfig, num_rows: int) -> float:
    """Of a cell's forward passes, `num_rows` rows each."""
    rows = math.ceil(len(cell.rows) / num_rows) * num_rows
    return flops.forward(config, rows, cell.row_length, 0 if generates(cell) else cell.num_entries)


def decoding_flops(cell: Items, config: DecoderConfig, num_rows: int, shards: int) -> float:
    """Of one new token for all prompts of a cell, in groups as they are decoded."""
    size = decoding.group_size(cell, num_rows, shards) * num_rows
    groups = [cell.rows[i : i + size] for i in range(0, len(cell.rows), size)]
    prompts = sum(decoding.padded(sum(map(len, group)), shards) for group in groups)
    return flops.decoding_step(config, prompts, cell.row_length)


def plan(
    parts: list[Part], tokenizer: Encoder, seen: Collection[str] | None
) -> tuple[list[Training], Scoring]:
    """Plan all trainings, and the cells that every model is scored on.

    A training that cannot be planned is named, and left out: in the study it will fail.
    """
    trained = [part for part in parts if part.training]
    with Bar("Planning", len(trained) + 1) as bar:
        scoring = _scoring(parts[0], tokenizer)
        bar.advance("scoring")
        trainings = []
        for part in trained:
            try:
                trainings.append(_training(part, tokenizer, seen))
            except UserError as error:
                say(f"{part.name} would fail: {error}")
            bar.advance(part.name)
    return trainings, scoring


def _training(part: Part, tokenizer: Encoder, seen: Collection[str] | None) -> Training:
    assert part.training
    config, start = part.training.config, time.monotonic()
    batches = batches_lib.plan(config, tokenizer)
    watched = probe_items.plan(config, tokenizer, batches.dataset, seen)
    report = data_report.training(batches, sources.suite(config.data), config.data)
    seconds = time.monotonic() - start
    return Training(part.name, batches, seconds, watched, report)


def _scoring(part: Part, tokenizer: Encoder) -> Scoring:
    config, start = part.scoring.config, time.monotonic()
    cells = [items_lib.plan(cell, tokenizer, config) for cell in settings_lib.settings(config)]
    report = data_report.evaluation(part.name, cells, config, None)
    return Scoring(cells, time.monotonic() - start, report)
