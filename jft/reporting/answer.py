"""The answer of a report in words: what is better, what is worse, what is open, what to do next."""

from __future__ import annotations

import math

from jft.evaluation.metrics import BITS, CHOICES, FOLLOWED, METRICS
from jft.evaluation.stats import MIN_TRAININGS
from jft.reporting.compare import Report, TaskGroup
from jft.reporting.comparison import Comparison
from jft.reporting.wording import (
    ARROW,
    SPACE,
    alternatives,
    ends,
    interval,
    metric,
    overall,
    p_value,
    percent,
    points,
    spreads,
    together,
    unit_of,
)
from jft.tasks import IN_DOMAIN, RETENTION

CANNOT_TELL = "cannot tell"
DECIDED = ("better", "worse")
# Share of empty answers that is worth a word.
EMPTY = 0.1
# The part of the retention panel behind each of its metrics.
PARTS = {BITS: "text", CHOICES: "choice", FOLLOWED: "instruction"}


def scope(report: Report) -> str:
    """Say whether the answer is about checkpoints or about their recipes."""
    groups: list[TaskGroup] = [*report.groups, *report.contrast_groups]
    judged = [c for group in groups for c in group.answer]
    recipes = [c for c in judged if c.recipe]
    if not judged:
        return "Nothing was compared with a base."
    if judged and len(recipes) == len(judged):
        return (
            "Each recipe was trained several times: verdicts are about the recipe, whatever the "
            "seed of its training."
        )
    few = "Some recipes were" if recipes else "Each recipe was"
    return (
        f"{few} trained fewer than {MIN_TRAININGS} times: such verdicts are about these "
        "checkpoints, not about what another seed would give (study.seeds=0,1,2 would tell)."
    )


def verdict(comparisons: list[Comparison], margin: float) -> str:
    """Sum up, in at most three sentences: what is better, what is worse, and what is neither."""
    judged = [c for c in overall(comparisons) if c.judged]
    places: dict[str, list[Comparison]] = {}
    for c in judged:
        places.setdefault(_judgement(c, margin), []).append(c)
    named = {judgement: _places(found, judged) for judgement, found in places.items()}
    decided = [f"{word.capitalize()} {named.pop(word)}." for word in DECIDED if word in named]
    rest = "; ".join(f"{judgement} {where}" for judgement, where in named.items())
    return " ".join([*decided, *([rest[0].upper() + rest[1:] + "."] if rest else [])]) or (
        "No base to compare with."
    )


def _places(found: list[Comparison], among: list[Comparison]) -> str:
    """Name relations, with their metrics where there are several: `retention (bits, choices)`."""
    names = []
    for relation in dict.fromkeys(c.relation for c in found):
        found_metrics = [metric(c.metric) for c in found if c.relation == relation]
        several = sum(c.relation == relation for c in among) > 1
        where = f"in {relation}" if relation == RETENTION else relation
        names.append(where + f" ({together(found_metrics)})" * several)
    return together(names)


def advice(group: TaskGroup, margin: float) -> list[str]:
    """Say what to do next, by what was found; nothing of models that others trained and scored."""
    first = group.members[0]
    if group.contrasts or first.first.train is None:
        return []
    judged = [c for c in overall(group.answer) if c.judged]
    better, worse = ([c for c in judged if _judgement(c, margin) == w] for w in DECIDED)
    blind = [c for c in judged if direction(c) > 0 and c.blind]
    open_ones = [c for c in judged if _judgement(c, margin) == CANNOT_TELL]
    found = []
    if worse:
        ways = ["a lower optim.lr", "fewer steps"]
        ways += [] if first.first.adapters else ["adapters (configs/lora.py)"]
        ways += [] if first.first.train_shots else ["demonstrations in training (data.shots)"]
        found.append(f"To lose less {_places(worse, judged)}: {alternatives(ways)}.")
    if blind:
        found.append(
            f"To learn more than one label {_places(blind, judged)}: another optim.lr, more steps, "
            "or a look at the findings about the data."
        )
    for c in open_ones:
        part = PARTS.get(c.metric) if c.relation == RETENTION else None
        source = f"eval.retention={part}:FILE" if part else "eval.limit"
        seeds = " or more seeds (study.seeds)" if c.recipe else ""
        found.append(
            f"To decide {_places([c], judged)}: some {_items_needed(c, margin):,} items ({source})"
            f"{seeds}, or accept what the interval allows."
        )
    if judged and not any(c.recipe for c in judged):
        found.append(
            "To speak of the recipe, not of this training: study.seeds=0,1,2 in jft.study."
        )
    elsewhere = any(c.relation != IN_DOMAIN for c in judged)
    if judged and not elsewhere:
        found.append(
            "What was lost elsewhere was not measured: score sets of other tasks and the retention "
            "panel (eval.retention) before you deploy."
        )
    elif better and not worse and not open_ones:
        found.append("Nothing was lost here: jft.export makes a folder to deploy.")
    return found


