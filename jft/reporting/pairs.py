"""Comparisons: models against a reference, on the items that both were scored on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from jft.errors import UserError
from jft.evaluation import metrics, stats
from jft.reporting.comparison import Comparison
from jft.reporting.constant_answers import with_one_label, without_room
from jft.reporting.models import ScoredCell, ScoredModel
from jft.runtime.records import Key
from jft.tasks import GENERATED, RELATIONS

_ORDER = ("base", *RELATIONS)


class Pair(NamedTuple):
    """A model's cell and the reference's, with the same items; None where it has none."""

    cell: ScoredCell
    other: ScoredCell | None
    model: ScoredModel


# Choices that a mean is over besides items, datasets and shots: how much does it depend on them?
# Each has levels, and a pair is at one level of each. Example: the pair of a model of seed 3, whose
# cell has prompt 1 and draw 0, is at {"prompts": 1, "seeds": 3, "draws": 0}.
CHOICES: dict[str, Callable[[Pair], int]] = {
    "prompts": lambda pair: pair.cell.key.prompt,
    "seeds": lambda pair: pair.model.seed,
    "draws": lambda pair: pair.cell.key.draw,
}


def pair_cells(
    model: ScoredModel,
    name: str | None,
    reference: dict[Key, ScoredCell],
    same_request: bool = True,
) -> list[Pair]:
    """Pair each cell with the reference's, both cut down to the items that both have.

    Args:
      model: of the cells.
      name: of the reference.
      reference: its cells.
      same_request: whether both must have been asked in the same words.

    Raises:
      UserError: the model and the reference, called `name`, were asked different things.
    """
    pairs = []
    for key, cell in sorted(model.cells.items(), key=lambda pair: _order(pair[1])):
        other = reference.get(key)
        cell, alike = cell.by_common_metric(other)
        common = sorted(cell.items.keys() & alike.items.keys()) if alike else []
        if not alike or not common:
            pairs.append(Pair(cell, None, model))
            continue
        _check_same_items(model, name, cell, alike, common, same_request)
        pairs.append(Pair(_only(cell, common), _only(alike, common), model))
    return pairs


def split(pairs: Iterable[Pair], by: Callable[[ScoredCell], Any]) -> list[list[Pair]]:
    """Group pairs by what `by` makes of their cells; groups are in the order of that.

    Example: three cells at 2, 0 and 2 shots, split by `cell.key.shots`, give two groups: the one
    at 0 shots, and then the two at 2 shots.
    """
    groups: dict = {}
    for each in pairs:
        groups.setdefault(by(each.cell), []).append(each)
    return [groups[key] for key in sorted(groups)]


def compare_at(
    level: str, model: str, reference: str | None, pairs: Sequence[Pair]
) -> list[Comparison]:
    """Compare at a level of detail: by relation, by dataset, or cell by cell.

    Levels `relation`, `contrast` and `measure` have, for each relation and metric, the comparison
    over all shots first, and then one for each number of shots.
    """
    found = []
    for group in split(pairs, _COMPARED_TOGETHER[level]):
        whole = comparison(level, model, reference, group)
        found.append(whole)
        if level in ("relation", "contrast", "measure", "asked"):
            by_shots = split(group, lambda cell: cell.key.shots)
            parts = [comparison(level, model, reference, part) for part in by_shots]
            # Where the reference has one number of shots only, the whole is that part.
            found += [part for part in parts if part.shots != whole.shots]
    return found


def comparison(level: str, model: str, reference: str | None, pairs: Sequence[Pair]) -> Comparison:
    """Compare the means over some cells; those without a reference count if none has one."""
    paired = [each for each in pairs if each.other]
    used = paired or list(pairs)
    columns = _Columns(used)
    first = used[0].cell
    difference = recipe = reference_value = None
    if paired:
        others = columns.of(columns.others)
        difference = stats.paired_difference(columns.values, others)
        recipe = stats.recipe_difference(columns.values, others, columns.seeds, columns.recipes)
        reference_value = stats.grouped_mean(others)
    wide, one_label = level not in ("dataset", "cell"), with_one_label([p.cell for p in used])
    known = {name: _spread(used, name) for name in CHOICES} if paired and wide else {}
    return Comparison(
        level=level,
        model=model,
        reference=reference if paired else None,
        relation=first.relation,
        metric=first.metric,
        **_common([each.cell.key for each in used], wide),
        value=stats.grouped_mean(columns.of(columns.values)),
        reference_value=reference_value,
        difference=difference,
        recipe=recipe,
        floor=without_room([pair.other for pair in paired if pair.other]),
        one_label=one_label,
        blind=len(one_label) == len(set(columns.datasets)),
        spreads={name: spread for name, spread in known.items() if spread},
        p_holm=None,
        changed=_share_changed(paired) if paired else None,
        empty=_share_empty(used) if metrics.kind_of(first.metric) in GENERATED else None,
        n=len(set(zip(columns.datasets, columns.items, strict=True))),
    )


def _share_empty(pairs: Sequence[Pair]) -> float:
    empty = [not item.prediction for pair in pairs for item in pair.cell.items.values()]
    return sum(empty) / len(empty)


def _share_changed(pairs: Sequence[Pair]) -> float:
    changed = [
        item.prediction != other.items[index].prediction
        for cell, other, _ in pairs
        if other
        for index, item in cell.items.items()
    ]
    return sum(changed) / len(changed)


def by_relation(cell: ScoredCell) -> tuple:
    """Return what cells of one relation and metric have in common, in the order of a report."""
    return (_ORDER.index(cell.relation), cell.metric)


def _order(cell: ScoredCell) -> tuple:
    return (_ORDER.index(cell.relation), *cell.key)


_COMPARED_TOGETHER: dict[str, Callable[[ScoredCell], Any]] = {
    "group": by_relation,
    "relation": by_relation,
    "contrast": by_relation,
    "measure": by_relation,
    "prompting": by_relation,
    "asked": by_relation,
    "dataset": lambda cell: (*_order(cell)[:3], cell.key.shots > 0),
    "cell": _order,
}


class _Columns:
    """The items of some pairs, a list for each of their properties."""

    def __init__(self, pairs: Sequence[Pair]):
        self.values: list[float] = []
        self.others: list[float] = []
        self.items: list[int] = []
        self.datasets: list[str] = []
        self.conditions: list[str] = []
        self.recipes: list[str] = []
        self.seeds: list[int] = []
        self.limit = math.inf if metrics.METRICS[pairs[0].cell.metric].unit else 1.0
        for cell, other, model in pairs:
            n, recipe = len(cell.items), f"{model.recipe_and_step}"
            self.values += [item.value for item in cell.items.values()]
            self.others += [item.value for item in other.items.values()] if other else []
            self.items += cell.items
            self.datasets += [f"{cell.key.task}/{cell.key.dataset}"] * n
            self.conditions += [f"{cell.key.shots} {recipe}"] * n
            self.recipes += [recipe] * n
            self.seeds += [model.seed] * n

    def of(self, values: list[float]) -> stats.Items:
        """Say of values, one for each row, where they belong."""
        return stats.Items(values, self.items, self.datasets, self.conditions, self.limit)


def _spread(pairs: Sequence[Pair], name: str) -> stats.Spread | None:
    """Measure the spread of the difference over a choice, on cells that have all its levels.

    Cells without demonstrations are the same at every draw, so they stand at each of its levels.
    """
    level_of = CHOICES[name]
    drawn = [bool(each.cell.key.shots) or name != "draws" for each in pairs]
    levels = sorted({level_of(each) for each, chosen in zip(pairs, drawn, strict=True) if chosen})
    if len(levels) < 2:
        return None
    placed = [
        (level, each)
        for each, chosen in zip(pairs, drawn, strict=True)
        for level in ([level_of(each)] if chosen else levels)
    ]
    found: dict[tuple, set[int]] = {}
    for level, each in placed:
        found.setdefault(_all_but(name, each), set()).add(level)
    whole = [(level, p) for level, p in placed if len(found[_all_but(name, p)]) == len(levels)]
    if not whole:
        return None
    columns = _Columns([each for _, each in whole])
    changes = [value - other for value, other in zip(columns.values, columns.others, strict=True)]
    return stats.spread(columns.of(changes), [level for level, p in whole for _ in p.cell.items])


def _all_but(name: str, pair: Pair) -> tuple:
    """List all that tells a pair from others, except one choice: equal at all levels of that.

    Example: with "prompts" for the choice, prompts 0 and 1 of films at 2 shots give the same, and
    films at 0 shots gives another.
    """
    key, others = pair.cell.key, [of(pair) for other, of in CHOICES.items() if other != name]
    return (*pair.model.recipe_and_step, key.task, key.dataset, key.shots, *others)


def _common(keys: list[Key], wide: bool) -> dict:
    """Find the fields in which all keys agree, and None for the others.

    Example: films at 0 and at 2 shots, both with prompt 1 and draw 0, have in common the task, the
    dataset, prompt 1 and draw 0, and None for shots. A wide comparison, by relation, is of no one
    dataset: its task and dataset are None even where it has just one.
    """
    fields = ("shots", "prompt", "draw") + (() if wide else ("task", "dataset"))
    values = {name: {getattr(key, name) for key in keys} for name in fields}
    common = {name: found.pop() if len(found) == 1 else None for name, found in values.items()}
    return {"task": None, "dataset": None} | common


def _check_same_items(
    model: ScoredModel,
    name: str | None,
    cell: ScoredCell,
    other: ScoredCell,
    common: list[int],
    same_request: bool,
) -> None:
    for index in common:
        one, two = cell.items[index], other.items[index]
        if one.gold != two.gold:
            raise UserError(
                f"{cell.key}: item {index} has the gold output {one.gold!r} for {model.name} and "
                f"{two.gold!r} for {name}; score both on the same data.root"
            )
        if same_request and one.request != two.request:
            raise UserError(
                f"{cell.key}: item {index} was put to {model.name} in other words than to {name}: "
                "the data, the template, the demonstrations, data.answer_tokens or a limit "
                "(max_length, max_new_tokens) have changed; score both with the same"
            )


def _only(cell: ScoredCell, indices: list[int]) -> ScoredCell:
    place = {index: i for i, index in enumerate(cell.items)}
    measures = {name: [values[place[i]] for i in indices] for name, values in cell.measures.items()}
    items = {i: cell.items[i] for i in indices}
    likeliest = {i: cell.likeliest[i] for i in indices if i in cell.likeliest}
    return dataclasses.replace(cell, items=items, measures=measures, likeliest=likeliest)
