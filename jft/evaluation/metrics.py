"""The table of metrics, of items and cells; `texts` has those of texts beside a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from jft.evaluation import texts
from jft.tasks import CHOICE, GENERATED, GENERATION, INSTRUCTION, LABELS, TEXT

# The main metric of every kind of task.
ACCURACY, ROUGE_L, BITS, CHOICES, FOLLOWED = "accuracy", "rougeL", "bits", "acc_norm", "followed"
MAIN = {
    **{LABELS: ACCURACY, GENERATION: ROUGE_L},
    **{TEXT: BITS, CHOICE: CHOICES, INSTRUCTION: FOLLOWED},
}
KIND_OF = {metric: kind for kind, metric in MAIN.items()}
# Stands in for accuracy where that has no room to fall.
P_GOLD = "p_gold"
# Beside the choices of an item.
P_CHOICE = "p_choice"
# Of two models: see `kl_divergence`.
KL = "kl"

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the items of a cell.

    To add one is to add it to `METRICS`; results and reports find it there.

    Attributes:
      name: in records.
      title: in prose.
      kinds: of the tasks that it is of, see `tasks.KINDS`.
      direction: 1 if more is better, -1 if less is, 0 if neither.
      meaning: one sentence, for readers of a report.
      of: computes the values of a cell's items, whose mean is the cell's, from their records; None
        where they mean nothing there. Without it the metric is of two models.
      unit: such as `bits`; empty: values are shares and lie in [0, 1], but where `meaning` says
        otherwise, and reports show them in percent.
    """

    name: str
    title: str
    kinds: tuple[str, ...]
    direction: int
    meaning: str
    of: Callable[[Rows], list[float] | None] | None
    unit: str = ""


def measure(rows: Rows, kind: str) -> dict[str, list[float]]:
    """Compute all metrics of a cell; a list of the values of its items for each.

    Only accuracy has a meaning where a gold output is no label that was scored.
    """
    known = kind != LABELS or all(row["output"] in row["scores"] for row in rows)
    wanted = [m for m in METRICS.values() if kind in m.kinds and (known or m.name == ACCURACY)]
    found = {metric.name: metric.of(rows) for metric in wanted if metric.of}
    return {name: values for name, values in found.items() if values is not None}