def sentence(comparison: Comparison, margin: float) -> str:
    """Put a comparison in a sentence, with its intervals and what the sample cannot rule out."""
    c, name = comparison, metric(comparison.metric)
    if c.difference is None or c.judged is None:
        value = percent(c.value, c.metric)
        return f"{c.relation.capitalize()}: {name} {value}; no base to compare with."
    before, after = (percent(value, c.metric) for value in (c.reference_value, c.value))
    change = points(c.difference.value, metric=c.metric)
    size = f"{change} {unit_of(c.metric)}, 95{SPACE}% interval {ends(c.difference, c.metric)}"
    if c.recipe:
        size += f", of the recipe {ends(c.recipe, c.metric)} over {c.recipe.trainings} trainings"
    blank = f"; {percent(c.empty)} of the answers are empty" if c.empty and c.empty > EMPTY else ""
    others = f"{blank}; {percent(c.changed)} of the answers differ" if c.changed else ""
    text = (
        f"{c.relation.capitalize()}: {name} {before} {ARROW} {after} ({size}; n = {c.n}"
        f"{spreads(c)}{others})."
    )
    floor = (_floor(c.stands_for) if c.stands_for else "") + _one_label(c)
    if c.decided:
        skewed = " Most items went the other way; a few large changes decide." * c.judged.is_skewed
        return f"{text}{skewed}{floor}"
    return f"{text} {_unsaid(c, margin)}{floor}"


def _floor(c: Comparison) -> str:
    """Say why accuracy is not judged, and what it was."""
    who = c.reference if c.level == "group" and c.reference == "FT" else "the base"
    return (
        f" Accuracy ({percent(c.reference_value)} {ARROW} {percent(c.value)}, {interval(c)}) has "
        f"no room to fall: on {together(list(c.floor))} {who} may do no better than one label "
        "for every item."
    )


def _one_label(c: Comparison) -> str:
    """Say where a model gives the same answer whatever it is asked."""
    found = [f"{name} ({label})" for name, label in c.one_label.items()]
    return f" It gives one label to almost every item of {together(found)}." if found else ""


def _unsaid(c: Comparison, margin: float) -> str:
    """Say what a sample that decides nothing leaves open, and how many items would decide it."""
    judged = c.judged
    assert judged
    loss, gain = _loss_and_gain(c)
    open_to = [
        f"a {what} of up to {points(end, False, c.metric)} {unit_of(c.metric)}"
        for what, end in (("loss", loss), ("gain", gain))
        if end > margin
    ]
    if not open_to:
        return f"No change above {_margin(margin, c.metric)}."
    alone = ""
    if c.p_holm is not None and judged.significant:
        alone = (
            "Alone it would count as a change; among all rows of the answer it may be chance "
            f"(p {p_value(c.p_holm)} after Holm's adjustment). "
        )
    what = "items (or more trainings)" if c.recipe else "items"
    effect = points(_effect(c, margin), False, c.metric)
    return (
        f"{alone}The sample cannot rule out {' or '.join(open_to)}; about "
        f"{_items_needed(c, margin):,} {what} would find a change of {effect} {unit_of(c.metric)}."
    )


def _loss_and_gain(c: Comparison) -> tuple[float, float]:
    """Find the largest loss and the largest gain that the interval holds."""
    judged = c.judged
    assert judged
    better_up = METRICS[c.metric].direction >= 0
    return (-judged.low, judged.high) if better_up else (judged.high, -judged.low)


def _effect(c: Comparison, margin: float) -> float:
    """Return the change that more items should find: the one seen, or the least that matters."""
    assert c.judged
    return max(abs(c.judged.value), margin, 0.001)  # a tenth of a point, the least that is shown


def _items_needed(c: Comparison, margin: float) -> int:
    assert c.judged
    return math.ceil(c.n * (c.judged.detectable / _effect(c, margin)) ** 2 / 10) * 10


def _margin(margin: float, metric: str) -> str:
    return f"{points(margin, False, metric)} {unit_of(metric)}"


def direction(c: Comparison) -> int:
    """Return the direction of a change, 0 where that is 0.0 in tables."""
    seen = c.change is not None and float(points(c.change, False, c.metric)) > 0
    return c.direction if seen else 0


def _judgement(comparison: Comparison, margin: float) -> str:
    loss, gain = _loss_and_gain(comparison)
    if towards := direction(comparison):
        word = DECIDED[0 if towards > 0 else 1]
        if max(loss, gain) < margin:
            return f"{word}, but by less than {_margin(margin, comparison.metric)},"
        blind = towards > 0 and comparison.blind
        return f"{word}, but with one label for almost every item," if blind else word
    if loss < margin:
        what = "change" if gain < margin else "loss"
        return f"no {what} above {_margin(margin, comparison.metric)}"
    return CANNOT_TELL
