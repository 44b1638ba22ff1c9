"""The tokenizer inside a GGUF file, rebuilt from its tokens, merges and pre-tokenizer name.

A GGUF file holds the name of a pre-tokenizer of llama.cpp, not its rules. Those are taken from
llama.cpp (src/llama-vocab.cpp) and from the tokenizer.json of the models that each was made for.
"""

from __future__ import annotations

import typing
from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from jft.checkpoints import gguf
from jft.errors import UserError, library_errors

Metadata = dict[str, typing.Any]
# Characters; a longer token means a damaged file.
LONGEST_TOKEN = 4096

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # llama.cpp's token types that matter here

# Regular expressions of pre-tokenizers, as their models publish them.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
LLAMA3 = rf"{WORDS}|\p{{N}}{{1,3}}|{TAIL}"
QWEN2 = rf"{WORDS}|\p{{N}}|{TAIL}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


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
    "gpt-2": Pre((GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact"), Pre((r"\p{N}", GPT2))),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), Pre((LLAMA3,), True, True)),
    "tekken": Pre((TEKKEN,), True, True),
    "qwen2": Pre((QWEN2,), nfc=True),
    # llama.cpp's choice for a file that names none.
    "default": Pre((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
}


# Tokens that end a generation beside EOS: of a turn, of a message.
ENDS = ("eot_token_id", "eom_token_id")
# Entries of tokenizer_config.json by the key of a token's id.
NAMES = {
    **{"bos_token_id": "bos_token", "unknown_token_id": "unk_token"},
    **{"padding_token_id": "pad_token", "seperator_token_id": "sep_token"},
    **{"cls_token_id": "cls_token", "mask_token_id": "mask_token"},
}


def build(file: Path) -> tuple[tokenizers.Tokenizer, int, dict[str, typing.Any], tuple[int, ...]]:
    """Build the tokenizer of a GGUF file.

    Returns:
      The tokenizer, the id of its EOS, further entries of `tokenizer_config.json`, and the ids of
      all tokens that end a generation.

    Raises:
      UserError: the file is damaged, jft does not know its tokenizer or pre-tokenizer, or it names
        no EOS.
    """
    metadata = gguf.open_file(file).metadata
    with library_errors(f"{file}: its tokenizer is damaged ({{error}}); convert the model again"):
        return _build(metadata, file)


def _build(metadata: Metadata, file: Path):
    kind = _get(metadata, "model")
    builders = {"gpt2": _byte_level, "llama": _sentencepiece}
    if kind not in builders:
        raise UserError(
            f"{file}: tokenizer.ggml.model={kind!r}: jft knows {', '.join(builders)}; use the "
            "model's Hugging Face folder"
        )
    tokens = _need(metadata, "tokens", file)
    eos_id = _need(metadata, "eos_token_id", file)
    if max(map(len, tokens)) > LONGEST_TOKEN:
        raise ValueError(f"a token has more than {LONGEST_TOKEN} characters")
    if not 0 <= eos_id < len(tokens):
        raise ValueError(f"eos_token_id={eos_id}, of {len(tokens)} tokens")
    types = _get(metadata, "token_type", [NORMAL] * len(tokens))
    backend, adds_bos = builders[kind](metadata, tokens, types, file)
    _add_whole_tokens(backend, tokens, types)
    if _get(metadata, "add_bos_token", adds_bos):
        bos_id = _need(metadata, "bos_token_id", file)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos_id]}:0 $A:0", special_tokens=[(tokens[bos_id], bos_id)]
        )
    named = {name: _get(metadata, key) for key, name in NAMES.items()}
    config = {name: tokens[i] for name, i in named.items() if i is not None and i < len(tokens)}
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    ends = [_get(metadata, key) for key in ENDS]
    return backend, eos_id, config, (eos_id, *(i for i in ends if i not in (None, eos_id)))


def byte_alphabet() -> list[str]:
    """List the printable characters that stand for bytes 0 to 255 in byte-level BPE (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    table |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


def _byte_level(metadata: Metadata, tokens: list[str], types: list[int], file: Path):
    """Build a byte-level BPE tokenizer; returns it and whether texts begin with BOS by default."""
    name = _get(metadata, "pre", "default")
    if name not in PRE:
        raise UserError(
            f"{file}: tokenizer.ggml.pre={name!r}: jft knows {', '.join(PRE)}; use the model's "
            "Hugging Face folder"
        )
    pre = PRE[name]
    merges = [tuple(merge.split(" ", 1)) for merge in _need(metadata, "merges", file)]
    vocab = {token: i for i, token in enumerate(tokens)}
    bpe = models.BPE(vocab=vocab, merges=merges, ignore_merges=pre.whole_words)
    backend = tokenizers.Tokenizer(bpe)
    if pre.nfc:
        backend.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
    backend.decoder = decoders.ByteLevel()
    return backend, pre.bos


def _sentencepiece(metadata: Metadata, tokens: list[str], types: list[int], file: Path):
    """Build a sentencepiece BPE tokenizer; returns it and whether texts begin with BOS, True."""
    scores = _need(metadata, "scores", file)
    vocab = {token: i for i, token in enumerate(tokens)}
    unknown = _get(metadata, "unknown_token_id", 0)
    bpe = models.BPE(
        vocab=vocab,
        merges=_merges(vocab, scores, types),
        unk_token=tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = tokenizers.Tokenizer(bpe)
    prefix_space = _get(metadata, "add_space_prefix", True)
    prepend = [normalizers.Prepend("▁")] if prefix_space else []
    backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    backend.decoder = decoders.Sequence(steps)
    return backend, True


def _merges(vocab: dict[str, int], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """List merges in the order in which sentencepiece makes them.

    Sentencepiece stores scores instead of merges, and joins the two neighbours whose union has the
    best score. So each way to split a token into two tokens is a merge, ranked by the score.
    """
    ranked = []
    for token, i in vocab.items():
        if types[i] != NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocab and right in vocab:
                ranked.append((-scores[i], vocab[left], vocab[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _add_whole_tokens(backend: tokenizers.Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Add control and user-defined tokens, which are found in a text before it is split."""

    def of_type(wanted):
        pairs = zip(tokens, types, strict=True)
        return [AddedToken(token, normalized=False) for token, kind in pairs if kind == wanted]

    backend.add_special_tokens(of_type(CONTROL))
    backend.add_tokens(of_type(USER_DEFINED))


def _get(metadata: Metadata, key: str, default=None):
    return metadata.get(f"tokenizer.ggml.{key}", default)


def _need(metadata: Metadata, key: str, file: Path):
    value = _get(metadata, key)
    if value is None:
        raise UserError(
            f"{file}: the metadata key tokenizer.ggml.{key} is missing; convert the model "
            "again, or use its Hugging Face folder"
        )
    return value
