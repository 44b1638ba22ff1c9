"""Pairs made of other pairs: by further metrics, against the base at its best, and as chats."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from jft.evaluation import measures, metrics
from jft.reporting import pairs as pairs_lib
from jft.reporting.models import ScoredCell, ScoredModel, merge_cells
from jft.reporting.pairs import Pair
from jft.tasks import PROMPTS, RETENTION

# Parts of the items, for each of which the others choose.
PARTS = 10


def measured(pairs: Sequence[Pair]) -> list[Pair]:
    """Take pairs by each of the further metrics that both cells have, and by those of two models.

    Where texts are prompts, all their metrics are further ones.
    """
    found = []
    for cell, other, model in pairs:
        if other is None:
            continue
        if cell.key.task == PROMPTS:
            found.append(Pair(cell, other, model))
        found += [
            Pair(cell.by(n), other.by(n), model) for n in cell.measures if n in other.measures
        ]
        if cell.likeliest and _places(cell) == _places(other):
            found.append(Pair(*_divergence(cell, other), model))
    return found


def _places(cell: ScoredCell) -> dict[int, int]:
    """Count the places of each text at which the next token's distribution is known."""
    return {index: len(places) for index, places in cell.likeliest.items()}


def main_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Leave out the cells that have no part in an answer: the prompts of tasks, read as texts."""
    return [pair for pair in pairs if pair.cell.key.task != PROMPTS]


def _divergence(cell: ScoredCell, other: ScoredCell) -> tuple[ScoredCell, ScoredCell]:
    """Make cells by how far each item's next tokens went from the base's, for which that is 0."""
    kl = [
        [measures.kl_divergence(p, q) for p, q in zip(other.likeliest[i], now, strict=True)]
        for i, now in cell.likeliest.items()
    ]
    means = [sum(values) / len(values) for values in kl]
    one, two = (
        dataclasses.replace(each, measures={metrics.KL: values}).by(metrics.KL)
        for each, values in ((cell, means), (other, [0.0] * len(means)))
    )
    return one, two


def best_prompted(pairs: Sequence[Pair]) -> list[Pair]:
    """Pair models without demonstrations with their base at the number of shots that suits it best.

    The number is chosen for each dataset, and for a tenth of its items by what it scores on the
    others: chosen on the items that it is compared on, the best of several numbers would look
    better than it is. There are none where the base was scored at one number of shots only.
    """
    shots: dict[tuple, dict[int, ScoredCell]] = {}
    for cell, other, _ in pairs:
        if other and not other.key.draw and cell.relation != RETENTION:
            shots.setdefault(_place(other), {})[other.key.shots] = other
    found = []
    for cell, other, model in pairs:
        choices = shots.get(_place(other), {}) if other and not cell.key.shots else {}
        if len(choices) > 1:
            best = _best_of_shots([choices[number] for number in sorted(choices)])
            if best.items.keys() == cell.items.keys():
                found.append(Pair(cell, best, model))
    return found


def asked_as_chat(
    models: Sequence[ScoredModel],
) -> list[tuple[ScoredModel, ScoredModel, list[Pair]]]:
    """Pair models asked as chats with the same models asked in plain text.

    The datasets of a base relate to training as those of the tuned models of the report do, as far
    as these agree.
    """
    found = []
    for model in models:
        plain = [m for m in models if not m.chat and m.sha256 == model.sha256] if model.chat else []
        for other in plain:
            reference = merge_cells([other])
            pairs = main_pairs(pairs_lib.pair_cells(model, other.name, reference, False))
            related = [
                pair._replace(cell=_related(pair.cell, models))
                for pair in pairs
                if pair.other and _asked_otherwise(pair.cell, pair.other)
            ]
            if related:
                found.append((model, other, related))
    return found


def _asked_otherwise(cell: ScoredCell, other: ScoredCell) -> bool:
    """Check whether two cells were asked differently: texts to read are not, nor conversations."""
    return any(item.request != other.items[i].request for i, item in cell.items.items())


def _related(cell: ScoredCell, models: Sequence[ScoredModel]) -> ScoredCell:
    place = cell.key.task, cell.key.dataset
    known = {
        each.relation
        for model in models
        for key, each in model.cells.items()
        if (key.task, key.dataset) == place and each.relation != "base"
    }
    if cell.relation != "base" or len(known) != 1:
        return cell
    return dataclasses.replace(cell, relation=known.pop())


def gold_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Take pairs by the probability of the gold label."""
    return [
        Pair(cell.by(metrics.P_GOLD), other.by(metrics.P_GOLD), model)
        for cell, other, model in pairs
        if other and metrics.P_GOLD in cell.measures and metrics.P_GOLD in other.measures
    ]


def _place(cell: ScoredCell) -> tuple:
    return cell.key.task, cell.key.dataset, cell.key.prompt


def _best_of_shots(cells: list[ScoredCell]) -> ScoredCell:
    """Make a cell of the best for each part of the items, the first of those that are alike."""
    common = sorted(set.intersection(*(set(cell.items) for cell in cells)))
    part = {item: place % PARTS for place, item in enumerate(common)}

    def best(left_out: int) -> ScoredCell:
        others = [i for i in common if part[i] != left_out] or common
        sign = metrics.METRICS[cells[0].metric].direction or 1
        return max(cells, key=lambda cell: sign * math.fsum(cell.items[i].value for i in others))

    chosen = [best(number) for number in range(PARTS)]
    items = {i: chosen[part[i]].items[i] for i in common}
    return dataclasses.replace(cells[0], items=items)
