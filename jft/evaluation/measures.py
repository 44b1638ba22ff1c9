"""Functions behind the metrics: the values of a cell's items, from their records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from jft.evaluation import texts

Rows = Sequence[Mapping[str, Any]]


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

    # What is not listed is filled in, p over q being one ratio wherever that may be, and in the
    # rest of the rest, too: the root of a function that is linear between these ends.
    ends = np.sort(np.concatenate([p_alone / q_most, p_most / q_alone]))
    least = np.minimum(q_most * ends[:, None], p_alone).sum(1)
    least -= np.minimum(p_most, q_alone * ends[:, None]).sum(1)
    excess = p_rest - ends * q_rest + least
    below, at = np.r_[0.0, ends], np.r_[p_rest, excess]
    beyond = int(np.argmax(excess <= 0)) if (excess <= 0).any() else len(ends)
    ratio = below[beyond] + at[beyond] / q_rest  # beyond all ends, where all is filled up
    if beyond < len(ends):
        change = at[beyond] - excess[beyond]
        ratio = below[beyond] + (ends[beyond] - below[beyond]) * at[beyond] / change
    q_least, p_least = np.minimum(q_most, p_alone / ratio), np.minimum(p_most, q_alone * ratio)
    p_left, q_left = p_rest - p_least.sum(), q_rest - q_least.sum()
    unlisted = np.sum(p_alone * np.log(p_alone / q_least)) + np.sum(
        p_least * np.log(p_least / q_alone)
    )
    left = p_left * math.log(p_left / q_left) if min(p_left, q_left) > 0 else 0.0
    return max(0.0, known + float(unlisted) + left)


def p_gold(rows: Rows) -> list[float]:
    """Compute the probability of the gold label."""
    return [math.exp(min(0.0, row["scores"][row["output"]])) for row in rows]


def p_any_label(rows: Rows) -> list[float]:
    """Compute the probability of any label."""
    return [min(1.0, sum(map(math.exp, row["scores"].values()))) for row in rows]


def _among_labels(rows: Rows) -> tuple[list[str], np.ndarray]:
    """Compute the log-probabilities of the labels if there were no other answers."""
    labels = list(rows[0]["scores"])
    scores = np.array([[row["scores"][label] for label in labels] for row in rows], float)
    return labels, scores - special.logsumexp(scores, axis=1, keepdims=True)


def calibrated_accuracy(rows: Rows) -> list[float] | None:
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


def area_under_curve(rows: Rows) -> list[float] | None:
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
    from scipy import stats  # here, since few programs need it, and importing it takes 0.4 s

    ranks, values = stats.rankdata(scores), np.empty(len(scores))
    # Of a positive item the share of negatives below it, of a negative of positives above it.
    for of, sign in ((positive, 1), (~positive, -1)):
        others = len(scores) - int(of.sum())
        below = (ranks[of] - stats.rankdata(scores[of])) / others
        values[of] = below if sign > 0 else 1 - below
    area, share = values[positive].mean(), np.where(positive, positive.mean(), 1 - positive.mean())
    return area + (values - area) / share


def p_right_choice(rows: Rows) -> list[float]:
    """Compute the probability of the right choice if there were no answers but the choices."""
    shares = [special.softmax(list(row["scores"].values())) for row in rows]
    return [
        float(share[list(row["scores"]).index(row["output"])])
        for share, row in zip(shares, rows, strict=True)
    ]


def bits_per_byte(rows: Rows) -> list[float] | None:
    """Compute bits per byte of the texts that were read; None where one was not."""
    if not all("logprob" in row for row in rows):
        return None
    return [-row["logprob"] / math.log(2) / row["bytes"] for row in rows]


def golds(row: Mapping[str, Any]) -> list[str]:
    """List the references of an item, of which the best counts."""
    return [row["output"], *row.get("golds", ())]


def best_of_texts(of: Callable[[str, str], float]) -> Callable[[Rows], list[float]]:
    """Make a metric of a function from a generated text and a reference."""
    return lambda rows: [max(of(row["generation"], gold) for gold in golds(row)) for row in rows]


def bleu(rows: Rows) -> list[float] | None:
    """Compute BLEU of all outputs together; see `texts.corpus_bleu`."""
    return texts.corpus_bleu([(row["generation"], golds(row)) for row in rows])


def same_last_number(rows: Rows) -> list[float] | None:
    """Compare the last numbers of outputs and references; None where a reference has none."""
    if any(texts.last_number(gold) is None for row in rows for gold in golds(row)):
        return None
    return best_of_texts(texts.same_number)(rows)


def right_by_size(size_of: Callable[[str], int]) -> Callable[[Rows], list[float]]:
    """Make a metric of the choice that is the likeliest for its size."""

    def right(row: Mapping[str, Any]) -> float:
        scores = {text: score / size_of(text) for text, score in row["scores"].items()}
        return float(max(scores, key=scores.__getitem__) == row["output"])

    return lambda rows: [right(row) for row in rows]


def right_by_tokens(rows: Rows) -> list[float] | None:
    """Judge by the choice that is the likeliest for its tokens; None where these are not known."""
    if not all("tokens" in row for row in rows):
        return None
    found = []
    for row in rows:
        pairs = zip(row["scores"].items(), row["tokens"], strict=True)
        scores = {text: score / tokens for (text, score), tokens in pairs}
        found.append(float(max(scores, key=scores.__getitem__) == row["output"]))
    return found


def recorded(name: str) -> Callable[[Rows], list[float] | None]:
    """Make a metric of a field of the items' records; None where one lacks it."""

    def of(rows: Rows) -> list[float] | None:
        return [float(row[name]) for row in rows] if all(name in row for row in rows) else None

    return of
