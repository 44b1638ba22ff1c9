"""Forms of rows: which columns they have, and the task and the examples that are made of them.

    form         columns                                     task           predicted
    task         the fields of `data.task`, and output       `data.task`    output
    messages     messages, or conversations                  conversation   the assistant's turns
    completion   prompt and completion, text or messages     completion     completion
    instruction  instruction and output, perhaps input       instruction    output
    choices      a question, choices and the answer          choice         the right choice
    letters      the same, where it is asked for              letter         the right letter
    text         text alone                                  text           all of it

A row in `messages`, and a completion of messages, becomes an example with what it asks as JSON in
the field `messages`, its last turn as JSON in `turn`, and the text of that as its output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from jft.data.rows import choices
from jft.data.rows.messages import ASSISTANT, SYSTEM, Message, read_messages
from jft.errors import UserError
from jft.tasks import (
    CHOSEN_LETTER,
    CHOSEN_TEXT,
    COMPLETION,
    CONVERSATION,
    INSTRUCTED,
    PLAIN_TEXT,
    Example,
    Task,
)

AUTO, TASK = "auto", "task"
# The prompts of tasks that are known by their form, as text. Of a chat model the user says the
# fields alone.
TEMPLATES = {
    CONVERSATION.name: "",
    COMPLETION.name: "{prompt}",
    INSTRUCTED.name: "### Instruction:\n{prompt}\n\n### Response:\n",
    PLAIN_TEXT.name: "",
    CHOSEN_TEXT.name: "Question: {input}\nAnswer:",
    CHOSEN_LETTER.name: "Question: {input}\n{options}\nAnswer:",
}
# Columns that hold a conversation, by any of their names.
CONVERSATIONS = ("messages", "conversations", "conversation", "chat")
ANSWERS = ("completion", "response")


class Form(NamedTuple):
    """A form of rows.

    Attributes:
      fits: whether a row has this form, by its columns and which are filled.
      task: of its examples.
      example: makes an example of a row; `where` names the row in errors.
    """

    fits: Callable[[Mapping[str, Any]], bool]
    task: Task
    example: Callable[[Mapping[str, Any], str], Example]


def recognize(first: Any, fields: Iterable[str]) -> str:
    """Name the form of rows by the columns of the first; `task` where they have its fields.

    Rows with an instruction, an input and an output have that form even so.

    Args:
      first: the first row.
      fields: those of `data.task`, and `output`.

    Returns:
      One of `FORMS`, or `task`.
    """
    own = set(fields)
    if not isinstance(first, Mapping):
        return TASK
    if own <= first.keys() and ("instruction" not in first or "instruction" in own):
        return TASK
    filled = next((name for name, form in FORMS.items() if form.fits(first)), TASK)
    present = {name: "" if value is None else value for name, value in first.items()}
    return filled if filled != TASK else next((n for n in FORMS if fits(n, present)), TASK)


def _column(row: Mapping[str, Any], names: Iterable[str]) -> str:
    return next((name for name in names if row.get(name) is not None), "")


def _is_messages(row: Mapping[str, Any]) -> bool:
    return bool(_column(row, CONVERSATIONS)) and not _is_completion(row)


def _of_messages(row: Mapping[str, Any], where: str) -> Example:
    name = _column(row, CONVERSATIONS)
    if not name:
        raise UserError(f"{where}: messages is missing; fill it in, or remove the row")
    for other in CONVERSATIONS:
        if row.get(other) not in (None, row[name]):
            raise UserError(f"{where}: has {name} and {other}; leave one of them out")
    messages = _with_system_of(row, read_messages(row[name], where), where)
    return conversation(messages, row.get("tools"), where)


def _with_system_of(row: Mapping[str, Any], messages: list[Message], where: str) -> list[Message]:
    """Put the system message of a column of its own before messages that have none."""
    system = row.get("system")
    if system is not None and not isinstance(system, str):
        raise UserError(f"{where}: system={system!r:.40}: must be text")
    return with_system(messages, system) if system and system.strip() else messages


def _is_completion(row: Mapping[str, Any]) -> bool:
    return "prompt" in row and any(name in row for name in ANSWERS)


def _of_completion(row: Mapping[str, Any], where: str) -> Example:
    prompt, answer = row["prompt"], _answer(row, ANSWERS, where)
    if isinstance(prompt, str) and isinstance(answer, str):
        return {"prompt": prompt, "output": answer}
    for name, each in (("prompt", prompt), ("completion", answer)):
        if each is None or isinstance(each, int | float):
            raise UserError(f"{where}: {name}={each!r}: must be text, or messages")
    if isinstance(prompt, str) or isinstance(answer, str):
        raise UserError(f"{where}: prompt and completion must both be text, or both messages")
    asked, answered = (read_messages(each, where) for each in (prompt, answer))
    asked = _with_system_of(row, asked, where)
    return conversation([*asked, *answered], row.get("tools"), where, len(asked))


def _is_instruction(row: Mapping[str, Any]) -> bool:
    return "instruction" in row and any(name in row for name in ("output", *ANSWERS))


def _of_instruction(row: Mapping[str, Any], where: str) -> Example:
    if row.get("history"):
        raise UserError(f"{where}: history is not read; give such rows as messages")
    names = ("system", "instruction", "input")
    asked = {name: _number_as_text(row[name]) for name in names if row.get(name) not in (None, "")}
    answer = _answer(row, ("output", *ANSWERS), where)
    for name, each in (asked | {"instruction": row["instruction"], "output": answer}).items():
        if not isinstance(each, str):
            raise UserError(f"{where}: {name}={each!r:.40}: must be text")
    return {"prompt": "\n\n".join(asked.values()), "output": answer}


def _answer(row: Mapping[str, Any], names: Iterable[str], where: str) -> Any:
    """Return what a row answers; a whole number is text, as in a column of numbers."""
    return _number_as_text(row.get(_column(row, names)))


def _number_as_text(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
        return value
    return str(int(value))  # Parquet and CSV readers make 2.0 of 2


def _is_text(row: Mapping[str, Any]) -> bool:
    return "text" in row and not {"label", "output", "completion"} & row.keys()


def _of_text(row: Mapping[str, Any], where: str) -> Example:
    if not isinstance(row["text"], str):
        raise UserError(f"{where}: text={row['text']!r:.40}: must be text")
    return {"output": row["text"]}


def _of_choices(row: Mapping[str, Any], where: str) -> Example:
    return choices.read_choices(row, where).by_text()


def _of_letters(row: Mapping[str, Any], where: str) -> Example:
    return choices.read_choices(row, where).by_letter()


FORMS = {
    "choices": Form(choices.is_choice, CHOSEN_TEXT, _of_choices),
    "letters": Form(choices.is_choice, CHOSEN_LETTER, _of_letters),
    "messages": Form(_is_messages, CONVERSATION, _of_messages),
    "completion": Form(_is_completion, COMPLETION, _of_completion),
    "instruction": Form(_is_instruction, INSTRUCTED, _of_instruction),
    "text": Form(_is_text, PLAIN_TEXT, _of_text),
}


def of_task(task: str) -> list[str]:
    """List the forms whose rows may be of a task; none for a task of fields."""
    names = [name for name, form in FORMS.items() if form.task.name == task]
    return [*names, "completion"] if task == CONVERSATION.name else names


def fits(form: str, row: Any) -> bool:
    """Check whether a row has a form, by its columns."""
    return isinstance(row, Mapping) and FORMS[form].fits(row)


def reader(form: str, first: Any) -> tuple[Task, Callable[[Any, str], Example]]:
    """Return the task of rows of a form, and what makes an example of one, given its name.

    Prompts and completions that are messages are conversations.

    Args:
      form: one of `FORMS`.
      first: the first row.
    """
    task = FORMS[form].task
    if form == "completion" and isinstance(first, Mapping):
        task = task if isinstance(first.get("prompt"), str) else CONVERSATION

    def read(row: Any, where: str) -> Example:
        example = _read(row, form, where)
        if ("messages" in example) != (task == CONVERSATION):
            raise UserError(
                f"{where}: is text where the first row is messages, or the other way round"
            )
        return example

    return task, read


def _read(row: Any, name: str, where: str) -> Example:
    form = FORMS[name]
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: must be an object, not {row!r:.40}")
    filled = {name: value for name, value in row.items() if value is not None}
    others = [other for other, each in FORMS.items() if each.fits(filled)]
    if others and not form.fits(filled):
        raise UserError(
            f"{where}: is in the form {others[0]}, not {name}, as the first row or data.form "
            "says; give each form a file of its own"
        )
    if not form.fits({name: "" if value is None else value for name, value in row.items()}):
        raise UserError(f"{where}: has none of the columns of this form, but {', '.join(row)}")
    return form.example(row, where)


class Asked(NamedTuple):
    """The part of a conversation before the assistant's last turn.

    Attributes:
      messages: all of them, or those of the prompt.
      tools: JSON schemas of the tools that the assistant may call; None: there are none.
      given: the number of messages that are given, of which no turn is to be learned.
    """

    messages: list[Message]
    tools: Any
    given: int


def conversation(messages: list[Message], tools: Any, where: str, given: int = 0) -> Example:
    """Make an example of messages: what follows the assistant's last turn is left out.

    Args:
      messages: of the row, those of a prompt first.
      tools: of the row: a list, or JSON of one.
      where: the row, for messages.
      given: the number of messages of the prompt.

    Raises:
      UserError: the assistant answers nothing, or the tools are not readable.
    """
    turns = [i for i, each in enumerate(messages) if _is_learned(each) and i >= given]
    if not turns or not turns[-1]:
        says = "answers nothing" if turns else "says nothing"
        raise UserError(
            f"{where}: the assistant {says}, so that there is nothing to learn; remove it"
        )
    *before, turn = messages[: turns[-1] + 1]
    if isinstance(tools, Mapping):
        tools = [tools]
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: tools are no JSON: {tools!r:.40}") from None
        tools = [tools] if isinstance(tools, Mapping) else tools
    if tools and not isinstance(tools, str | list):
        raise UserError(f"{where}: tools={tools!r:.40}: must be a list of JSON schemas")
    content: dict[str, Any] = {"messages": before}
    content |= {"tools": tools} if isinstance(tools, list) else {}
    content |= {"given": given} if given else {}
    calls = turn.get("tool_calls")
    return {
        "messages": json.dumps(content, ensure_ascii=False),
        "turn": json.dumps(turn, ensure_ascii=False),
        "output": turn["content"] or json.dumps(calls, ensure_ascii=False),
    }


def _is_learned(message: Message) -> bool:
    return message["role"] == ASSISTANT and message.get("learn", True)


def read_conversation(example: Example) -> Asked:
    """Read what an example that `conversation` made asks."""
    content = json.loads(example["messages"])
    return Asked(content["messages"], content.get("tools"), content.get("given", 0))


def read_turn(example: Example) -> Message:
    """Read the assistant's last turn of an example that `conversation` made."""
    return json.loads(example["turn"])


def with_system(messages: list[Message], system: str) -> list[Message]:
    """Put a system message before messages that have none."""
    if messages[0]["role"] == SYSTEM:
        return messages
    return [{"role": SYSTEM, "content": system}, *messages]
