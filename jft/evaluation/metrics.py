"""Metrics of items and cells; those of texts are computed by the libraries in common use."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

# Scripts that are written without spaces between words.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}"
# A sign of these with its marks, or a run of letters, digits and marks of others.
WORD = rf"(?V1)[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]+"
# Names of the main metrics of tasks with labels, and of others.
ACCURACY, ROUGE_L = "accuracy", "rougeL"
# Stands in for accuracy where that has no room to fall.
P_GOLD = "p_gold"
# Repeated at the end of a text so often or more, a phrase is no style any more.
REPEATS, LONGEST_PHRASE = 4, 50

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the items of a cell.

    To add one is to add it to `METRICS`; results and reports find it there.

    Attributes:
      name: in records.
      title: in prose.
      labels: whether it is of tasks whose labels are scored, or of generated texts.
      direction: 1 if more is better, -1 if less is, 0 if neither.
      meaning: one sentence, for readers of a report.
      of: computes the values of a cell's items, whose mean is the cell's, from their records; None
        where they mean nothing there. Values lie in [0, 1] but where `meaning` says otherwise.
    """

    name: str
    title: str
    labels: bool
    direction: int
    meaning: str
    of: Callable[[Rows], list[float] | None]


def measure(rows: Rows, labels: bool) -> dict[str, list[float]]:
    """Compute all metrics of a cell; a list of the values of its items for each.

    Only accuracy has a meaning where a gold output is no label that was scored.
    """
    known = not labels or all(row["output"] in row["scores"] for row in rows)
    wanted = [m for m in METRICS.values() if m.labels == labels and (known or m.name == ACCURACY)]
    found = {metric.name: metric.of(rows) for metric in wanted}
    return {name: values for name, values in found.items() if values is not None}


def _accuracy(rows: Rows) -> list[float]:
    return [float(row["correct"]) for row in rows]


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


def _texts(of: Callable[[str, str], float]) -> Callable[[Rows], list[float]]:
    """Make a metric of a function from a generated text and its reference."""
    return lambda rows: [of(row["generation"], row["output"]) for row in rows]


def rouge_l(prediction: str, reference: str) -> float:
    """Compute ROUGE-L in [0, 1]: the F-measure of the longest common subsequence, unstemmed.

    Words are those of `rouge_score`, as in publications: of Latin letters without accents, and
    digits. Where most letters of the reference are of other alphabets, of which that leaves
    nothing, they are runs of letters and digits of any, and each sign of a script that is written
    without spaces. Of a reference without any word a prediction is equal, or it is not.
    """
    letters = [character for character in reference if character.isalpha()]
    latin = sum(character.isascii() or _is_latin(character) for character in letters)
    plain = 2 * latin >= len(letters) and re.search("[a-z0-9]", reference.lower())
    if not plain and not _Words().tokenize(reference):
        return float(prediction.split() == reference.split())  # signs alone, such as emoji
    return _rouge(bool(plain)).score(reference, prediction)["rougeL"].fmeasure


def chrf(prediction: str, reference: str) -> float:
    """Compute chrF in [0, 1]: the F-measure of character n-grams, for any script."""
    return _chrf().sentence_score(prediction, [reference]).score / 100


@functools.cache
def _chrf():
    import sacrebleu

    return sacrebleu.CHRF()


def words(text: str) -> list[str]:
    """Split a text into words as SQuAD's metrics do: no case, punctuation or articles."""
    import regex

    plain = regex.sub(r"[\p{P}\p{S}]", " ", unicodedata.normalize("NFKC", text).lower())
    return [word for word in _Words().tokenize(plain) if word not in ("a", "an", "the")]


def exact_match(prediction: str, reference: str) -> float:
    """Compare two texts word by word."""
    return float(words(prediction) == words(reference))


def token_f1(prediction: str, reference: str) -> float:
    """Compute the F-measure of the words that two texts have in common, whatever their order."""
    found, wanted = Counter(words(prediction)), Counter(words(reference))
    if not found or not wanted:
        return float(found == wanted)
    common = (found & wanted).total()
    return 2 * common / (found.total() + wanted.total())


