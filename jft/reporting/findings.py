"""The five findings of the paper, and what the models of a report say of each.

Yang et al., "Unveiling the Generalization Power of Fine-Tuned Large Language Models", NAACL 2024.
Each is judged on all models that bear on it, by the mean of their changes on the same items. A
verdict needs a p-value below 0.05 after Holm's adjustment for all tests of this table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy import stats as scipy_stats

from jft.evaluation import metrics, stats
from jft.reporting import pairs as pairs_lib
from jft.reporting import wording
from jft.reporting.compare import Contrast, Member, Recipe, Report
from jft.reporting.pairs import Pair
from jft.runtime.progress import count
from jft.tasks import OUT_OF_DOMAIN, OUT_OF_TASK

SUPPORTED, CONTRADICTED, NOT_DECIDED = "supported", "contradicted", "not decided"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A test that bears on a finding.

    Attributes:
      text: the comparison and its result.
      p_value: of no difference; None where there is nothing to test.
      agrees: True if the result points where the finding does.
      p_holm: adjusted for all tests of the table.
    """

    text: str
    p_value: float | None = None
    agrees: bool = False
    p_holm: float | None = None

    @property
    def says(self) -> str:
        """The verdict that it amounts to alone."""
        if self.p_holm is None or self.p_holm >= wording.ALPHA:
            return NOT_DECIDED
        return SUPPORTED if self.agrees else CONTRADICTED


@dataclass(frozen=True, slots=True)
class PaperFinding:
    """One of the five, with its verdict.

    Attributes:
      claim: in the words of the paper, shortened.
      evidence: the tests.
      judge: makes the verdict from what each evidence says.
    """

    claim: str
    evidence: list[Evidence]
    judge: Callable[[list[str]], str]

    @property
    def verdict(self) -> str:
        """Supported, contradicted or not decided."""
        return self.judge([each.says for each in self.evidence])


def findings(report: Report) -> list[PaperFinding]:
    """Judge all five, with their p-values adjusted together.

    The last step of each training counts, and no snapshot before it.
    """
    ft = [r for r in report.recipes if r.kind == "FT" and not r.snapshot]
    contrasts = [c for c in report.contrasts if not c.snapshot]
    on_labels, on_texts = _by_kind_of_task(ft)
    contrasts_on_labels, contrasts_on_texts = _by_kind_of_task(contrasts)
    found = [
        PaperFinding(
            "Fine-tuning on classification helps out-of-domain sets of the same task; on "
            "generation it hurts them.",
            [
                _mean("classification models, FT", on_labels, OUT_OF_DOMAIN, 1),
                _mean("generation models, FT", on_texts, OUT_OF_DOMAIN, -1),
            ],
            _all,
        ),
        PaperFinding(
            "Demonstrations in training (FTICL) help generation models to generalize.",
            [_mean("generation, FTICL against FT", contrasts_on_texts, OUT_OF_DOMAIN, 1)],
            _all,
        ),
        PaperFinding(
            "On classification, FTICL is unstable: better than FT here, worse there.",
            [_one(c) for c in contrasts_on_labels] or [_missing("FTICL against FT")],
            _both_ways,
        ),
        PaperFinding(
            "FTICL stays closer to the weights of the base than FT.",
            [_closer(contrasts)],
            _all,
        ),
        PaperFinding(
            "Fine-tuning on one task costs ability on others.",
            [
                _mean("FT, other tasks by accuracy", ft, OUT_OF_TASK, -1, metrics.ACCURACY),
                _mean("FT, other tasks by ROUGE-L", ft, OUT_OF_TASK, -1, metrics.ROUGE_L),
            ],
            _some,
        ),
    ]
    return _adjusted(found)


def _by_kind_of_task(members: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    """Divide models trained on a classification task from those trained on generation."""
    classification: list[Member] = []
    generation: list[Member] = []
    for member in members:
        near = [pair.cell for pair in member.pairs if pair.cell.relation != OUT_OF_TASK]
        on_labels = any(cell.metric == metrics.ACCURACY for cell in near)
        (classification if on_labels else generation).append(member)
    return classification, generation


def _mean(
    name: str,
    parts: Sequence[Recipe | Contrast],
    relation: str,
    sign: int,
    metric: str | None = None,
) -> Evidence:
    """Test the mean change of several models on the sets of a relation."""
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
        return _missing(name)
    every = [pair for pairs in used for pair in pairs]
    return _evidence(f"{name} ({count(len(used), 'model')})", every, sign)


def _one(contrast: Contrast) -> Evidence:
    pairs = [p for p in contrast.pairs if p.cell.relation == OUT_OF_DOMAIN]
    return _evidence(contrast.name, pairs, 1) if pairs else _missing(contrast.name)


def _evidence(name: str, pairs: list[Pair], sign: int) -> Evidence:
    c = pairs_lib.comparison("relation", name, "reference", pairs)
    assert c.difference
    text = (
        f"{name}: {wording.metric(c.metric)} {wording.points(c.difference.value)} points "
        f"{c.relation} ({wording.interval(c)}; n = {c.n})"
    )
    return Evidence(text, c.difference.p_value, c.difference.value * sign > 0)


def _closer(contrasts: list[Contrast]) -> Evidence:
    """Compare distances by a sign test: each run of FT with those of FTICL that it contrasts."""
    far: dict[str, float] = {}
    near: dict[str, list[float]] = {}
    for contrast in contrasts:
        others = {model.seed: model for model in contrast.ft.models}
        for model in contrast.fticl.models:
            other = others.get(model.seed, model)
            ours, theirs = model.distance, other.distance
            if other is not model and ours is not None and theirs is not None:
                far[other.path] = theirs
                near.setdefault(other.path, []).append(ours)
    changes = [sum(near[path]) / len(near[path]) - far[path] for path in far]
    shorter, longer = (sum(sign * change > 0 for change in changes) for sign in (-1, 1))
    if not shorter + longer:
        return _missing("FTICL against FT with drift.json in their workdirs")
    p_value = float(scipy_stats.binomtest(shorter, shorter + longer).pvalue)
    text = f"FTICL went less far than FT in {shorter} of {shorter + longer} trainings"
    return Evidence(text, p_value, shorter > longer)


def _missing(name: str) -> Evidence:
    return Evidence(f"{name}: none in this report")


def _all(says: list[str]) -> str:
    """Require every part of the claim to hold; one that fails is enough against it."""
    if CONTRADICTED in says:
        return CONTRADICTED
    return SUPPORTED if says and set(says) == {SUPPORTED} else NOT_DECIDED


def _some(says: list[str]) -> str:
    """Require a loss somewhere, and a gain nowhere; or the reverse."""
    kinds = set(says) - {NOT_DECIDED}
    return kinds.pop() if len(kinds) == 1 else NOT_DECIDED


def _both_ways(says: list[str]) -> str:
    """Require better in one place and worse in another; all of one kind is a steady effect."""
    if {SUPPORTED, CONTRADICTED} <= set(says):
        return SUPPORTED
    steady = len(says) > 1 and len(set(says)) == 1 and says[0] != NOT_DECIDED
    return CONTRADICTED if steady else NOT_DECIDED


def _adjusted(found: list[PaperFinding]) -> list[PaperFinding]:
    tests = [e.p_value for finding in found for e in finding.evidence if e.p_value is not None]
    adjusted = iter(stats.holm(tests))

    def with_holm(e: Evidence) -> Evidence:
        return e if e.p_value is None else dataclasses.replace(e, p_holm=next(adjusted))

    return [dataclasses.replace(f, evidence=[with_holm(e) for e in f.evidence]) for f in found]
