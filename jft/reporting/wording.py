"""Numbers, names and sentences of the report, the same in every format."""

from __future__ import annotations

import math

from jft.evaluation.metrics import METRICS
from jft.evaluation.stats import ALPHA, MIN_TRAININGS, Difference
from jft.reporting.compare import Contrast, Recipe, Report, TaskGroup
from jft.reporting.models import ModelName
from jft.reporting.pairs import Comparison
from jft.runtime.progress import count
from jft.tasks import IN_DOMAIN, OUT_OF_DOMAIN, OUT_OF_TASK, RELATIONS

MINUS, DASH, SPACE = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"
ARROW, PLUS_MINUS = "\N{RIGHTWARDS ARROW}", "\N{PLUS-MINUS SIGN}"
GUIDE = (
    (IN_DOMAIN, "test rows of the dataset that the model was trained on"),
    (OUT_OF_DOMAIN, "other datasets of the same task"),
    (OUT_OF_TASK, "datasets of other tasks"),
    ("FT, FTICL-k", "trained on plain examples, or with k demonstrations before every example"),
    ("shots", "demonstrations before a test item; k-shot scores of a model need no training"),
    (
        "P(gold)",
        "the probability that a model gives the right label, among all texts; it is judged where "
        "accuracy has no room to fall, since the base does no better than one label for all items",
    ),
    (
        "no loss above",
        "the interval holds no loss larger than the margin (--margin, in points): a smaller one "
        "may be there",
    ),
    ("change", "tuned minus base on the same items, in percentage points"),
    (
        "95 % interval",
        "where the true change lies, going by these items; a change is coloured where it leaves "
        f"out zero, which is where p is below {ALPHA}",
    ),
    (
        "p (Holm)",
        "how surprising the change would be if there were none, made stricter for the number of "
        f"comparisons in its table; bold where below {ALPHA}",
    ),
    ("detectable", "the true change that a sample of this size would find four times out of five"),
    (
        "prompts, seeds, draws",
        "how much the change moves with another prompt, training seed or set of demonstrations "
        "(standard deviation), the noise of the items taken out",
    ),
)
LEGEND = (
    f"A change counts as better or worse where p (Holm), adjusted for all rows, is below {ALPHA}; "
    "intervals are of each row alone."
)


def percent(value: float | None) -> str:
    """Write 0.6104 as `61.0 %`."""
    return DASH if value is None or math.isnan(value) else f"{_rounded(value)}{SPACE}%"


def points(value: float | None, signed: bool = True) -> str:
    """Write 0.27 as `+27.0`, and -0.012 with a true minus sign; `signed=False` leaves out both."""
    if value is None or math.isnan(value):
        return DASH
    text = _rounded(abs(value))
    sign = "" if float(text) == 0 or not signed else "+" if value > 0 else MINUS
    return sign + text


def interval(comparison: Comparison) -> str:
    """Write the interval that a change is judged by, in points: `+19.0 to +35.0`."""
    return _ends(comparison.judged) if comparison.judged else DASH


def _ends(difference: Difference) -> str:
    return f"{points(difference.low)} to {points(difference.high)}"


def is_strong(comparison: Comparison) -> bool:
    """Check whether a change stands after the adjustment for its table; it is bold everywhere."""
    return comparison.p_holm is not None and comparison.p_holm < ALPHA


def p_value(p: float | None) -> str:
    """Write three decimals, or an upper bound."""
    return DASH if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def metric(name: str) -> str:
    """Name a metric as prose does."""
    return METRICS[name].title if name in METRICS else name


def shots(comparison: Comparison) -> str:
    """Write the number of demonstrations before each item, or `all`."""
    return "all" if comparison.shots is None else str(comparison.shots)


def training(recipe: Recipe) -> str:
    """Describe a training: `FTICL with 2 demonstrations on gadgets (400 examples, 3 seeds)`."""
    model = recipe.first
    shots = f" with {count(model.train_shots, 'demonstration')}" if model.train_shots else ""
    details = [f"{model.examples} examples"] if model.examples else []
    details += [f"{recipe.seeds} seeds"] if recipe.seeds > 1 else []
    return f"{recipe.kind_with_adapters}{shots} on {model.train}" + (
        f" ({', '.join(details)})" * bool(details)
    )