def kl_divergence(base: Mapping[int, float], tuned: Mapping[int, float]) -> float:
    """Compute KL(base || tuned) of the next token, in nats, from the likeliest tokens of both.

    A token that is in one list alone is, to the other model, at most as likely as the last in that
    model's list. This is the least divergence that two distributions with these lists can have, so
    it is never more than that over the whole vocabulary.

    Args:
      base: log-probabilities by token id.
      tuned: those of the other model.
    """
    both = sorted(base.keys() & tuned.keys())
    p, q = (np.exp([of[token] for token in both]) for of in (base, tuned))
    known = float(np.sum(p * np.log(p / q)))
    p_alone, q_alone = (
        np.exp([value for token, value in of.items() if token not in both]) for of in (base, tuned)
    )
    # The rest of each model beyond its list. Records have five decimals, so that it may be a
    # little less than nothing.
    p_rest, q_rest = (max(1 - math.fsum(map(math.exp, of.values())), 1e-5) for of in (base, tuned))
    p_most, q_most = (math.exp(min(of.values())) for of in (base, tuned))

    def at(ratio: float) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Fill in what is not listed, p over q being `ratio` wherever that may be."""
        q_least, p_least = np.minimum(q_most, p_alone / ratio), np.minimum(p_most, q_alone * ratio)
        return p_least, q_least, p_rest - p_least.sum(), q_rest - q_least.sum()

    low, high = 1e-12, 1e12
    for _ in range(80):  # for the ratio that the rest of the rest has, too
        ratio = math.sqrt(low * high)
        *_, p_left, q_left = at(ratio)
        low, high = (ratio, high) if p_left > ratio * q_left else (low, ratio)
    p_least, q_least, p_left, q_left = at(low)
    unlisted = np.sum(p_alone * np.log(p_alone / q_least)) + np.sum(
        p_least * np.log(p_least / q_alone)
    )
    left = p_left * math.log(p_left / q_left) if min(p_left, q_left) > 0 else 0.0
    return max(0.0, known + float(unlisted) + left)


def _gold(rows: Rows) -> list[float]:
    return [math.exp(min(0.0, row["scores"][row["output"]])) for row in rows]


def _any_label(rows: Rows) -> list[float]:
    return [min(1.0, sum(map(math.exp, row["scores"].values()))) for row in rows]


def _among_labels(rows: Rows) -> tuple[list[str], np.ndarray]:
    """Compute the log-probabilities of the labels if there were no other answers."""
    labels = list(rows[0]["scores"])
    scores = np.array([[row["scores"][label] for label in labels] for row in rows], float)
    return labels, scores - special.logsumexp(scores, axis=1, keepdims=True)


def _calibrated(rows: Rows) -> list[float] | None:
    """Judge each item after its labels were divided by how likely they are on the other items.

    Batch calibration (Zhou et al., ICLR 2024), of an item by all others of its cell, so that none
    calibrates itself.
    """
    if len(rows) < 2:
        return None
    labels, logs = _among_labels(rows)
    shares = np.exp(logs)
    prior = np.maximum((shares.sum(axis=0) - shares) / (len(rows) - 1), 1e-300)
    best = (logs - np.log(prior)).argmax(axis=1)
    return [float(labels[i] == row["output"]) for i, row in zip(best, rows, strict=True)]


def _auc(rows: Rows) -> list[float] | None:
    """Compute the area under the ROC curve, of several labels the mean over one against the rest.

    An item's value is what it adds to the area (DeLong, DeLong and Clarke-Pearson, Biometrics
    44:837, 1988): their mean is the area, and their variance gives its standard error. One value
    alone may lie outside [0, 1].
    """
    labels, logs = _among_labels(rows)
    gold = np.array([labels.index(row["output"]) for row in rows])
    found = sorted(set(gold))
    if len(found) < 2:
        return None
    return np.mean([_placements(logs[:, i], gold == i) for i in found], axis=0).tolist()


def _placements(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Compute what each item adds to the area under the curve of `scores`."""
    ranks, values = stats.rankdata(scores), np.empty(len(scores))
    # Of a positive item the share of negatives below it, of a negative of positives above it.
    for of, sign in ((positive, 1), (~positive, -1)):
        others = len(scores) - int(of.sum())
        below = (ranks[of] - stats.rankdata(scores[of])) / others
        values[of] = below if sign > 0 else 1 - below
    area, share = values[positive].mean(), np.where(positive, positive.mean(), 1 - positive.mean())
    return area + (values - area) / share


def _of_option(rows: Rows) -> list[float]:
    """Compute the probability of the right choice if there were no answers but the choices."""
    shares = [special.softmax(list(row["scores"].values())) for row in rows]
    return [
        float(share[list(row["scores"]).index(row["output"])])
        for share, row in zip(shares, rows, strict=True)
    ]


def _bits(rows: Rows) -> list[float] | None:
    """Compute bits per byte of the texts that were read; None where one was not."""
    if not all("logprob" in row for row in rows):
        return None
    return [-row["logprob"] / math.log(2) / row["bytes"] for row in rows]


def _texts(of: Callable[[str, str], float]) -> Callable[[Rows], list[float]]:
    """Make a metric of a function from a generated text and its reference."""
    return lambda rows: [of(row["generation"], row["output"]) for row in rows]