def _corpus_bleu(rows: Rows) -> list[float] | None:
    """Compute BLEU of all texts of a cell together, in [0, 1].

    It is no mean of items. An item's value is a jackknife's: how much the whole gains by it, n
    times, so that their mean is the whole and their variance gives its standard error, as if the
    items were resampled. One value alone may lie outside [0, 1].
    """
    if len(rows) < 2:
        return None
    parts = np.array([_bleu_counts(row["generation"], row["output"]) for row in rows], float)
    whole = parts.sum(axis=0)
    value, without = _bleu(whole), np.array([_bleu(whole - part) for part in parts])
    gained = (len(rows) - 1) * (without.mean() - without)
    return (value + gained).tolist()


def _bleu_counts(prediction: str, reference: str) -> list[int]:
    """Count what BLEU is made of: lengths, and n-grams right and in all, of 1 to 4 words."""
    import sacrebleu

    score = sacrebleu.sentence_bleu(prediction, [reference])
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def _bleu(counts: np.ndarray) -> float:
    from sacrebleu.metrics.bleu import BLEU

    output, reference, *grams = map(int, counts)
    score = BLEU.compute_bleu(grams[:4], grams[4:], output, reference, smooth_method="exp")
    return score.score / 100


def _is_repeated(text: str) -> float:
    """Tell whether a text ends in a phrase that stands there four times or more."""
    ends = (text[-size:] for size in range(1, min(LONGEST_PHRASE, len(text) // REPEATS) + 1))
    return float(any(text.endswith(end * REPEATS) for end in ends if not end.isspace()))


def _is_latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith("LATIN")


class _Words:
    """A tokenizer for `rouge_score`, of texts in any alphabet."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words."""
        import regex

        return regex.findall(WORD, unicodedata.normalize("NFKC", text).lower())


@functools.cache
def _rouge(latin: bool):
    from rouge_score import rouge_scorer

    tokenizer = None if latin else _Words()
    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False, tokenizer=tokenizer)


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            *(ACCURACY, "accuracy", True, 1),
            "share of items whose gold label is the likeliest of the labels",
            _accuracy,
        ),
        Metric(
            *(P_GOLD, "P(gold)", True, 1),
            "probability of the gold label after the prompt, among all texts",
            _gold,
        ),
        Metric(
            *("p_label", "P(any label)", True, 1),
            "probability of any label of the task: whether the model answers in this form at all",
            _any_label,
        ),
        Metric(
            *("calibrated", "calibrated accuracy", True, 1),
            "accuracy after each label was divided by its mean probability on the other items, "
            "which takes out what a model prefers whatever the item",
            _calibrated,
        ),
        Metric(
            *("auc", "AUC", True, 1),
            "how well the label's probability ranks items, whatever the threshold; 50 is chance",
            _auc,
        ),
        Metric(
            *(ROUGE_L, "ROUGE-L", False, 1),
            "longest common subsequence of words with the reference, F-measure",
            lambda rows: [row[ROUGE_L] for row in rows],
        ),
        Metric(
            *("chrf", "chrF", False, 1),
            "common runs of characters with the reference, F-measure; for any script",
            _texts(chrf),
        ),
        Metric(
            *("bleu", "BLEU", False, 1),
            "common runs of up to four words, all texts of a set together",
            _corpus_bleu,
        ),
        Metric(
            *("exact", "exact match", False, 1),
            "the reference's words and no others, without case, punctuation and articles",
            _texts(exact_match),
        ),
        Metric(
            *("f1", "token F1", False, 1),
            "common words with the reference, whatever their order",
            _texts(token_f1),
        ),
        Metric(
            *("empty", "empty", False, -1),
            "share of outputs without any text",
            _texts(lambda text, _: float(not text.strip())),
        ),
        Metric(
            *("repeated", "repeated", False, -1),
            f"share of outputs that end in a phrase {REPEATS} times or more",
            _texts(lambda text, _: _is_repeated(text)),
        ),
    )
}
