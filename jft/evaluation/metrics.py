"""Metrics of items and cells; those of texts are computed by the libraries in common use."""

from __future__ import annotations

import functools
from collections.abc import Sequence

# Names of main metrics in the records of cells.
ACCURACY, ROUGE_L = "accuracy", "rougeL"


def item_field(metric: str) -> str:
    """Name the field of an item's record that holds its value of a metric."""
    return "correct" if metric == ACCURACY else metric


def rouge_l(prediction: str, reference: str) -> float:
    """Compute ROUGE-L in [0, 1]: the F-measure of the longest common subsequence, unstemmed."""
    return _rouge().score(reference, prediction)["rougeL"].fmeasure


def sentence_bleu(prediction: str, reference: str) -> float:
    """Compute BLEU of one text, in [0, 100] (`sacrebleu`'s defaults)."""
    import sacrebleu

    return sacrebleu.sentence_bleu(prediction, [reference]).score


def corpus_bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Compute BLEU of many texts together, in [0, 100] (`sacrebleu`'s defaults)."""
    import sacrebleu

    return sacrebleu.corpus_bleu(list(predictions), [list(references)]).score


@functools.cache
def _rouge():
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
