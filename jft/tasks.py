"""Tasks, their examples, and the names of what is done with them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from jft.errors import UserError

# Letters, digits and signs as wide as Chinese ones.
WIDE = re.compile("[\uff00-\uffef]")
# Characters that are not seen: soft hyphens, joiners, directions, variants, byte order marks.
UNSEEN = re.compile(
    "[\ufe00-\ufe0f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
# The fields of its task, by name, and `output`.
Example = dict[str, str]

# How the items of a task are scored: by the likeliest of the task's labels; by a generated text
# beside the output; by the output itself, read; by the likeliest of an item's own choices; by rules
# for an answer.
LABELS, GENERATION, TEXT, CHOICE, INSTRUCTION = KINDS = (
    *("labels", "generation", "text", "choice", "instruction"),
)
# Those for which texts are generated.
GENERATED = (GENERATION, INSTRUCTION)


@dataclass(frozen=True, slots=True)
class Task:
    """A task: the fields of its examples, which of them may be shortened, and its labels.

    Attributes:
      name: the value of `data.task`, and the key in `prompt_map.json`.
      fields: the names of the inputs; an example holds these and `output`.
      texts: the fields that may lose their end when a sequence is too long.
      labels: the outputs allowed; of labels that score the same the first is predicted. Empty for
        all other kinds.
      scored: one of `KINDS`; empty: by labels where there are some, otherwise generated.
      delimiter: stands between a prompt in plain text and its answer; templates of the paper's
        tasks end where the answer begins.
    """

    name: str
    fields: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    scored: str = ""
    delimiter: str = ""

    @property
    def kind(self) -> str:
        """The way in which its items are scored, one of `KINDS`."""
        return self.scored or (LABELS if self.labels else GENERATION)

    def inputs(self, example: Example) -> tuple[str, ...]:
        """Return the identity of an example: its fields, without its output, by `same_text`.

        Of a task without fields it is the output, a text alone. Examples with the same inputs count
        as the same wherever examples are compared.
        """
        return tuple(same_text(example[name]) for name in self.fields or ("output",))


def answers_of(task: Task, example: Example) -> tuple[str, ...]:
    """List the answers that are compared: the task's labels, or the example's own choices."""
    if task.kind != CHOICE:
        return task.labels
    choices = example["choices"]
    return tuple(choices.split("\n") if task.name in RETENTION_TASKS else json.loads(choices))


def same_text(text: str) -> str:
    """Return what texts have in common that a reader takes for the same.

    Differences in case, in white space, in how accents (Unicode normalization form C) and widths
    are encoded, and in characters that are not seen are left out.
    """
    if not text.isascii():
        text = WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
        text = UNSEEN.sub("", unicodedata.normalize("NFC", text))
    # Folding may take a character apart again.
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


IN_DOMAIN, OUT_OF_DOMAIN, OUT_OF_TASK = TRANSFER = ("in-domain", "out-of-domain", "out-of-task")
RETENTION = "retention"
# Rows that a run is judged by while it is trained; of probes alone.
VALIDATION = "validation"
RELATIONS = (*TRANSFER, RETENTION)

TASKS = {
    task.name: task
    for task in (
        Task("summary", ("input",), ("input",)),
        Task("question", ("input", "answer"), ("input",)),
        Task("sentiment", ("input",), ("input",), ("positive", "negative")),
        Task(
            "inference",
            ("input_1", "input_2"),
            ("input_1", "input_2"),
            ("entailment", "neutral", "contradiction"),
        ),
        Task("detection", ("input_1", "input_2"), ("input_1", "input_2"), ("yes", "no")),
    )
}

# Tasks of rows that say by their columns what is to be learned: see `data.rows.forms`.
CONVERSATION = Task("conversation", ("messages",), ())
COMPLETION = Task("completion", ("prompt",), ("prompt",))
INSTRUCTED = Task("instruction", ("prompt",), ("prompt",))
PLAIN_TEXT = Task("text", (), (), scored=TEXT)
CHOSEN_TEXT = Task("choice", ("input", "choices"), ("input",), scored=CHOICE, delimiter=" ")
CHOSEN_LETTER = Task("letter", ("input", "options"), ("input",), scored=CHOICE, delimiter=" ")
FORM_TASKS = {
    task.name: task
    for task in (
        *(CONVERSATION, COMPLETION, INSTRUCTED, PLAIN_TEXT),
        *(CHOSEN_TEXT, CHOSEN_LETTER),
    )
}

# Tasks of the retention panel, which no model is trained on: see `data.retention`. The prompts of
# other tasks are texts to read, too.
PROMPTS = "prompts of tasks"
RETENTION_TASKS = {
    task.name: task
    for task in (
        Task("general text", (), (), scored=TEXT),
        Task(PROMPTS, (), (), scored=TEXT),
        Task("multiple choice", ("input", "choices"), ("input",), scored=CHOICE, delimiter=" "),
        Task("instructions", ("input", "checks"), ("input",), scored=INSTRUCTION),
    )
}


def own_task(name: str, fields: tuple[str, ...], labels: tuple[str, ...]) -> Task:
    """Make a task of the user's own.

    Raises:
      UserError: a task of the retention panel has its name.
    """
    if name in RETENTION_TASKS:
        raise UserError(f"data.task={name}: is jft's own, of the retention panel; choose another")
    return Task(name, fields, fields, labels)


# (task, name) of each set that a model was trained on.
Trained = Collection[tuple[str, str]]


def relation(train: Trained | None, test: tuple[str, str]) -> str:
    """Name the relation of a test set to the training sets of a model.

    Args:
      train: of the model; None for a model that was not fine-tuned here.
      test: (task, name) of the test set.

    Returns:
      `base`, `in-domain`, `out-of-domain` (same task, other data), `out-of-task` or `retention`.
    """
    if train is None:
        return "base"
    if test[0] in RETENTION_TASKS:
        return RETENTION
    if test in train:
        return IN_DOMAIN
    return OUT_OF_DOMAIN if test[0] in {task for task, _ in train} else OUT_OF_TASK


def method(shots: int) -> str:
    """Name training with `shots` demonstrations before every example."""
    return f"FTICL-{shots}" if shots else "FT"


def shots_by_task(
    path: str, values: tuple[str, ...], tasks: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """Read the shots that a key such as `eval.task_shots` gives to tasks: `question=0/1/2`.

    Raises:
      UserError: a value is not written so, or there is no such task.
    """
    found = {}
    for value in values:
        task, _, numbers = value.partition("=")
        parts = numbers.split("/")
        if not task or not all(part.isdecimal() for part in parts):
            raise UserError(f"{path}={value}: is written task=0/1/2")
        if task not in tasks:
            raise UserError(f"{path}={value}: no task {task}; there are {', '.join(tasks)}")
        if task in found:
            raise UserError(f"{path}={value}: {task} stands twice; give its numbers together")
        found[task] = tuple(map(int, parts))
    return found
