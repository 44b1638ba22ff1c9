"""The five findings of the paper, and what the models of a report say of each.

Yang et al., "Unveiling the Generalization Power of Fine-Tuned Large Language Models", NAACL 2024.
Each is about recipes, so it takes trainings of several seeds, and is one test over items and
trainings. Claims of several parts hold where all parts do, and fail where one does. A verdict needs
a p-value below 0.05 after Holm's adjustment for the findings that can be tested.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from jft.evaluation import metrics, stats
from jft.reporting import derived, wording
from jft.reporting import pairs as pairs_lib
from jft.reporting.compare import Contrast, Member, Recipe, Report
from jft.reporting.comparison import Comparison
from jft.reporting.pairs import Pair
from jft.runtime.progress import count
from jft.tasks import CHOICE, LABELS, OUT_OF_DOMAIN, OUT_OF_TASK

SUPPORTED, CONTRADICTED, NOT_DECIDED = "supported", "contradicted", "not decided"
FEW = f"fewer than {stats.MIN_TRAININGS} trainings of each recipe"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A part of a claim, tested.

    Attributes:
      text: the comparison and its result, or what there is none for.
      p_value: of no difference; None where there is nothing to test.
      agrees: True if the result points where the finding does.
    """

    text: str
    p_value: float | None = None
    agrees: bool = False


@dataclass(frozen=True, slots=True)
class PaperFinding:
    """One of the five, with its verdict.

    Attributes:
      claim: in the words of the paper, shortened.
      evidence: the tests of its parts, or what is missing for one.
      p_holm: its p-value, adjusted for all findings that have one.
    """

    claim: str
    evidence: list[Evidence]
    p_holm: float | None = None

    @property
    def p_value(self) -> float | None:
        """The p-value of what the evidence says; None where it cannot say anything.

        That all parts hold is as sure as the least sure of them is (Berger, Technometrics 24:295,
        1982); that one fails, as the surest of those that do, adjusted for the number of parts.
        """
        tested = [e.p_value for e in self.evidence if e.p_value is not None]
        against = [e.p_value for e in self.evidence if e.p_value is not None and not e.agrees]
        if against:
            return min(1.0, min(against) * len(tested))
        return max(tested) if tested and len(tested) == len(self.evidence) else None

    @property
    def verdict(self) -> str:
        """Supported, contradicted or not decided."""
        if self.p_holm is None or self.p_holm >= stats.ALPHA:
            return NOT_DECIDED
        agree = all(e.agrees for e in self.evidence if e.p_value is not None)
        return SUPPORTED if agree else CONTRADICTED


def findings(report: Report) -> list[PaperFinding]:
    """Judge all five, with their p-values adjusted together.

    The last step of each training counts, and no snapshot before it.
    """
    ft = [r for r in report.recipes if r.kind == "FT" and not r.snapshot]
    contrasts = [c for c in report.contrasts if not c.snapshot]
    on_labels, on_texts = _by_kind_of_task(ft)
    contrasts_on_labels, contrasts_on_texts = _by_kind_of_task(contrasts)
    margin = report.margin
    others = [
        *_means("FT, other tasks with labels", ft, OUT_OF_TASK, -1, margin, metrics.ACCURACY),
        *_means("FT, other tasks with texts", ft, OUT_OF_TASK, -1, margin, metrics.ROUGE_L),
    ]
    found = [
        PaperFinding(
            "Fine-tuning on classification helps out-of-domain sets of the same task; on "
            "generation it hurts them.",
            [
                *_means("classification models, FT", on_labels, OUT_OF_DOMAIN, 1, margin),
                *_means("generation models, FT", on_texts, OUT_OF_DOMAIN, -1, margin),
            ],
        ),
        PaperFinding(
            "Demonstrations in training (FTICL) help generation models to generalize.",
            _means("generation, FTICL against FT", contrasts_on_texts, OUT_OF_DOMAIN, 1, margin),
        ),
        PaperFinding(
            "On classification, FTICL is unstable: better than FT here, worse there.",
            [_unstable(contrasts_on_labels, margin)],
        ),
        PaperFinding(
            "FTICL stays closer to the weights of the base than FT.", [_closer(contrasts)]
        ),
        PaperFinding(
            "Fine-tuning on one task costs ability on others.",
            # One kind of other tasks is enough.
            [e for e in others if e.p_value is not None or FEW in e.text] or others[:1],
        ),
    ]
    tested = [finding for finding in found if finding.p_value is not None]
    adjusted = dict(
        zip(map(id, tested), stats.holm([f.p_value or 0.0 for f in tested]), strict=True)
    )
    return [dataclasses.replace(f, p_holm=adjusted.get(id(f))) for f in found]