def _field(name: str) -> Callable[[Rows], list[float] | None]:
    """Make a metric of a field of the items' records; None where one lacks it."""

    def of(rows: Rows) -> list[float] | None:
        return [float(row[name]) for row in rows] if all(name in row for row in rows) else None

    return of


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            *(ACCURACY, "accuracy", (LABELS,), 1),
            "share of items whose gold label is the likeliest of the labels",
            _field("correct"),
        ),
        Metric(
            *(P_GOLD, "P(gold)", (LABELS,), 1),
            "probability of the gold label after the prompt, among all texts",
            _gold,
        ),
        Metric(
            *("p_label", "P(any label)", (LABELS,), 1),
            "probability of any label of the task: whether the model answers in this form at all",
            _any_label,
        ),
        Metric(
            *("calibrated", "calibrated accuracy", (LABELS,), 1),
            "accuracy after each label was divided by its mean probability on the other items, "
            "which takes out what a model prefers whatever the item",
            _calibrated,
        ),
        Metric(
            *("auc", "AUC", (LABELS,), 1),
            "how well the label's probability ranks items, whatever the threshold; 50 is chance",
            _auc,
        ),
        Metric(
            *(ROUGE_L, "ROUGE-L", (GENERATION,), 1),
            "longest common subsequence of words with the reference, F-measure",
            _field(ROUGE_L),
        ),
        Metric(
            *("chrf", "chrF", (GENERATION,), 1),
            "common runs of characters with the reference, F-measure; for any script",
            _texts(texts.chrf),
        ),
        Metric(
            *("bleu", "BLEU", (GENERATION,), 1),
            "common runs of up to four words, all texts of a set together",
            lambda rows: texts.corpus_bleu([(row["generation"], row["output"]) for row in rows]),
        ),
        Metric(
            *("exact", "exact match", (GENERATION,), 1),
            "the reference's words and no others, without case, punctuation and articles",
            _texts(texts.exact_match),
        ),
        Metric(
            *("f1", "token F1", (GENERATION,), 1),
            "common words with the reference, whatever their order",
            _texts(texts.token_f1),
        ),
        Metric(
            *("reference_bits", "bits of the reference", (GENERATION,), -1),
            "bits per byte of the reference after the prompt: how unlikely the model finds it",
            _bits,
            unit="bits",
        ),
        Metric(
            *("empty", "empty", GENERATED, -1),
            "share of outputs without any text",
            _texts(lambda text, _: float(not text.strip())),
        ),
        Metric(
            *("cut", "cut", GENERATED, -1),
            "share of outputs that had not ended after eval.max_new_tokens",
            _field("cut"),
        ),
        Metric(
            *("repeated", "repeated", GENERATED, -1),
            f"share of outputs that end in a phrase {texts.REPEATS} times or more",
            _texts(lambda text, _: texts.is_repeated(text)),
        ),
        Metric(
            *(BITS, "bits per byte", (TEXT,), -1),
            "how unlikely the model finds the text, in bits for each of its bytes",
            _bits,
            unit="bits",
        ),
        Metric(
            *(KL, "KL from the base", (TEXT,), -1),
            "how far the next token's distribution went from the base's, in nats: the least that "
            "the likeliest tokens of both allow, some tenth less than over all tokens",
            None,
            unit="nats",
        ),
        Metric(
            *(CHOICES, "choices", (CHOICE,), 1),
            "share of items whose right choice is the likeliest for its length in bytes (acc_norm)",
            _field("correct"),
        ),
        Metric(
            *("acc", "choices by sum", (CHOICE,), 1),
            "share of items whose right choice is the likeliest as a whole (acc)",
            lambda rows: [
                float(max(r["scores"], key=r["scores"].get) == r["output"]) for r in rows
            ],
        ),
        Metric(
            *(P_CHOICE, "P(right choice)", (CHOICE,), 1),
            "probability of the right choice, if there were no answers but the choices",
            _of_option,
        ),
        Metric(
            *(FOLLOWED, "instructions", (INSTRUCTION,), 1),
            "share of answers that follow every rule of their instruction",
            _field("followed"),
        ),
    )
}