def title(group: TaskGroup) -> str:
    """Describe what was trained, with its name where that says more."""
    first, *others = group.members
    if others:
        what = "contrast" if isinstance(first, Contrast) else "model"
        return f"{group.name} ({count(len(group.members), what)})"
    if isinstance(first, Contrast):
        return first.name
    model, described = first.first, training(first)
    plain = str(ModelName(f"{first.trained_as} {model.train}", model.own_name.limit))
    return described if first.name in (plain, described) else f"{first.name}: {described}"


def overall(comparisons: list[Comparison]) -> list[Comparison]:
    """Find the comparison over all shots, the first one, of each relation and metric."""
    first: dict[tuple, Comparison] = {}
    for comparison in comparisons:
        first.setdefault((comparison.relation, comparison.metric), comparison)
    return sorted(first.values(), key=lambda c: (RELATIONS.index(c.relation), c.metric))


def scope(report: Report) -> str:
    """Say whether the answer is about checkpoints or about their recipes."""
    groups: list[TaskGroup] = [*report.groups, *report.contrast_groups]
    judged = [c for group in groups for c in group.answer]
    recipes = [c for c in judged if c.recipe]
    if judged and len(recipes) == len(judged):
        return (
            "Each recipe was trained several times: verdicts are about the recipe, and would hold "
            "of another training."
        )
    few = "Some recipes were" if recipes else "Each recipe was"
    return (
        f"{few} trained fewer than {MIN_TRAININGS} times: such verdicts are about these "
        "checkpoints, not about what another seed would give (study.seeds=0,1,2,3,4 would tell)."
    )


def verdict(comparisons: list[Comparison], margin: float) -> str:
    """Sum up: `better in-domain, worse out-of-task, cannot tell out-of-domain`."""
    judged = [c for c in overall(comparisons) if c.judged]
    relations = [c.relation for c in judged]
    places: dict[str, list[str]] = {}
    for c in judged:
        several = relations.count(c.relation) > 1
        place = c.relation + f" ({metric(c.metric)})" * several
        places.setdefault(_judgement(c, margin), []).append(place)
    parts = [f"{judgement} {_together(found)}" for judgement, found in places.items()]
    return ", ".join(parts) or "no base to compare with"


def sentence(comparison: Comparison, margin: float) -> str:
    """Put a comparison in a sentence, with its intervals and what the sample cannot rule out."""
    c, name = comparison, metric(comparison.metric)
    if c.difference is None or c.judged is None:
        return f"{c.relation.capitalize()}: {name} {percent(c.value)}; no base to compare with."
    change = f"{name} {percent(c.reference_value)} {ARROW} {percent(c.value)}"
    size = f"{points(c.difference.value)} points, 95{SPACE}% interval {_ends(c.difference)}"
    if c.recipe:
        size += f", of the recipe {_ends(c.recipe)} over {c.recipe.trainings} trainings"
    others = f"; {percent(c.changed)} of the answers are others" if c.changed else ""
    end = f"{size}; n = {c.n}{spreads(c)}{others}"
    floor = _floor(c.stands_for) if c.stands_for else ""
    if c.decided:
        skewed = " Most items went the other way; a few large changes decide." * c.judged.is_skewed
        return f"{c.relation.capitalize()}: {change} ({end}).{skewed}{floor}"
    return f"{c.relation.capitalize()}: {change} ({end}). {_unsaid(c, margin)}{floor}"


def _floor(c: Comparison) -> str:
    """Say why accuracy is not judged, and what it was."""
    who = c.reference if c.level == "group" and c.reference == "FT" else "the base"
    return (
        f" Accuracy ({percent(c.reference_value)} {ARROW} {percent(c.value)}, {interval(c)}) has "
        f"no room to fall: on {_together(list(c.floor))} {who} may do no better than one label "
        "for every item."
    )


