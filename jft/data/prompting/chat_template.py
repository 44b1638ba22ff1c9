"""Chat templates: what makes one text of the messages of a conversation."""

from __future__ import annotations

import datetime
import functools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from jft.data.rows.messages import Message
from jft.errors import UserError

# A template that asks for today's date would make other tokens tomorrow. Llama 3's has this one
# where it knows none.
DATE = datetime.date(2024, 7, 26)
CLOCK = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


# What templates raise of messages that they are not made for, or that are too much for the sandbox.
REFUSALS = (
    *(jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError),
    *(RecursionError, ArithmeticError, MemoryError),
)


class ChatTemplate(NamedTuple):
    """A tokenizer's chat template.

    Attributes:
      template: its text, in Jinja.
      variables: what it may use beside the messages: special tokens, and the user's own.
    """

    template: str
    variables: Mapping[str, Any]

    def render(self, messages: Sequence[Message], asks: bool, tools: Any = None) -> str:
        """Make one text of messages, as Transformers does, in its sandbox.

          Args:
            messages: the conversation.
            asks: whether the text ends where the assistant is to answer.
            tools: JSON schemas of the tools that the assistant may call; None: there are none.

          Raises:
            ChatError: the template refuses the messages.
        UserError: it is no template.
        """
        # Without PyTorch, the import warns that models are not available; jft does not need them.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        from transformers.utils.chat_template_utils import render_jinja_template

        template = _without_clock(self.template)
        try:
            rendered = render_jinja_template(
                [list(messages)],
                tools=tools,
                chat_template=template,
                add_generation_prompt=asks,
                **self.variables,
            )
        except jinja2.TemplateSyntaxError as error:
            raise UserError(
                f"data.chat_template, or the model's own: no template of Jinja: {error}"
            ) from None
        except REFUSALS as error:
            raise ChatError(" ".join(str(error).split()) or type(error).__name__) from None
        return str(rendered[0][0])  # of one conversation, without a mask


@functools.lru_cache(maxsize=8)
def _without_clock(template: str) -> str:
    return CLOCK.sub(lambda found: repr(DATE.strftime(found[2])), template)


class ChatError(Exception):
    """A refusal of messages by a chat template, with its reason."""
