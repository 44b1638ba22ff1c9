"""Chat templates as published models have them, and a small tokenizer that knows their markers.

Written anew after what these models document: the text that they make is the same, their source is
not.
"""
# Lines of a template are long where a line break would be part of its text.
# ruff: noqa: E501

from __future__ import annotations

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from jft.checkpoints import tokenizer as tokenizer_lib

CHATML = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA3 = """\
{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

GEMMA = """\
{{ bos_token }}{% set system = messages[0].content + "\n\n" if messages[0].role == "system" else "" %}\
{% set talk = messages[1:] if system else messages %}\
{% for m in talk %}{% if (m.role == "user") != (loop.index0 % 2 == 0) %}\
{{ raise_exception("Conversation roles must alternate user/assistant") }}{% endif %}\
<start_of_turn>{{ "model" if m.role == "assistant" else "user" }}
{{ system if loop.first else "" }}{{ m.content | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

MISTRAL = """\
{{ bos_token }}{% for m in messages %}{% if m.role == "user" %}[INST] {{ m.content }} [/INST]\
{% elif m.role == "assistant" %} {{ m.content }}{{ eos_token }}\
{% else %}{{ raise_exception("Only user and assistant roles are supported") }}{% endif %}{% endfor %}"""

# Thinking of turns before the last question is stripped.
QWEN3 = """\
{% set ns = namespace(last=-1) %}\
{% for m in messages %}{% if m.role == "user" %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}\
{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == "assistant" %}\
{% set said = m.content.split("</think>")[-1].lstrip("\n") %}\
{% set thought = m.content.split("</think>")[0].split("<think>")[-1].strip("\n") if "</think>" in m.content else "" %}\
{% if loop.index0 > ns.last and (loop.last or thought) %}<think>
{{ thought }}
</think>

{% endif %}{{ said }}{% else %}{{ m.content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

PHI = """\
{% for m in messages %}<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% else %}{{ eos_token }}{% endif %}"""

ZEPHYR = """\
{% for m in messages %}<|{{ m.role }}|>
{{ m.content }}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""

DEEPSEEK = """\
{{ bos_token }}{% for m in messages %}{% if m.role == "system" %}{{ m.content }}\
{% elif m.role == "user" %}<|User|>{{ m.content }}\
{% else %}<|Assistant|>{{ m.content.split("</think>")[-1] }}{{ eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|Assistant|>{% endif %}"""

TEMPLATES = {
    **{"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL},
    **{"qwen3": QWEN3, "phi": PHI, "zephyr": ZEPHYR, "deepseek": DEEPSEEK},
}
# The pieces that a turn of the assistant ends with.
ENDS = {
    **{"chatml": ["<|im_end|>", "\n"], "llama3": ["<|eot_id|>"], "gemma": ["<end_of_turn>", "\n"]},
    **{"mistral": ["</s>"], "qwen3": ["<|im_end|>", "\n"], "phi": ["<|end|>", "\n", "</s>"]},
    **{"zephyr": ["</s>", "\n"], "deepseek": ["</s>"]},
}
SPECIAL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>"),
    *("<|end|>", "<|User|>", "<|Assistant|>", "[INST]", "[/INST]", "<think>", "</think>"),
)


def tokenizer(name: str) -> tokenizer_lib.Tokenizer:
    """A byte-level tokenizer with a few merges, some of them across line breaks and words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("Ċ", "Ċ"), ("Ġ", "t"), (":", "n"), ("h", "e"), ("Ġ", "a"), (".", "Ċ"), ("ĊĊ", "a")]
    vocab = {token: i for i, token in enumerate([*alphabet, *map("".join, pairs), *SPECIAL])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATES[name]}
    return tokenizer_lib.Tokenizer(
        backend, vocab["</s>"], tokenizer_lib.Special(config, (vocab["</s>"],))
    )
