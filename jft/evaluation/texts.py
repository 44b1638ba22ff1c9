"""Texts beside a reference, measured by the libraries in common use."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

# Scripts that are written without spaces between words.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}"
# A sign of these with its marks, or a run of letters, digits and marks of others.
WORD = rf"(?V1)[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]+"
# Repeated at the end of a text so often or more, a phrase is no style any more.
REPEATS, LONGEST_PHRASE = 4, 50
# With commas between thousands, or without; a hyphen after a word or a number is no sign.
NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)")


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


def last_number(text: str) -> Fraction | None:
    """Find the last number of a text, such as 1234.5 of `$1,234.50.`; None where there is none."""
    found = NUMBER.findall(text)
    return Fraction(found[-1].replace(",", "")) if found else None


def same_number(prediction: str, reference: str) -> float:
    """Compare the last numbers of two texts, exactly."""
    found = last_number(prediction)
    return float(found is not None and found == last_number(reference))


def matches(prediction: str, references: Sequence[str], pattern: re.Pattern) -> float:
    """Compare the last match of a pattern, its first group if it has one, with the references.

    Of references that have a match, such as whole solutions, it is the match that counts.
    """

    def answer(text: str) -> str | None:
        found = list(pattern.finditer(text))
        return (found[-1][1 if pattern.groups else 0] or "") if found else None

    given = answer(prediction)
    if given is None:
        return 0.0
    wanted = [each if (own := answer(each)) is None else own for each in references]
    return max(exact_match(given, each) for each in wanted)


def corpus_bleu(pairs: Sequence[tuple[str, Sequence[str]]]) -> list[float] | None:
    """Compute BLEU of all predictions, each with its references, together, in [0, 1].

    It is no mean of items. An item's value is a jackknife's: how much the whole gains by it, n
    times, so that their mean is the whole and their variance gives its standard error, as if the
    items were resampled. One value alone may lie outside [0, 1].
    """
    if len(pairs) < 2:
        return None
    parts = np.array([_bleu_counts(*pair) for pair in pairs], float)
    whole = parts.sum(axis=0)
    value, without = _bleu(whole), np.array([_bleu(whole - part) for part in parts])
    gained = (len(pairs) - 1) * (without.mean() - without)
    return (value + gained).tolist()


def _bleu_counts(prediction: str, references: Sequence[str]) -> list[int]:
    """Count what BLEU is made of: lengths, and n-grams right and in all, of 1 to 4 words."""
    import sacrebleu

    score = sacrebleu.sentence_bleu(prediction, list(references))
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def _bleu(counts: np.ndarray) -> float:
    from sacrebleu.metrics.bleu import BLEU

    output, reference, *grams = map(int, counts)
    score = BLEU.compute_bleu(grams[:4], grams[4:], output, reference, smooth_method="exp")
    return score.score / 100


def is_repeated(text: str) -> float:
    """Tell whether a text ends in a phrase that stands there four times or more."""
    ends = (text[-size:] for size in range(1, min(LONGEST_PHRASE, len(text) // REPEATS) + 1))
    return float(any(text.endswith(end * REPEATS) for end in ends if not end.isspace()))


def dropped_letters(text: str) -> float:
    """Compute the share of a Latin text's letters that ROUGE-L leaves out: those with accents.

    0 where most letters are of other alphabets, whose words it takes whole.
    """
    letters = [letter for letter in unicodedata.normalize("NFC", text) if letter.isalpha()]
    accented = sum(not letter.isascii() and _is_latin(letter) for letter in letters)
    plain = sum(letter.isascii() for letter in letters)
    return accented / len(letters) if 2 * (plain + accented) >= len(letters) > 0 else 0.0


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
