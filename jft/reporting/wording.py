"""Numbers, names and sentences of the report, the same in every format."""

from __future__ import annotations

import math

from jft.evaluation.metrics import METRICS
from jft.evaluation.stats import ALPHA, Difference
from jft.reporting.compare import Contrast, Recipe, Report, TaskGroup
from jft.reporting.comparison import Comparison
from jft.reporting.models import ModelName
from jft.runtime.progress import count, duration
from jft.tasks import IN_DOMAIN, OUT_OF_DOMAIN, OUT_OF_TASK, RELATIONS, RETENTION, RETENTION_TASKS

MINUS, DASH, SPACE = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"
ARROW, PLUS_MINUS = "\N{RIGHTWARDS ARROW}", "\N{PLUS-MINUS SIGN}"
GUIDE = (
    (IN_DOMAIN, "test rows of the dataset that the model was trained on"),
    (OUT_OF_DOMAIN, "other datasets of the same task"),
    (OUT_OF_TASK, "datasets of other tasks"),
    (
        RETENTION,
        "what every model can do: predict general text, in bits for each of its bytes (fewer are "
        "better), choose how a sentence goes on, and follow plain instructions",
    ),
    ("FT, FTICL-k", "trained on plain examples, or with k demonstrations before every example"),
    ("shots", "demonstrations before a test item; k-shot scores of a model need no training"),
    (
        "P(gold)",
        "the probability that a model gives the right label, among all texts; it is judged where "
        "accuracy has no room to fall, since the base does no better than one label for all items",
    ),
    (
        "no loss above",
        "the interval leaves out every loss larger than the margin (--margin, in points): a "
        "smaller one may be there; no change above: every such gain, too",
    ),
    (
        "change",
        "tuned minus base on the same items, in percentage points; of texts in bits per byte, of "
        "which a hundredth is drawn as a point is, and compared with the margin",
    ),
    (
        "95 % interval",
        "holds the true change of other items of the same kind 19 times out of 20; of each row "
        "alone",
    ),
    (
        "p (Holm)",
        "how surprising the change would be if there were none, made stricter for the number of "
        f"rows of its table; in the answer what is below {ALPHA} counts and is coloured, elsewhere "
        f"what is below {ALPHA} before that is coloured, and after it bold",
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
    "intervals are of each row alone. Margin: {margin} points."
)


def percent(value: float | None, metric: str = "") -> str:
    """Write 0.6104 as `61.0 %`; a metric that is no share in its own unit, as `1.223 bits`."""
    if value is None or math.isnan(value):
        return DASH
    unit = _unit(metric)
    return f"{value:.3f}{SPACE}{unit}" if unit else f"{rounded(value)}{SPACE}%"


def points(value: float | None, signed: bool = True, metric: str = "") -> str:
    """Write 0.27 as `+27.0`, and -0.012 with a true minus sign; `signed=False` leaves out both.

    Of a metric with a unit of its own: `+0.270`.
    """
    if value is None or math.isnan(value):
        return DASH
    text = f"{abs(value):.3f}" if _unit(metric) else rounded(abs(value))
    sign = "" if float(text) == 0 or not signed else "+" if value > 0 else MINUS
    return sign + text


def unit_of(metric: str) -> str:
    """Name the unit of a metric's changes: points (of a percentage), or its own."""
    return _unit(metric) or "points"


def _unit(metric: str) -> str:
    return METRICS[metric].unit if metric in METRICS else ""


def interval(comparison: Comparison) -> str:
    """Write the interval that a change is judged by, in points: `+19.0 to +35.0`."""
    return ends(comparison.judged, comparison.metric) if comparison.judged else DASH


def ends(difference: Difference, metric: str) -> str:
    """Write an interval, in points."""
    return f"{points(difference.low, metric=metric)} to {points(difference.high, metric=metric)}"


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
    if model.train is None:  # scored by others, who do not say how it was trained
        return recipe.name
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


def facts(group: TaskGroup) -> str:
    """Say how the recipe of a group was trained; empty for several recipes, or if it is unknown."""
    first, *others = group.members
    if others or isinstance(first, Contrast) or first.first.run is None:
        return ""
    run, config = first.first.run, first.first.run.config
    steps = f"{count(run.steps, 'step')} of " if run.steps else "steps of "
    seeds = ", ".join(str(model.seed) for model in first.models)
    seconds = sum(model.run.seconds for model in first.models if model.run)
    return (
        f"{steps}{count(config['train']['batch_size'], 'example')}, learning rate "
        f"{config['optim']['lr']:g}, seed{'s' * (first.seeds > 1)} {seeds}"
        + f"; trained for {duration(seconds)}"
        * bool(seconds)
    )


def overall(comparisons: list[Comparison]) -> list[Comparison]:
    """Find the comparison over all shots, the first one, of each relation and metric."""
    first: dict[tuple, Comparison] = {}
    for comparison in comparisons:
        first.setdefault((comparison.relation, comparison.metric), comparison)
    return sorted(first.values(), key=lambda c: (RELATIONS.index(c.relation), c.metric))


def spreads(comparison: Comparison) -> str:
    """Write `; over 2 prompts ±1.2, over 3 seeds ±0.4`; nothing where there is one of each."""
    return "".join(
        f"; {spread.levels} {name} vary it by {PLUS_MINUS}"
        f"{points(spread.value, False, comparison.metric)}"
        if spread.value
        else f"; {spread.levels} {name} vary it by no more than the items do"
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
    datasets = {key[:2] for key in keys if key.task not in RETENTION_TASKS}
    panel = " and the retention panel" * any(key.task in RETENTION_TASKS for key in keys)
    tuned = len(report.models) - len(report.bases)
    return (
        f"{count(tuned, 'fine-tuned model')} against {bases}, on the same items of "
        f"{count(len(datasets), 'dataset')}{panel} (shots {used_shots}; {prompts}). "
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


def together(names: list[str]) -> str:
    """Write `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def alternatives(names: list[str]) -> str:
    """Write `a, b, or c`."""
    *others, last = names
    return f"{', '.join(others)}, or {last}" if others else last


def rounded(value: float) -> str:
    """Write 0.6104 as `61.0`."""
    text = f"{100 * value:.1f}"
    return text.lstrip("-") if float(text) == 0 else text