def _unsaid(c: Comparison, margin: float) -> str:
    """Say what a sample that decides nothing leaves open, and how many items would decide it."""
    judged = c.judged
    assert judged
    sign = METRICS[c.metric].direction or 1
    loss, gain = (-judged.low, judged.high) if sign > 0 else (judged.high, -judged.low)
    open_to = [
        f"a {what} of up to {_rounded(end)} points"
        for what, end in (("loss", loss), ("gain", gain))
        if end > margin
    ]
    if not open_to:
        return f"No change above {_rounded(margin)} points."
    alone = ""
    if c.p_holm is not None and judged.significant:
        alone = (
            "Alone it would count as a change; among all rows of the answer it may be chance "
            f"(p {p_value(c.p_holm)} after Holm's adjustment). "
        )
    effect = max(abs(judged.value), margin, 0.001)  # a tenth of a point, the least that is shown
    needed = math.ceil(c.n * (judged.detectable / effect) ** 2 / 10) * 10
    what = "items and trainings" if c.recipe else "items"
    return (
        f"{alone}The sample cannot rule out {' or '.join(open_to)}; about {needed:,} {what} would "
        f"find a change of {_rounded(effect)} points."
    )


def spreads(comparison: Comparison) -> str:
    """Write `; over 2 prompts ±1.2, over 3 seeds ±0.4`; nothing where there is one of each."""
    return "".join(
        f"; over {spread.levels} {name} {PLUS_MINUS}{_rounded(spread.value)}"
        for name, spread in comparison.spreads.items()
    )


def introduction(report: Report) -> str:
    """Say what was compared, in two sentences."""
    keys = [key for model in report.models for key in model.cells]
    used_shots = ", ".join(str(n) for n in sorted({key.shots for key in keys}))
    numbers = sorted({key.prompt for key in keys})
    prompts = f"prompt{'s' * (len(numbers) > 1)} no. {', '.join(map(str, numbers))}"
    names = [model.name for model in report.bases] + [s.base for s in report.recipes]
    bases = " and ".join(dict.fromkeys(filter(None, names))) or "no base"
    datasets = len({key[:2] for key in keys})
    tuned = len(report.models) - len(report.bases)
    return (
        f"{count(tuned, 'fine-tuned model')} against {bases}, on the same items of "
        f"{count(datasets, 'dataset')} (shots {used_shots}; {prompts}). "
        "Changes are in percentage points, averaged over shots and prompts, then over datasets "
        "with equal weight."
    )


def caveats(report: Report) -> list[str]:
    """List the report's notes, and how to read its intervals."""
    of = {
        level: sum(c.level == level and c.difference is not None for c in report.comparisons)
        for level in ("group", "relation", "contrast", "dataset", "cell")
    }
    return [
        *report.gaps,
        *report.notes,
        f"Intervals are at 95{SPACE}% each and are not widened for their number: of "
        f"{sum(of.values())} comparisons ({of['group']} in the answer, {of['relation']} "
        f"by relation, {of['contrast']} of FTICL against FT, {of['dataset']} by dataset, "
        f"{of['cell']} by cell), one in twenty would leave out zero even if nothing had "
        "changed. The Holm column adjusts the p-values for all comparisons of its table.",
        "Intervals speak of other items of the same datasets, not of other datasets. What other "
        "prompts, seeds and draws of demonstrations move stands beside them, where there were "
        "several: their standard deviation, with the noise of the items taken out.",
        "A single cell of accuracy has Tango's score interval and McNemar's mid-p test; everything "
        "else a t interval on the means of items within datasets (several prompts of an item stay "
        "together), corrected for skewness. Interval and p-value agree.",
        f"Detectable: the true change that a sample of this kind would find in 80{SPACE}% of "
        "cases.",
    ]


def heading(group: TaskGroup) -> str:
    """Name a group in a table, with what it is compared to."""
    first = group.members[0]
    if isinstance(first, Contrast):
        return title(group)
    name = group.name if len(group.members) == 1 else title(group)
    return f"{name} against {first.base or 'no base'}"


def table_name(recipe: Recipe) -> str:
    """Name a recipe in a table, with what it is compared to."""
    return f"{recipe.name} against {recipe.base or 'no base'}"


def _together(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _judgement(comparison: Comparison, margin: float) -> str:
    judged = comparison.judged
    if comparison.direction or judged is None:
        return "better" if comparison.direction > 0 else "worse"
    sign = METRICS[comparison.metric].direction or 1
    low, high = (judged.low, judged.high) if sign > 0 else (-judged.high, -judged.low)
    if low > -margin:
        size = f"above {_rounded(margin)} points"
        return f"no change {size}" if high < margin else f"no loss {size}"
    return "cannot tell"


def _rounded(value: float) -> str:
    text = f"{100 * value:.1f}"
    return text.lstrip("-") if float(text) == 0 else text
