"""The tokenizer inside a GGUF file, rebuilt from its tokens, merges and pre-tokenizer name.

A GGUF file holds the name of a pre-tokenizer of llama.cpp, not its rules: those are in
`families/pre_tokenizers.py`.
"""

from __future__ import annotations

import typing
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from jft.checkpoints import gguf
from jft.checkpoints.families import gguf_config
from jft.checkpoints.families.pre_tokenizers import PRE
from jft.errors import UserError, library_errors

Metadata = dict[str, typing.Any]
# Characters; a longer token means a damaged file.
LONGEST_TOKEN = 4096

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = range(1, 5)  # llama.cpp's token types that matter here

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
    tokens, types = list(tokens), list(_get(metadata, "token_type", [NORMAL] * len(tokens)))
    if wrong := [kind for kind in types if not isinstance(kind, int)]:
        raise ValueError(f"token_type holds {wrong[0]!r}")
    if len(set(tokens)) < len(tokens):
        raise ValueError("a token stands twice")
    for key in ("bos_token_id", "unknown_token_id"):
        if (value := _get(metadata, key)) is not None and not _is_token(value, tokens):
            raise ValueError(f"{key}={repr(value)[:40]}, of {len(tokens)} tokens")
    backend, adds_bos = builders[kind](metadata, tokens, types, file)
    _add_whole_tokens(backend, tokens, types)
    if _get(metadata, "add_bos_token", adds_bos):
        bos_id = _need(metadata, "bos_token_id", file)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos_id]}:0 $A:0", special_tokens=[(tokens[bos_id], bos_id)]
        )
    named = {name: _get(metadata, key) for key, name in NAMES.items()}
    config = {name: tokens[i] for name, i in named.items() if _is_token(i, tokens)}
    # Batches of texts of several lengths need one: other programs refuse them without.
    config.setdefault("pad_token", tokens[eos_id])
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    ends = [i for i in (_get(metadata, key) for key in ENDS) if _is_token(i, tokens)]
    return backend, eos_id, config, (eos_id, *(i for i in ends if i != eos_id))


def _is_token(value: typing.Any, tokens: list[str]) -> bool:
    """Check whether a value of the metadata is the id of a token; converters write -1 for none."""
    return isinstance(value, int) and 0 <= value < len(tokens)


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
    rules = gguf_config.rules_of(metadata)
    scores = _need(metadata, "scores", file)
    if rules.ranked_by_id:
        scores = [-float(i) for i in range(len(tokens))]
        # Runs of spaces are stored as such, and marked as if a user had defined them.
        for i, token in enumerate(tokens):
            if token and not token.strip(" "):
                tokens[i], types[i] = "▁" * len(token), NORMAL
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
    if prefix_space and rules.adds_space:
        prepended = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        backend.normalizer = normalizers.Sequence(prepended)
    else:  # only before a text that does not begin with a space
        scheme = "first" if prefix_space else "never"
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    backend.decoder = decoders.Sequence(steps)
    return backend, True


def _merges(vocab: dict[str, int], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """List merges in the order in which sentencepiece makes them.

    Sentencepiece stores scores instead of merges, and joins the two neighbours whose union has the
    best score. So each way to split a token into two tokens is a merge, ranked by the score. None
    leads to a control token: a text becomes one only where it spells it out.
    """
    ranked = []
    for token, i in vocab.items():
        if types[i] != NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocab and right in vocab:
                ranked.append((-scores[i], -len(left), -len(right), left, right))
    # The longer left part first, as Transformers has it.
    return [(left, right) for *_, left, right in sorted(ranked, key=lambda each: each[:3])]


def _add_whole_tokens(backend: tokenizers.Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Add tokens that are found in a text before it is split: special and user-defined ones."""

    def of_types(*wanted):
        pairs = zip(tokens, types, strict=True)
        return [AddedToken(token, normalized=False) for token, kind in pairs if kind in wanted]

    backend.add_special_tokens(of_types(UNKNOWN, CONTROL))
    backend.add_tokens(of_types(USER_DEFINED))


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
