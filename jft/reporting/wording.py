"""How the report says things: numbers, names and sentences, the same in every format."""

from __future__ import annotations

import math

from jft.reporting.collect import RELATIONS, Model
from jft.reporting.compare import Comparison, Contrast, Report, Subject

MINUS, DASH, SPACE = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"
ARROW, PLUS_MINUS = "\N{RIGHTWARDS ARROW}", "\N{PLUS-MINUS SIGN}"
METRICS = {"accuracy": "accuracy", "rougeL": "ROUGE-L", "bleu": "BLEU"}
ALPHA = 0.05
LEGEND = (
    "A change counts as better or worse where its 95 % interval leaves out zero. p (Holm) is "
    "adjusted for all comparisons by relation."
)


def percent(value: float | None) -> str:
    """0.6104 as `61.0 %`."""
    return DASH if value is None or math.isnan(value) else f"{_rounded(value)}{SPACE}%"


def points(value: float | None) -> str:
    """0.27 as `+27.0`, -0.012 with a true minus sign."""
    if value is None or math.isnan(value):
        return DASH
    text = _rounded(abs(value))
    sign = "" if float(text) == 0 else "+" if value > 0 else MINUS
    return sign + text


def interval(comparison: Comparison, joint: str = " to ") -> str:
    """`+19.0 to +35.0`, in points."""
    difference = comparison.difference
    if difference is None:
        return DASH
    return points(difference.low) + joint + points(difference.high)


def p_value(p: float | None) -> str:
    """Three decimals, or an upper bound."""
    return DASH if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def metric(name: str) -> str:
    """A metric as prose calls it."""
    return METRICS.get(name, name)


def shots(comparison: Comparison) -> str:
    """The number of demonstrations before each item, or `all`."""
    return "all" if comparison.shots is None else str(comparison.shots)


def training(model: Model) -> str:
    """How a model was trained: `FTICL with 2 demonstrations on gadgets (400 examples)`."""
    k = model.train_shots
    kind = f"FTICL with {k} demonstration{'s' * (k > 1)}" if k else "FT"
    examples = f" ({model.examples} examples)" if model.examples else ""
    return f"{kind} on {model.train}{examples}"


def title(model: Model) -> str:
    """Its training, and its name where that says more."""
    kind = f"FTICL-{model.train_shots}" if model.train_shots else "FT"
    known = model.name in (f"{kind} {model.train}", training(model))
    return training(model) if known else f"{model.name}: {training(model)}"


def overall(comparisons: list[Comparison]) -> list[Comparison]:
    """For each relation and metric the comparison over all shots, which comes first."""
    first: dict[tuple, Comparison] = {}
    for comparison in comparisons:
        first.setdefault((comparison.relation, comparison.metric), comparison)
    return sorted(first.values(), key=lambda c: (RELATIONS.index(c.relation), c.metric))


def verdict(comparisons: list[Comparison]) -> str:
    """`better in-domain, no measurable change out-of-domain, worse out-of-task`."""
    judged = [c for c in overall(comparisons) if c.difference]
    several = len({c.metric for c in judged}) > 1
    parts = [f"{_judgement(c)} {c.relation}{f' ({metric(c.metric)})' * several}" for c in judged]
    return ", ".join(parts) or "no base to compare with"


def sentence(comparison: Comparison) -> str:
    """One comparison in a sentence, with its interval and what chance has to do with it."""
    c, name = comparison, metric(comparison.metric)
    difference = c.difference
    if difference is None:
        return f"{c.relation.capitalize()}: {name} {percent(c.value)}; no base to compare with."
    change = f"{name} {percent(c.reference_value)} {ARROW} {percent(c.value)}"
    size = f"{points(difference.value)} points, 95{SPACE}% interval {interval(c)}"
    if difference.significant:
        return f"{c.relation.capitalize()}: {change} ({size})."
    return (
        f"{c.relation.capitalize()}: {change} ({size}): within what chance explains; this sample "
        f"would find a true change of about {_rounded(difference.detectable)} points or more."
    )


def contrast_title(contrast: Contrast) -> str:
    """Which FTICL model against which FT model."""
    return f"{contrast.fticl.name} against {contrast.ft.name}"


def introduction(report: Report) -> str:
    """What was compared, in one sentence or two."""
    models = [*report.bases, *(subject.model for subject in report.subjects)]
    keys = [key for model in models for key in model.cells]
    used_shots = ", ".join(str(n) for n in sorted({key.shots for key in keys}))
    prompts = ", ".join(str(n) for n in sorted({key.prompt for key in keys}))
    bases = " and ".join(model.name for model in report.bases) or "no base"
    datasets = len({key[:2] for key in keys})
    tuned = len(report.subjects)
    return (
        f"{tuned} fine-tuned model{'s' * (tuned != 1)} against {bases}, on the same items of "
        f"{datasets} dataset{'s' * (datasets != 1)} (shots {used_shots}; prompts {prompts}). "
        "Changes are in percentage points, averaged over shots and prompts, then over datasets "
        "with equal weight."
    )


def caveats(report: Report) -> list[str]:
    """The report's notes, and how to read its intervals."""
    count = {
        level: sum(c.level == level and c.difference is not None for c in report.comparisons)
        for level in ("relation", "dataset", "cell")
    }
    return [
        *report.gaps,
        *report.notes,
        f"Intervals are at 95{SPACE}% each and are not widened for their number: of "
        f"{sum(count.values())} comparisons ({count['relation']} by relation, "
        f"{count['dataset']} by dataset, {count['cell']} by cell), one in twenty would leave out "
        "zero even if nothing had changed. The Holm column adjusts the p-values for all "
        "comparisons of its table.",
        "Intervals speak of other items of the same datasets, not of other datasets, training "
        "runs or seeds.",
        "A single cell of accuracy has Tango's score interval and McNemar's exact test; everything "
        "else a bootstrap over items within datasets (several prompts of an item stay together) "
        "and a sign-flip test.",
        f"Detectable: the true change that a sample of this kind would find in 80{SPACE}% of "
        "cases.",
    ]


def table_name(subject: Subject) -> str:
    """The heading of a model in a table."""
    return f"{subject.model.name} against {subject.base or 'no base'}"


def _judgement(comparison: Comparison) -> str:
    difference = comparison.difference
    if difference is None or not difference.significant:
        return "no measurable change"
    return "better" if difference.value > 0 else "worse"


def _rounded(value: float) -> str:
    text = f"{100 * value:.1f}"
    return text.lstrip("-") if float(text) == 0 else text