def _by_kind_of_task(members: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    """Divide models trained on a classification task from those trained on generation."""
    classification: list[Member] = []
    generation: list[Member] = []
    for member in members:
        near = [pair.cell for pair in member.pairs if pair.cell.relation != OUT_OF_TASK]
        on_labels = any(metrics.kind_of(cell.metric) in (LABELS, CHOICE) for cell in near)
        (classification if on_labels else generation).append(member)
    return classification, generation


def _means(
    name: str,
    parts: Sequence[Recipe | Contrast],
    relation: str,
    sign: int,
    margin: float,
    metric: str | None = None,
) -> list[Evidence]:
    """Test the mean change of several recipes on the sets of a relation.

    Without demonstrations a model may lose the form of an answer alone, so that cells at 0 shots
    and others are tests of their own.
    """
    found = [
        [
            pair
            for pair in part.pairs
            if pair.other and pair.cell.relation == relation
            if metric in (None, pair.cell.metric)
        ]
        for part in parts
    ]
    used = [pairs for pairs in found if pairs]
    if not used:
        return [Evidence(f"{name}: none in this report")]
    every = [pair for pairs in used for pair in pairs]
    by_shots = pairs_lib.split(every, lambda cell: cell.key.shots > 0)
    return [_evidence(f"{name} ({count(len(used), 'recipe')})", p, sign, margin) for p in by_shots]


def _evidence(name: str, pairs: list[Pair], sign: int, margin: float) -> Evidence:
    c = _judged(pairs)
    assert c.difference
    shots = "with demonstrations" if pairs[0].cell.key.shots else "at 0 shots"
    text = f"{name}, {shots}: {wording.metric(c.metric)} {wording.points(c.change)} points"
    if sign < 0 and c.metric == metrics.P_GOLD and (c.reference_value or 0.0) < margin:
        before = wording.percent(c.reference_value)
        return Evidence(f"{text}; with {before} before, there was nothing to lose")
    if c.recipe is None:
        return Evidence(f"{text} of these checkpoints ({wording.interval(c)}); {FEW}")
    low, high = c.recipe.low, c.recipe.high
    text += f" {c.relation} ({wording.points(low)} to {wording.points(high)} over "
    text += f"{c.recipe.trainings} trainings; n = {c.n})"
    if not c.recipe.significant and -margin < low and high < margin:
        text += f"; no effect above {wording.points(margin, signed=False)} points"
    return Evidence(text, c.recipe.p_value, c.recipe.value * sign > 0)


def _judged(pairs: list[Pair]) -> Comparison:
    """Compare by the main metric, or by the label's probability where that has no room to fall."""
    plain = pairs_lib.comparison("relation", "", "reference", pairs)
    gold = [p for p in derived.measured(pairs) if p.cell.metric == metrics.P_GOLD]
    if not plain.floor or not gold:
        return plain
    return pairs_lib.comparison("relation", "", "reference", gold)


def _unstable(contrasts: list[Contrast], margin: float) -> Evidence:
    """Test whether FTICL's advantage varies from set to set by more than items and seeds do.

    That it varies by less than the margin is the test against the claim.
    """
    name = "FTICL against FT, out-of-domain sets"
    found: list[stats.Difference] = []
    freedom = 0
    for contrast in contrasts:
        pairs = [p for p in contrast.pairs if p.cell.relation == OUT_OF_DOMAIN]
        sets = pairs_lib.split(pairs, lambda cell: cell.key[:2])
        known = [pairs_lib.comparison("relation", "", "FT", each).recipe for each in sets]
        found += [recipe for recipe in known if recipe]
        freedom += max((r.trainings - 1 for r in known if r), default=0)
    if len(found) < 2:
        missing = f"{FEW}, or a single set" if contrasts else "none in this report"
        return Evidence(f"{name}: {missing}")
    varied = stats.variation(found, freedom, margin)
    text = (
        f"{name}: over {len(found)} of them the advantage varies by "
        f"{wording.points(varied.value, signed=False)} points, beyond what items and seeds explain"
    )
    return Evidence(text, min(1.0, 2 * min(varied.none, varied.some)), varied.none < varied.some)


def _closer(contrasts: list[Contrast]) -> Evidence:
    """Test the mean logarithm of the ratio of distances: each run of FT with those of FTICL."""
    near: dict[str, list[float]] = {}
    for contrast in contrasts:
        others = {model.seed: model for model in contrast.ft.models}
        for model in contrast.fticl.models:
            other = others.get(model.seed)
            if other and model.distance and other.distance:
                near.setdefault(other.path, []).append(math.log(model.distance / other.distance))
    ratios = np.array([np.mean(each) for each in near.values()])
    if not ratios.size:
        return Evidence("FTICL against FT with drift.json in their workdirs: none in this report")
    trainings = count(len(ratios), "training")
    text = f"FTICL went {math.exp(ratios.mean()):.3f} times as far as FT in {trainings}"
    if len(ratios) < stats.MIN_TRAININGS:
        return Evidence(f"{text}; fewer than {stats.MIN_TRAININGS}")
    error = max(float(ratios.std(ddof=1)) / math.sqrt(len(ratios)), 1e-12)
    t = float(scipy_stats.t.ppf(0.975, len(ratios) - 1)) * error
    text += f" ({math.exp(ratios.mean() - t):.3f} to {math.exp(ratios.mean() + t):.3f})"
    p_value = float(2 * scipy_stats.t.sf(abs(ratios.mean()) / error, len(ratios) - 1))
    return Evidence(text, p_value, bool(ratios.mean() < 0))
