"""Messages of conversations, as rows have them in many spellings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jft.errors import UserError

Message = dict[str, Any]

SYSTEM, USER, ASSISTANT, TOOL = ROLES = ("system", "user", "assistant", "tool")
# What other programs call these roles.
ALIASES = {
    **{"human": USER, "prompter": USER, "question": USER},
    **{"gpt": ASSISTANT, "model": ASSISTANT, "bot": ASSISTANT, "chatgpt": ASSISTANT},
    **{"function": TOOL, "observation": TOOL, "function_response": TOOL, "developer": SYSTEM},
}
# Where a message has its role and its text; the second pair is ShareGPT's.
KEYS = (("role", "content"), ("from", "value"))
# What a message may hold beside them for a template. `learn` is ours: False where a message is not
# to be learned.
CARRIED = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking")


def read_messages(raw: object, where: str) -> list[Message]:
    """Read the messages of a row, in whatever common spelling.

    Args:
      raw: a list of objects with `role` and `content`, or with `from` and `value`.
      where: the row, for messages.

    Raises:
      UserError: it is no list of messages, or one of them has no role or no text.
    """
    if isinstance(raw, str):  # a column of JSON
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: messages must be a list, not the text {raw!r:.40}") from None
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not raw:
        raise UserError(f"{where}: messages must be a list of at least one, not {raw!r:.40}")
    return [_message(each, f"{where}, message {i} (from 0)") for i, each in enumerate(raw)]


def _message(raw: object, where: str) -> Message:
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: must be an object with role and content, not {raw!r:.40}")
    filled = {key: value for key, value in raw.items() if value is not None}
    keys = next((keys for keys in KEYS if keys[0] in filled), None)
    if keys is None:
        raise UserError(f"{where}: has no role; there are {', '.join(map(str, raw)) or 'no keys'}")
    role = str(filled[keys[0]]).strip().lower()
    role = ALIASES.get(role, role)
    if role not in ROLES:
        raise UserError(f"{where}: unknown role {role!r}; jft knows {', '.join(ROLES)}")
    if "function_call" in filled:  # the older spelling
        filled.setdefault("tool_calls", [{"function": filled["function_call"]}])
    carried = {key: filled[key] for key in CARRIED if filled.get(key) not in (None, [], "")}
    if "tool_calls" in carried:
        carried["tool_calls"] = _tool_calls(carried["tool_calls"], where)
    text = _text(filled.get(keys[1], ""), where)
    if not text.strip() and "tool_calls" not in carried:
        raise UserError(f"{where}: the {role} says nothing; fill it in, or remove the message")
    if filled.get("weight") == 0 or filled.get("train") is False:
        carried["learn"] = False
    return {"role": role, "content": text} | carried


def _text(content: object, where: str) -> str:
    """Return the text of a message: itself, or that of its parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(_part(part, where) for part in content)
    raise UserError(f"{where}: content must be text, not {type(content).__name__}")


def _part(part: object, where: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type", part) if isinstance(part, Mapping) else part
    raise UserError(f"{where}: a part of its content is no text, but {kind!r:.40}; jft reads text")


def _tool_calls(calls: object, where: str) -> list[dict]:
    """Return calls whose arguments are objects, as templates expect, not JSON of them."""
    if not isinstance(calls, Sequence) or not all(isinstance(call, Mapping) for call in calls):
        raise UserError(f"{where}: tool_calls must be a list of objects")
    found = []
    for call in calls:
        function = call.get("function") or call
        if not isinstance(function, Mapping):  # the name alone, and the arguments beside it
            function = {"name": str(function), "arguments": call.get("arguments", {})}
        inner = _without_none(function)
        if isinstance(inner.get("arguments"), str):
            try:
                inner["arguments"] = json.loads(inner["arguments"])
            except (ValueError, RecursionError):
                raise UserError(
                    f"{where}: the arguments of a tool call are no JSON: {inner['arguments']!r:.40}"
                ) from None
        kept = {key: value for key, value in call.items() if value is not None}
        found.append(kept | {"function": inner} if call.get("function") else inner)
    return found


def _without_none(value: Any) -> Any:
    """Leave out missing values: tables give every call the arguments of all others, as missing."""
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value
