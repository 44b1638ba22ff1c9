"""Checks of the data that look at tokens: special tokens in texts, answers that merge with prompts.

See `checks`, which looks at the examples alone, and `length_checks`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from jft import config as config_lib
from jft.data.checks import DataFinding, finding
from jft.data.prompting.prompter import PromptEncoder, is_chat
from jft.data.prompting.prompts import Encoded
from jft.data.prompting.seams import AUTO, Encoder, is_apart, merged_tokens
from jft.data.rows.datasets import Dataset
from jft.errors import UserError
from jft.runtime.progress import say
from jft.tasks import GENERATED, Task, Trained

# A generation ends there: see `evaluation.generation.first_paragraph`.
BLANK_LINE = "\n\n"
# What programs write for a missing value, in lower case.
MISSING = ("nan", "none", "null", "<na>", "n/a", "#n/a")
# What a shell passes on where a line break was meant.
ESCAPED = re.compile(r"\\[nt]")


class SpellingEncoder(PromptEncoder, Protocol):
    """The part of a tokenizer that these checks need."""

    eos_text: str
    vocab_size: int
    # The id of what the tokenizer does not know; None where it knows every text.
    unk_id: int | None

    @property
    def prefix(self) -> Sequence[int]:
        """The ids that are put before every text."""
        ...

    @property
    def prefix_texts(self) -> Sequence[str]:
        """The spelling of these."""
        ...

    @property
    def special_texts(self) -> Sequence[str]:
        """The spelling of every special token."""
        ...


def special_tokens(dataset: Dataset, tokenizer: SpellingEncoder) -> list[DataFinding]:
    """Find texts that spell out special tokens, and outputs that hold the end of sequence."""
    eos, outputs = tokenizer.eos_text, []
    counts: dict[int, Counter[str]] = {}
    wanted = re.compile("|".join(map(re.escape, tokenizer.special_texts)) or r"(?!)")
    for i in dataset.usable:
        example = dataset.examples[i]
        outputs += [i] if eos and eos in example["output"] else []
        fields = [example[name] for name in dataset.task.fields]
        spelled = Counter(wanted.findall("\n".join([*fields, example["output"].replace(eos, "")])))
        if spelled:
            counts[i] = spelled
    which = ", ".join(sorted(set().union(*counts.values())))
    return [
        *finding(
            "special_tokens",
            dataset,
            sorted(counts),
            "{n} of {of} rows [spells|spell] out special tokens ({which}), which the tokenizer "
            "takes for control tokens, not for text; replace them in the file",
            which=which,
        ),
        *finding(
            "end_in_outputs",
            dataset,
            outputs,
            "{n} of {of} outputs [holds|hold] {eos}, the end of sequence, which jft adds itself, "
            "and before which a generation ends, so that nothing generated can equal "
            "[it|them]; remove it",
            eos=eos,
        ),
    ]


def unreachable_outputs(
    dataset: Dataset, tokenizer: SpellingEncoder, max_new_tokens: int, chat: bool
) -> list[DataFinding]:
    """Find references that no generation can equal; none where labels are scored.

    In a chat a generation does not end at a blank line.
    """
    if dataset.task.kind not in GENERATED:
        return []
    outputs = [example["output"] for example in dataset.examples]
    lengths = [len(ids) - len(tokenizer.prefix) for ids in tokenizer.encode(outputs)]
    so = "[its|their] scores are too low for any model"
    return [
        *(() if chat else _blank_lines(dataset, so)),
        *finding(
            "long_outputs",
            dataset,
            [i for i, length in enumerate(lengths) if length > max_new_tokens],
            "{n} of {of} outputs [has|have] more than eval.max_new_tokens={limit} tokens (at most "
            "{most}), where a generation is cut off; raise that",
            limit=str(max_new_tokens),
            most=str(max(lengths)),
        ),
    ]


def trained_blank_lines(dataset: Dataset) -> list[DataFinding]:
    """Find outputs to train on whose end evaluations never reach; none where there are labels."""
    if dataset.task.kind not in GENERATED:
        return []
    return _blank_lines(dataset, "what follows it is not scored")


def _blank_lines(dataset: Dataset, so: str) -> list[DataFinding]:
    outputs = [example["output"] for example in dataset.examples]
    return finding(
        "blank_lines",
        dataset,
        [i for i, output in enumerate(outputs) if BLANK_LINE in output.strip()],
        "{n} of {of} outputs [holds|hold] a blank line, at which a generation ends, so that "
        + so
        + "; replace blank lines by line breaks",
    )


def missing_values(dataset: Dataset) -> list[DataFinding]:
    """Find texts that are what programs write for a missing value."""
    found = [
        i
        for i, example in enumerate(dataset.examples)
        if any(example[name].strip().casefold() in MISSING for name in dataset.task.fields)
        or (example["output"].strip().casefold() in MISSING and not dataset.task.labels)
    ]
    text = (
        "{n} of {of} rows [has|have] a text such as NaN or None alone, which is how programs write "
        "a missing value; remove [it|them], unless that is the text"
    )
    return finding("missing_values", dataset, found, text)


def unknown_tokens(
    dataset: Dataset, encoded: Iterable[tuple[int, Encoded]], tokenizer: SpellingEncoder
) -> list[DataFinding]:
    """Find examples with characters that the tokenizer has no token for.

    Args:
      dataset: the examples.
      encoded: their indices and sequences.
      tokenizer: the model's.
    """
    if tokenizer.unk_id is None:
        return []
    found, among = set(), set()
    for i, each in encoded:
        among.add(i)
        if any((sequence.tokens == tokenizer.unk_id).any() for sequence in each.sequences):
            found.add(i)
    text = (
        "{n} of {of} rows [has|have] characters that the tokenizer does not know and takes all for "
        "one, so that the model cannot tell them apart; use a model of their language"
    )
    return finding("unknown_tokens", dataset, sorted(found), text, among=len(among))


def merged_answers(dataset: Dataset, merged: Sequence[tuple[int, int]]) -> list[DataFinding]:
    """Find answers to train on whose beginning the tokenizer merges with the end of the prompt.

    Args:
      dataset: the examples.
      merged: for each prompt the index of its example, and the number of tokens at its end that
        are targets.
    """
    found = sorted({i for i, tokens in merged if tokens})
    if not dataset.task.labels:
        so = "of the output, a token that no generation begins with"
    elif len({tokens for _, tokens in merged}) > 1:
        so = (
            "of the label ({labels}), but not in the others, so that a model can tell these labels "
            "from where tokens end"
        )
    else:
        return []
    text = (
        "in {n} of {of} examples the tokenizer merges the end of the prompt with the beginning "
        + so
        + "; set data.answer_tokens=apart, in evaluations, too, or end the template otherwise"
    )
    labels = ", ".join(sorted({dataset.examples[i]["output"] for i in found}))
    among = len({i for i, _ in merged})
    return finding("merged_answers", dataset, found, text, among=among, labels=labels)


def prompts_unlike_turns(dataset: Dataset, unlike: Sequence[tuple[int, int]]) -> list[DataFinding]:
    """Find chats whose turns do not begin with the prompt that the model answers in use.

    Args:
      dataset: the examples.
      unlike: for each prompt the index of its example, and the tokens at its end that the turn does
        not begin with.
    """
    found = sorted({i for i, tokens in unlike if tokens})
    text = (
        "in {n} of {of} examples the chat template writes a turn otherwise than the prompt to "
        "answer begins it (up to {most} tokens), so that the model learns what it does not see in "
        "use; try data.chat_variables, such as enable_thinking=False, or another "
        "data.chat_template"
    )
    most = str(max((tokens for _, tokens in unlike), default=0))
    among = len({i for i, _ in unlike})
    return finding("prompts_unlike_turns", dataset, found, text, among=among, most=most)


def answers_apart(
    setting: str, tokenizer: Encoder, task: Task, template: str, where: str
) -> list[DataFinding]:
    """Tell that answers are tokenized apart from their prompts, where `auto` decided so."""
    if setting != AUTO or not is_apart(setting, tokenizer, task, template):
        return []
    merged = merged_tokens(tokenizer, task, template)
    most = max(merged.values())
    some = [label for label, tokens in merged.items() if tokens == most]
    text = (
        f"the tokenizer merges the end of the prompt with {' and '.join(some)}, but not with all "
        f"labels of {task.name}, so that answers are tokenized apart from their prompts "
        "(data.answer_tokens=auto)"
    )
    return [DataFinding("decision", "answers_apart", where, 1, 1, [], text)]


def asked_otherwise(
    trained: str, asked: str, tokenizer: Encoder, prompts: Iterable[tuple[Task, str]], model: str
) -> list[DataFinding]:
    """Find that a model is asked with other tokens at the seam than it was trained with.

    Args:
      trained, asked: `data.answer_tokens` of its training, and of the evaluation.
      tokenizer: the model's.
      prompts: the task that it was trained on with each template that it is asked with.
      model: its name.
    """
    for task, text in prompts:
        if is_apart(trained, tokenizer, task, text) != is_apart(asked, tokenizer, task, text):
            sentence = (
                f"it was trained with data.answer_tokens={trained}, and is asked with {asked}, "
                f"which makes other tokens of the answers to {task.name}; set it to {trained} "
                "here, and where the base is evaluated"
            )
            return [DataFinding("warning", "asked_otherwise", model, 1, 1, [], sentence)]
    return []


def template(text: str, where: str, shots: int, tokenizer: SpellingEncoder) -> list[DataFinding]:
    """Find what a prompt template is unlikely to mean.

    Args:
      text: the template.
      where: its place, for the report.
      shots: demonstrations before each example, which repeat it.
      tokenizer: the model's.
    """
    found = []
    for token in tokenizer.prefix_texts:
        if token in text:
            again = ", and again before every demonstration" if shots else ""
            found.append(
                f"the template spells out {token}, which the tokenizer puts before every text "
                f"itself, so that it stands there twice{again}; remove it"
            )
    if escapes := sorted(set(ESCAPED.findall(text))):
        found.append(
            f"the template holds {' and '.join(escapes)} as two characters each, not as a line "
            "break or a tab; in a shell, write a line break within the quotes"
        )
    return [DataFinding("warning", "template", where, 1, 1, [], sentence) for sentence in found]


def asked_in_other_form(
    trained: config_lib.Data,
    asked: Iterable[tuple[Task, bool]],
    train: Trained | None,
    model: str,
) -> list[DataFinding]:
    """Find that a model is asked as a chat and was trained on text, or the other way round.

    Args:
      trained: the data of its training.
      asked: tasks, and whether they are asked through the chat template.
      train: (task, name) of its training sets.
      model: its name.
    """
    for task, chat in asked:
        if task.name in {name for name, _ in train or ()} and chat != is_chat(trained.chat, task):
            ways = ("plain text", "chats")
            sentence = (
                f"it was trained on {task.name} in {ways[not chat]}, and is asked it in "
                f"{ways[chat]}; set eval.chat={'text' if chat else 'chat'} here, and where the "
                "base is evaluated, unless that is the question"
            )
            return [DataFinding("warning", "asked_in_other_form", model, 1, 1, [], sentence)]
    return []


def check_tokens(
    encoded: Iterable[Encoded],
    tokenizer: SpellingEncoder,
    vocab_size: int,
    max_positions: int,
    model: str,
) -> None:
    """Check that a model can take sequences, and print a note where it was not made for them.

    Args:
      encoded: the sequences.
      tokenizer: the model's.
      vocab_size: the number of tokens that it has embeddings for.
      max_positions: the length that it was made for.
      model: its path, for messages.

    Raises:
      UserError: a token id that it has no embedding for.
    """
    longest, largest = 0, tokenizer.eos_id
    for ids in (sequence.tokens for each in encoded for sequence in each.sequences):
        longest, largest = max(longest, len(ids)), max(largest, int(ids.max()))
    if largest >= vocab_size:
        raise UserError(
            f"model.path={model}: its tokenizer gives the id {largest}, but it has embeddings for "
            f"{vocab_size} tokens; the tokenizer is another model's"
        )
    if tokenizer.vocab_size > vocab_size:
        say(
            f"note: the tokenizer of {model} knows {tokenizer.vocab_size} tokens, but it has "
            f"embeddings for {vocab_size}; texts with the others are refused"
        )
    if longest > max_positions:
        say(
            f"note: sequences of up to {longest} tokens, but {model} was made for {max_positions}; "
            "a lower data.max_length, or eval.max_length, shortens them"
        )
