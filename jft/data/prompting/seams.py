"""The seam of prompt and answer: one text whose tokens may span both, or tokens apart.

Qwen's tokenizer makes `:n` + `egative` of `:negative`, but `:` + `positive` of `:positive`. As one
text, the prompt of one label ends before the `:` and that of the other after it: a model learns to
tell the label from that alone. Apart, both follow the same `:`, as a generation does.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jft.data.prefix_tree import shared_length
from jft.errors import UserError
from jft.tasks import Task

# A text that is to continue another is tokenized after the first of these that stays a token of its
# own; its tokens are then left out. A line break merges with line breaks, a digit with digits.
ANCHORS = ("\n", "0", ".", "a")
AUTO, JOINED, APART = "auto", "joined", "apart"


class Encoder(Protocol):
    """The part of a tokenizer that prompts need."""

    eos_id: int

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Return the token ids of each text, with the tokenizer's own prefix."""
        ...


def is_apart(setting: str, tokenizer: Encoder, task: Task, template: str) -> bool:
    """Decide whether answers are tokenized apart from their prompts.

    Args:
      setting: `data.answer_tokens`; `auto` asks for it where some labels merge with the end of the
        template and others do not. A space at its end is joined even so: models have learned words
        with the space before them.
      tokenizer: the model's.
      task: with its labels.
      template: of the prompts.
    """
    if setting != AUTO or not task.labels or template.endswith((" ", "\t")):
        return setting == APART
    return len(set(merged_tokens(tokenizer, task, template).values())) > 1


def merged_tokens(tokenizer: Encoder, task: Task, template: str) -> dict[str, int]:
    """Count the tokens at the end of the template that merge with the beginning of each label."""
    tail = ""
    for text, field, *_ in string.Formatter().parse(template):  # escaped braces part a text, too
        tail = tail + text if field is None else ""
    before = "a" + tail  # the field before it ends in a letter, as far as is known
    ids = tokenizer.encode([before, *(before + label for label in task.labels)])
    return {
        label: len(ids[0]) - shared_length(ids[0], full)
        for label, full in zip(task.labels, ids[1:], strict=True)
    }


def tokenize(tokenizer: Encoder, texts: Sequence[tuple[str, ...]], apart: bool) -> list[np.ndarray]:
    """Tokenize texts that are given in parts, with the tokenizer's own prefix before each text.

    Args:
      tokenizer: the model's.
      texts: the parts of each, in their order.
      apart: whether no token may span two parts.

    Returns:
      The ids of each text, [tokens].
    """
    if not apart:
        return tokenizer.encode(["".join(parts) for parts in texts])
    first = list(dict.fromkeys(parts[0] for parts in texts))
    later = list(dict.fromkeys(part for _, *rest in texts for part in rest))
    begin = dict(zip(first, tokenizer.encode(first), strict=True))
    then = dict(zip(later, _continued(tokenizer, later), strict=True))
    return [np.concatenate([begin[head], *(then[part] for part in rest)]) for head, *rest in texts]


def _continued(tokenizer: Encoder, texts: list[str]) -> list[np.ndarray]:
    """Tokenize texts as they continue another, without the tokenizer's own prefix."""
    found: dict[str, np.ndarray] = {}
    for anchor in ANCHORS:
        rest = [text for text in texts if text not in found]
        alone, *ids = tokenizer.encode([anchor, *(anchor + text for text in rest)])
        for text, each in zip(rest, ids, strict=True):
            if shared_length(alone, each) == len(alone):
                found[text] = each[len(alone) :]
    for text in texts:
        if text not in found:
            raise UserError(
                f"{text!r:.80}: the tokenizer merges its beginning with whatever stands before it; "
                "set data.answer_tokens=joined"
            )
    return [found[text] for text in texts]
