"""Metrics of items and cells; those of texts are computed by the libraries in common use."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence

# Scripts that are written without spaces between words.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}"
# A sign of these with its marks, or a run of letters, digits and marks of others.
WORD = rf"(?V1)[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]+"
# Names of main metrics in the records of cells.
ACCURACY, ROUGE_L = "accuracy", "rougeL"


def item_field(metric: str) -> str:
    """Name the field of an item's record that holds its value of a metric."""
    return "correct" if metric == ACCURACY else metric


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


def sentence_bleu(prediction: str, reference: str) -> float:
    """Compute BLEU of one text, in [0, 100] (`sacrebleu`'s defaults)."""
    import sacrebleu

    return sacrebleu.sentence_bleu(prediction, [reference]).score


def corpus_bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Compute BLEU of many texts together, in [0, 100] (`sacrebleu`'s defaults)."""
    import sacrebleu

    return sacrebleu.corpus_bleu(list(predictions), [list(references)]).score


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
