"""Templates of prompts: which fields they ask for, and whether these are the task's."""

from __future__ import annotations

import string

from jft.errors import UserError
from jft.tasks import Task


def template_fields(template: str, where: str) -> tuple[str, ...]:
    """List the fields that a template asks for.

    Raises:
      UserError: it is malformed, or holds more than names of fields in braces.
    """
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"{where}: not a valid template: {error}") from None
    for name, form, conversion in parts:
        if form or conversion or not str(name).isidentifier():
            raise UserError(f"{where}: {{{name}}} must be the name of a field, and nothing else")
    return tuple(dict.fromkeys(str(name) for name, _, _ in parts))


def task_fields(template: str, where: str) -> tuple[str, ...]:
    """List the fields of a task that its template describes.

    Raises:
      UserError: the template is malformed, has no field, or holds the answer.
    """
    fields = template_fields(template, where)
    if not fields or "output" in fields:
        why = "{output} is the answer, which a prompt must not hold" if fields else "has no {field}"
        raise UserError(f"{where}: {why}; name the inputs, such as {{input}}")
    return fields


def check_template(template: str, task: Task, where: str) -> None:
    """Check that a template uses the task's fields and no others.

    Raises:
      UserError: names the field that is unknown or missing.
    """
    used = template_fields(template, where)
    unknown = [name for name in used if name not in task.fields]
    if unknown:
        raise UserError(
            f"{where}: template field {{{unknown[0]}}} is not one of task {task.name}: "
            f"{', '.join(task.fields)}"
        )
    missing = [name for name in task.texts if name not in used]
    if missing:
        raise UserError(f"{where}: the template lacks {{{missing[0]}}} of task {task.name}")
