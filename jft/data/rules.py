"""Rules that the answer to an instruction has to meet, such as `max_words 5` or `contains blue`.

All rules of an instruction have to hold. Case does not count, but for `upper` and `lower`.

    max_words N, min_words N         at most, at least N words
    contains WORDS, excludes WORDS   these words, in this order, stand in the answer, or do not
    starts TEXT, ends TEXT           how the answer begins, how it ends
    one_of A|B|C                     it is one of these, whatever its punctuation
    number N                         N stands in it, in digits or, up to twelve, as a word
    upper, lower                     all its letters are capitals, or none is
    items N                          a list of N items, set apart by commas, `and` or line breaks
    language fr                      more short words of it than of the others (en, fr, de, es)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from jft.errors import UserError

# Short words that texts of a language can hardly do without.
COMMON = {
    "en": "the and is of to it you this with that are was i my he she we have in a has not for",
    "fr": "le la les un une de des et est il elle je tu nous vous dans avec pour sur pas que qui "
    "en du mon ma sa son ses a au très belle grande petite c'est bonjour merci",
    "de": "der die das ein eine und ist ich er sie es nicht zu mit den dem im auf für heute sehr "
    "wir haben hat mein von wird sind guten danke wetter",
    "es": "el la los las un una y es mi en de que con por para muy tiene está su me se del al yo "
    "amigo hola gracias buenos son",
}
NUMBER_WORDS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
]

# Marks that are taken off an answer's ends; digits that a number may have.
QUOTES, MOST_DIGITS = "\"'\u201c\u201d", 9

Check = Callable[[str, str], bool]


def words(text: str) -> list[str]:
    """Split a text into words in lower case; an apostrophe or hyphen inside parts none."""
    return re.findall(r"[^\W_]+(?:['\u2019-][^\W_]+)*", unicodedata.normalize("NFC", text).lower())


def follows(answer: str, rules: str) -> bool:
    """Check an answer, without quotation marks around it, against rules, one a line.

    An answer without any text follows none.
    """
    plain = answer.strip().strip(QUOTES).strip()
    return bool(plain) and all(_holds(plain, rule) for rule in rules.split("\n"))


def check_rule(rule: str, where: str) -> None:
    """Check that a rule is written as the module says, and that an answer can meet it or fail to.

    Raises:
      UserError: names the rule.
    """
    name, _, value = rule.partition(" ")
    forms = {
        "N": value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS,
        "TEXT": bool(value) and value == " ".join(value.split()) and value[-1] not in QUOTES,
        "WORDS": bool(value.strip("|")) and all(words(part) for part in value.split("|")),
        "": not value,
    }
    if name not in RULES or not forms[RULES[name][0]]:
        known = ", ".join(f"{name} {form}".strip() for name, (form, _) in RULES.items())
        raise UserError(f"{where}: the rule {rule[:80]!r} is none of {known}")
    if name == "language" and value not in COMMON:
        raise UserError(f"{where}: the rule {rule!r}: languages are {', '.join(COMMON)}")


def _holds(answer: str, rule: str) -> bool:
    name, _, value = rule.partition(" ")
    return RULES[name][1](answer, value)


def _stands_in(answer: str, text: str) -> bool:
    found, wanted = words(answer), words(text)
    places = range(len(found) - len(wanted) + 1)
    return any(found[i : i + len(wanted)] == wanted for i in places)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _is_one_of(answer: str, texts: str) -> bool:
    return words(answer) in [words(text) for text in texts.split("|")]


def _has_number(answer: str, number: str) -> bool:
    digits = (each.replace(",", "") for each in re.findall(r"\d+(?:[.,]\d+)*", answer))
    spelled = (str(NUMBER_WORDS.index(word)) for word in words(answer) if word in NUMBER_WORDS)
    return (number.lstrip("0") or "0") in [each.lstrip("0") or "0" for each in (*digits, *spelled)]


def _count_items(answer: str) -> int:
    parts = re.split(r"\n|,|;|\band\b", answer)
    return sum(bool(words(part)) for part in parts)


def _is_in(answer: str, language: str) -> bool:
    found = words(answer)
    hits = {name: sum(word in common.split() for word in found) for name, common in COMMON.items()}
    best = max(hits.values())
    return 0 < best == hits[language] and list(hits.values()).count(best) == 1


# Each rule with the form of its value, and how it is checked.
RULES: dict[str, tuple[str, Check]] = {
    "max_words": ("N", lambda answer, value: len(words(answer)) <= int(value)),
    "min_words": ("N", lambda answer, value: len(words(answer)) >= int(value)),
    "contains": ("WORDS", _stands_in),
    "excludes": ("WORDS", lambda answer, text: not _stands_in(answer, text)),
    "starts": ("TEXT", lambda answer, text: _plain(answer).startswith(_plain(text))),
    "ends": ("TEXT", lambda answer, text: _plain(answer).endswith(_plain(text))),
    "one_of": ("WORDS", _is_one_of),
    "number": ("N", _has_number),
    "upper": ("", lambda answer, _: any(map(str.isalpha, answer)) and answer == answer.upper()),
    "lower": ("", lambda answer, _: any(map(str.isalpha, answer)) and answer == answer.lower()),
    "items": ("N", lambda answer, value: _count_items(answer) == int(value)),
    "language": ("TEXT", _is_in),
}
