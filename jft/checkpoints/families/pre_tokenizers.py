"""Pre-tokenizers of byte-level BPE, by the names that GGUF files give them.

Their rules are those of llama.cpp (src/llama-vocab.cpp) and of the tokenizer.json of the models
that each was made for.
"""

from __future__ import annotations

from typing import NamedTuple

# Regular expressions of pre-tokenizers, as their models publish them.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = rf"{ENDING}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
LLAMA3 = rf"{WORDS}|\p{{N}}{{1,3}}|{TAIL}"
QWEN2 = rf"{WORDS}|\p{{N}}|{TAIL}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
CASED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{CASED[0]}|{CASED[1]}|\p{{N}}|{CASED_TAIL}"
O200K = rf"{CASED[0]}{ENDING}?|{CASED[1]}{ENDING}?|\p{{N}}{{1,3}}|{CASED_TAIL}"


class Pre(NamedTuple):
    """A pre-tokenizer, which splits a text by each pattern in order, and then into bytes.

    Attributes:
      patterns: regular expressions.
      whole_words: take a piece that is a token as that token, whatever the merges say.
      bos: texts begin with BOS, unless the file says otherwise.
      nfc: compose accents first (Unicode normalization form C).
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    bos: bool = False
    nfc: bool = False


PRE = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo"), Pre((GPT2,))),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), Pre((r"\p{N}", GPT2))),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), Pre((LLAMA3,), True, True)),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Pre((LLAMA3,))),
    "tekken": Pre((TEKKEN,), True, True),
    "gpt-4o": Pre((O200K,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Pre((QWEN2,), nfc=True)),
    # llama.cpp's choice for a file that names none.
    "default": Pre((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
}
