"""Checks of lengths: what does not fit, inputs that were shortened, answers that were spared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jft.data.checks import DataFinding, finding
from jft.data.rows.datasets import Dataset
from jft.errors import UserError

# A few requests that do not fit are skipped; more, and the limit is wrong.
MAX_UNFIT = 0.1


class LengthLimit(NamedTuple):
    """The limit that prompts with their answers have to fit.

    Attributes:
      shots: demonstrations in each prompt.
      max_length: the limit, in tokens.
      key: the config key of the limit.
    """

    shots: int
    max_length: int
    key: str = "data.max_length"

    @property
    def remedy(self) -> str:
        """The advice about prompts that are too long."""
        return f"raise {self.key}{', or use fewer shots' if self.shots else ''}"

    def __str__(self) -> str:
        """Name the limit and the demonstrations, as messages do."""
        return f"{self.key}={self.max_length} at {self.shots} shot{'s' * (self.shots != 1)}"


class PromptLength(NamedTuple):
    """The length of an example with its prompt and answer.

    Attributes:
      example: its index; an example may come more than once.
      whole: tokens with the whole input.
      kept: tokens after the input was shortened; 0 where it does not fit at all.
    """

    example: int
    whole: int
    kept: int


def refuse_unfit(dataset: Dataset, unfit: dict[int, int], of: int, limit: LengthLimit) -> None:
    """Refuse data of which too much does not fit, even with an empty input.

    Args:
      dataset: the examples.
      unfit: the length with an empty input, in tokens, of those that do not fit, by index.
      of: the number of examples looked at.
      limit: what they have to fit.

    Raises:
      UserError: more than a tenth do not fit.
    """
    if len(unfit) > MAX_UNFIT * of:
        first = min(unfit)
        raise UserError(
            f"{dataset.where(first)}: {unfit[first]} tokens{_emptied(dataset)}; it and "
            f"{len(unfit) - 1} more of {of} examples do not fit {limit}; {limit.remedy}"
        )


def unfit(dataset: Dataset, found: Sequence[int], limit: LengthLimit) -> list[DataFinding]:
    """Report examples that are skipped since they do not fit, even with an empty input."""
    text = "{n} of {of} examples [does|do] not fit {limit}{emptied}, and [is|are] skipped; {remedy}"
    emptied = f",{_emptied(dataset)}" * bool(dataset.task.texts)
    return finding(
        "too_long",
        dataset,
        sorted(found),
        text,
        emptied=emptied,
        limit=str(limit),
        remedy=limit.remedy,
    )


def _emptied(dataset: Dataset) -> str:
    return " even with an empty input" if dataset.task.texts else ""


def shortened(
    dataset: Dataset, lengths: Sequence[PromptLength], limit: LengthLimit
) -> list[DataFinding]:
    """Find inputs that lost their end to fit, or conversations that lost turns."""
    check, text = (
        "shortened_inputs",
        "{n} of {of} inputs [loses|lose] {mean} tokens on average and {most} at most from "
        "[its|their] end to fit {limit}, so that the model does not see them; {remedy}",
    )
    if not dataset.task.texts:
        check, text = (
            "turns_left_out",
            "{n} of {of} conversations [has|have] turns that do not fit {limit}, which are not "
            "learned; {remedy}",
        )
    lost = {each.example: each.whole - each.kept for each in lengths if each.kept}
    found = {i: tokens for i, tokens in lost.items() if tokens}
    sizes = list(found.values()) or [0]
    return finding(
        check,
        dataset,
        sorted(found),
        text,
        among=len(lost),
        mean=f"{np.mean(sizes):.0f}",
        most=str(max(sizes)),
        limit=str(limit),
        remedy=limit.remedy,
    )


def answers_cut(
    dataset: Dataset, lengths: Sequence[PromptLength], limit: LengthLimit
) -> list[DataFinding]:
    """Find examples whose answer would be cut if sequences lost their end, not their input."""
    if not dataset.task.texts:
        return []
    text = (
        "{n} of {of} examples would lose part of [its|their] answer if sequences were cut at "
        "{limit}, as is common; jft shortens the input instead, so nothing need be done"
    )
    # The last of the tokens is the end of sequence, no part of the answer.
    found = {each.example for each in lengths if each.whole - 1 > limit.max_length}
    return finding(
        "answers_cut",
        dataset,
        sorted(found),
        text,
        "note",
        among=len({each.example for each in lengths}),
        limit=str(limit),
    )
