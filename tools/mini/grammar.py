"""The small language in which the material of `mini` is written.

`# ` begins a comment. `## slots` opens lists of fillers, one list a line, fillers divided by `|`
and the linked forms of one filler by `/`:

    name: Anna/she/her/her | Ben/he/him/his

`## frames` opens blocks divided by blank lines; a line of a block is `tag: text`, and an indented
line continues the one above. In a text, `{name}` is a filler, `{name.1}` its second form, `{name1}`
and `{name2}` are two different fillers of one list, `{a name}` puts the right article before it,
and `[big|large]` is either word.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
SLOT = re.compile(r"\{(a )?([a-z_]+)(\d?)(?:\.(\d))?\}")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
# Beginnings of words that are spelt with a vowel and spoken with a consonant, and the reverse.
SPOKEN_CONSONANT = ("uni", "use", "one", "eur", "ute", "uku")
SPOKEN_VOWEL = ("hour", "heir", "honest", "8", "11", "18", "x-ray", "mri", "fm")

Frame = list[tuple[str, str]]


@dataclass(frozen=True)
class Material:
    """The fillers of each slot, by its name, and the frames, each a list of (tag, text)."""

    slots: dict[str, list[list[str]]]
    frames: list[Frame]

    def draw(self, rng: random.Random, held_out: bool) -> Iterator[Frame]:
        """Draw endless frames, all of them in each round; every sixth only if `held_out`."""
        frames = [frame for i, frame in enumerate(self.frames) if held_out or i % 6 != 5]
        while True:
            yield from rng.sample(frames, len(frames))


def read_material(name: str) -> Material:
    """Read the material of `<task>_<dataset>`."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    sections: dict[str, list[str]] = {"slots": [], "frames": []}
    current: list[str] = []
    for line in text.strip().splitlines():
        if line.startswith("# "):
            continue
        if line.startswith("## "):
            current = sections[line[3:].strip()]
        elif line.startswith("  "):
            current[-1] += " " + line.strip()
        else:
            current.append(line.strip())
    slots = {}
    for line in filter(None, sections["slots"]):
        name, _, fillers = line.partition(":")
        slots[name] = [[f.strip() for f in filler.split("/")] for filler in fillers.split("|")]
    frames: list[Frame] = [[]]
    for line in sections["frames"]:
        if not line:
            frames.append([])
            continue
        tag, _, rest = line.partition(":")
        frames[-1].append((tag.strip(), rest.strip()))
    return Material(slots, [frame for frame in frames if frame])


def texts(frame: Frame, tag: str) -> list[str]:
    """List the texts of a frame with a tag."""
    return [text for found, text in frame if found == tag]


def article(word: str) -> str:
    """Return "a" or "an", by the sound that a word begins with."""
    lower = word.lower()
    if lower.startswith(SPOKEN_VOWEL):
        return "an"
    vowel = lower[0] in "aeiou" and not lower.startswith(SPOKEN_CONSONANT)
    return "an" if vowel else "a"


class Filler:
    """One draw of fillers: all texts that it fills speak of the same persons and things."""

    def __init__(self, slots: dict[str, list[list[str]]], rng: random.Random):
        """Draw from `slots` with `rng`, each when it is first needed."""
        self.slots, self.rng = slots, rng
        self.drawn: dict[str, list[str]] = {}

    def draw(self, name: str, number: str) -> list[str]:
        """Return the filler of a slot; different numbers of one name have different fillers."""
        key = name + number
        if key not in self.drawn:
            taken = [v for k, v in self.drawn.items() if k.rstrip("0123456789") == name]
            self.drawn[key] = self.rng.choice([v for v in self.slots[name] if v not in taken])
        return self.drawn[key]

    def swapped(self, first: str, second: str) -> Filler:
        """Make a copy with two slots, or the two forms of one (`unit unit.1`), exchanged."""
        other = Filler(self.slots, self.rng)
        if second == first + ".1":
            other.drawn = self.drawn | {first: self.drawn[first][::-1]}
            return other
        a, b = (self.draw(key.rstrip("0123456789"), key[-1:]) for key in (first, second))
        other.drawn = self.drawn | {first: b, second: a}
        return other

    def fill(self, text: str, sentence_case: bool = True) -> str:
        """Make the choices of a text and fill its slots; sentences begin with a capital."""
        while CHOICE.search(text):
            text = CHOICE.sub(lambda m: self.rng.choice(m[1].split("|")), text, count=1)

        def one(match: re.Match[str]) -> str:
            wants_article, name, number, form = match.groups()
            word = self.draw(name, number)[int(form or 0)]
            return f"{article(word)} {word}" if wants_article else word

        text = " ".join(SLOT.sub(one, text).split())
        return capitalized(text) if sentence_case else text


def capitalized(text: str) -> str:
    """Begin each sentence of a text with a capital."""
    return re.sub(r"(^|[.!?]\"? )([\"(]?)([a-z])", lambda m: m[1] + m[2] + m[3].upper(), text)


def words(text: str) -> list[str]:
    """List the words and numbers of a text, in lower case."""
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower())


def jaccard(first: str, second: str) -> float:
    """Divide the number of words that two texts share by the number of all their words."""
    a, b = set(words(first)), set(words(second))
    return len(a & b) / max(1, len(a | b))
