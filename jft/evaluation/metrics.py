"""Metrics of an item and of a cell; those of texts by the libraries that everyone compares with."""

from __future__ import annotations

import functools
from collections.abc import Sequence

# What a cell's record calls its main metric.
ACCURACY, ROUGE_L = "accuracy", "rougeL"


def item_field(metric: str) -> str:
    """Where an item's record holds its value of a metric."""
    return "correct" if metric == ACCURACY else metric


def rouge_l(prediction: str, reference: str) -> float:
    """The F-measure of the longest common subsequence, in [0, 1] (`rouge-score`, no stemming)."""
    return _rouge().score(reference, prediction)["rougeL"].fmeasure


def sentence_bleu(prediction: str, reference: str) -> float:
    """BLEU of one text, in [0, 100] (`sacrebleu`'s defaults)."""
    import sacrebleu

    return sacrebleu.sentence_bleu(prediction, [reference]).score


def corpus_bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of many texts together, in [0, 100] (`sacrebleu`'s defaults)."""
    import sacrebleu

    return sacrebleu.corpus_bleu(list(predictions), [list(references)]).score


@functools.cache
def _rouge():
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
