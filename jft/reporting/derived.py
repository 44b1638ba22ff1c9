"""Pairs made of other pairs: by further metrics, and against the base at its best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jft.evaluation import metrics
from jft.reporting.models import ScoredCell
from jft.reporting.pairs import Pair
from jft.tasks import PROMPTS, RETENTION


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
        if cell.likeliest and cell.likeliest.keys() == other.likeliest.keys():
            found.append(Pair(*_divergence(cell, other), model))
    return found


def main_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Leave out the cells that have no part in an answer: the prompts of tasks, read as texts."""
    return [pair for pair in pairs if pair.cell.key.task != PROMPTS]


def _divergence(cell: ScoredCell, other: ScoredCell) -> tuple[ScoredCell, ScoredCell]:
    """Make cells by how far each item's next tokens went from the base's, for which that is 0."""
    kl = [
        [metrics.kl_divergence(p, q) for p, q in zip(other.likeliest[i], now, strict=True)]
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

    The number is chosen for each dataset by its main metric, for one half of the items (those with
    an even, those with an odd index) by what it scores on the other: chosen on the items that it is
    compared on, the best of several numbers would look better than it is. There are none where the
    base was scored at one number of shots only.
    """
    shots: dict[tuple, dict[int, ScoredCell]] = {}
    for cell, other, _ in pairs:
        if other and not other.key.draw and cell.relation != RETENTION:
            shots.setdefault(_place(other), {})[other.key.shots] = other
    return [
        Pair(cell, best, model)
        for cell, other, model in pairs
        if other and not cell.key.shots and len(shots.get(_place(other), ())) > 1
        if (best := _best_of_shots(list(shots[_place(other)].values()))).items.keys()
        == cell.items.keys()
    ]


def _place(cell: ScoredCell) -> tuple:
    return cell.key.task, cell.key.dataset, cell.key.prompt


def _best_of_shots(cells: list[ScoredCell]) -> ScoredCell:
    """Make a cell of the best for each half of the items, by what it scores on the other half."""
    common = sorted(set.intersection(*(set(cell.items) for cell in cells)))

    def score(cell: ScoredCell, half: int) -> float:
        return sum(cell.items[i].value for i in common if i % 2 == half)

    best = [max(cells, key=lambda cell: score(cell, 1 - half)) for half in (0, 1)]
    return dataclasses.replace(best[0], items={i: best[i % 2].items[i] for i in common})
