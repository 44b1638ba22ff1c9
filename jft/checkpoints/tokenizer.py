"""Tokenizers: text <-> token ids, with one policy for special tokens.

Every text begins with the tokens that the tokenizer itself puts before a text (`prefix`: BOS, or
nothing), and no token is put after it. EOS is added by the caller, at the end of an answer. A
special token that is spelled out in a text, such as `<|im_end|>`, is read as that token. Decoding
leaves special tokens out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from jft.checkpoints import gguf_tokenizer
from jft.checkpoints.files import RANDOM_MODEL, locate, read_model_json
from jft.errors import UserError, library_errors
from jft.runtime import workdir as workdir_lib

GENERATION = "generation_config.json"
# As jft decodes itself, for models that say nothing.
GREEDY: dict[str, Any] = {"do_sample": False}
# Special tokens that other programs ask for, beside EOS.
CARRIED = ("bos", "unk", "pad", "sep", "cls", "mask")
# Transformers' length of texts of a tokenizer without a limit is above this.
LONGEST_TEXT = 1e12
# Ids; more means a damaged file.
LARGEST_VOCABULARY = 1 << 24
# Patterns of the files that hold a vocabulary, and of all files that a tokenizer is read from.
VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
FILES = ("*.json", "*.model", "*.txt", "*.tiktoken", "*.jinja")


# Texts that are tokenized together, on all cores.
TEXTS_AT_ONCE = 2048


class Special(NamedTuple):
    """Facts of a tokenizer's folder beside its vocabulary.

    Attributes:
      config: further entries of `tokenizer_config.json`, such as `bos_token` and `chat_template`.
      eos_ids: all tokens that a generation of a chat ends at, `eos_id` among them; prompts in plain
        text end at that one alone.
      generation: how the model's `generation_config.json` wants to be sampled from.
    """

    config: dict[str, Any]
    eos_ids: tuple[int, ...]
    generation: dict[str, Any] = GREEDY


class Tokenizer:
    """A tokenizer of the `tokenizers` library that adds its own prefix and no suffix.

    Attributes:
      prefix: ids that the tokenizer puts before every text, such as BOS; often none.
      eos_id: the id that ends an answer.
      vocab_size: the largest id plus 1.
      unk_id: the id of characters that it has no token for; None where it has for all.
      eos_text, prefix_texts: how these tokens are spelled.
      special_texts, control_ids: the spelling and the id of every special token.
      special: chat template, tokens that end a turn, and what is kept for other programs.
    """

    def __init__(self, backend: tokenizers.Tokenizer, eos_id: int, special: Special | None = None):
        """Wrap a backend, and switch its truncation and padding off."""
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.eos_id = eos_id
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        unknown = getattr(backend.model, "unk_token", None)
        self.unk_id = backend.token_to_id(unknown) if unknown else None
        self.prefix = _prefix(backend)
        self.eos_text = backend.id_to_token(eos_id) or ""
        self.prefix_texts = [backend.id_to_token(i) or "" for i in self.prefix]
        config, eos_ids, generation = special or Special({}, (eos_id,))
        begin = {"bos_token": self.prefix_texts[0]} if self.prefix else {}
        self.special = Special(begin | config, eos_ids, generation)
        added = backend.get_added_tokens_decoder()
        self.special_texts = [token.content for token in added.values() if token.special]
        self.control_ids = frozenset(i for i, token in added.items() if token.special)

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Return `prefix` and the ids of each text, int32.

        The ids after `prefix` equal Transformers' `tokenizer(text, add_special_tokens=False)`,
        which reads a special token spelled out in the text, such as `<|im_end|>`, as that token.
        """
        found = []
        with library_errors("the tokenizer fails at a text ({error}); use another model's"):
            # A few at a time: what the library keeps of a text takes far more memory than its ids.
            for begin in range(0, len(texts), TEXTS_AT_ONCE):
                some = texts[begin : begin + TEXTS_AT_ONCE]
                encodings = self._backend.encode_batch_fast(some, add_special_tokens=False)
                found += [np.array([*self.prefix, *each.ids], np.int32) for each in encodings]
        return found

    def encode_rendered(self, texts: list[str]) -> list[np.ndarray]:
        """Return the ids of texts that hold every special token already, `prefix` among them."""
        skipped = len(self.prefix)
        return [ids[skipped:] for ids in self.encode(texts)]

    @property
    def chat_template(self) -> str | None:
        """The template that makes a text of a conversation, in Jinja; None for most base models."""
        found = self.special.config.get("chat_template")
        if isinstance(found, dict):  # several by name
            found = found.get("default")
        return found if isinstance(found, str) else None

    def use_chat_template(self, template: str) -> None:
        """Replace the chat template, which `save` writes, too."""
        self.special = self.special._replace(
            config=self.special.config | {"chat_template": template}
        )

    def add_ends(self, ids: Iterable[int]) -> None:
        """Name more tokens that end a generation, which `save` writes, too."""
        ends = tuple(dict.fromkeys([*self.special.eos_ids, *ids]))
        self.special = self.special._replace(eos_ids=ends)

    @property
    def special_spellings(self) -> dict[str, str]:
        """The special tokens that a chat template may name: `bos_token`, `eos_token` and others."""
        named = {f"{name}_token": self.special.config.get(f"{name}_token") for name in CARRIED}
        known = {name: text for name, text in named.items() if isinstance(text, str)}
        return {"eos_token": self.eos_text} | known

    def sha256(self) -> str:
        """Hash everything that the ids of a text depend on."""
        content = f"{self._backend.to_str()} {self.prefix} {self.eos_id}"
        return hashlib.sha256(content.encode()).hexdigest()

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids, without special tokens."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def token_texts(self) -> list[str]:
        """Return the text of every id of the vocabulary; empty for special tokens and gaps."""
        ids = [[i] for i in range(self.vocab_size)]
        return self._backend.decode_batch(ids, skip_special_tokens=True)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each token by itself, to display: special tokens are spelled out."""
        texts = self._backend.decode_batch([[i] for i in ids], skip_special_tokens=False)
        tokens = [self._backend.id_to_token(i) or "" for i in ids]
        # Some decoders drop the space before the first word of a text. Each token is decoded as a
        # text of its own here, so the space (U+2581 in the token) is put back.
        return [
            f" {text}" if token[:1] == "\u2581" and text[:1] != " " else text
            for token, text in zip(tokens, texts, strict=True)
        ]

    def save(self, folder: str) -> None:
        """Write the files from which `load` and Transformers' AutoTokenizer get the same ids.

        They also hold what other programs want to know, `generation_config.json` among them.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        workdir_lib.write_text(target / "tokenizer.json", self._backend.to_str(pretty=True))
        config = {
            # The generic class: tokenizer.json alone decides. A model's own class would rebuild it.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self._backend.id_to_token(self.eos_id),
            "clean_up_tokenization_spaces": False,
            **self.special.config,
        }
        if "bos_token" in config:
            config["add_bos_token"] = bool(self.prefix)
        generation = self.special.generation | self.special_ids
        workdir_lib.write_json(target / "tokenizer_config.json", config)
        workdir_lib.write_json(target / GENERATION, generation)

    @property
    def special_ids(self) -> dict[str, Any]:
        """The ids of special tokens, as `config.json` and `generation_config.json` name them."""
        ids = [int(i) for i in self.special.eos_ids]
        found = {
            f"{name}_token_id": self._backend.token_to_id(
                self.special.config.get(f"{name}_token", "")
            )
            for name in ("bos", "pad")
        }
        return found | {"eos_token_id": ids[0] if len(ids) == 1 else ids}


def load(path: str) -> Tokenizer:
    """Load the tokenizer of the model that `model.path` names.

    Args:
      path: a Hugging Face folder or hub id, a folder that `Tokenizer.save` wrote, a `.gguf` file,
        or `random:llama-tiny`: a token for each byte, `<|bos|>` before every text.

    Raises:
      UserError: there is none, it is damaged, has no fast version, or names no EOS.
    """
    if path == RANDOM_MODEL:
        special = Special({"bos_token": "<|bos|>", "pad_token": "<|pad|>"}, (257,))
        return Tokenizer(_byte_tokenizer(), 257, special)
    local = locate(path, FILES)
    if local.is_dir():
        return _load_folder(local)
    backend, eos_id, config, eos_ids = gguf_tokenizer.build(local)
    return Tokenizer(backend, eos_id, Special(config, eos_ids))


def is_tokenizer_folder(folder: Path) -> bool:
    """Check whether a folder holds a vocabulary."""
    return any(file for pattern in VOCABULARIES for file in folder.glob(pattern))


def _load_folder(folder: Path) -> Tokenizer:
    # Importing transformers takes 2 s, and tokenizer.json alone would do for most folders, but not
    # for all: tokenizer_config.json adds special tokens, the class that it names may rebuild the
    # tokenizer, and some folders hold only a vocabulary and a file of merges. Models are trained
    # and served with the ids that AutoTokenizer gives.
    if not is_tokenizer_folder(folder):
        raise UserError(f"{folder}: holds no tokenizer.json; download it next to the weights")
    models = sorted(file.name for file in folder.glob("*.model"))
    if models and not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        # Transformers would advise packages, with which it reads some of these files.
        raise UserError(
            f"{folder}: holds {models[0]}, but no tokenizer.json, which jft needs; download it "
            "from where the model is published, or use a GGUF file of the model"
        )
    # Without PyTorch, the import warns that models are not available; jft does not need them.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    with library_errors(
        f"{folder}: Transformers cannot load a tokenizer from it ({{error}}); the folder needs "
        "tokenizer.json and tokenizer_config.json, and jft runs no code from it"
    ):
        auto = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    backend = getattr(auto, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise UserError(
            f"{folder}: {type(auto).__name__} has no fast version; jft needs a tokenizer.json"
        )
    largest = max(backend.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= LARGEST_VOCABULARY:
        raise UserError(f"{folder}: its tokenizer is damaged: a token has the id {largest}")
    config = {f"{name}_token": getattr(auto, f"{name}_token", None) for name in CARRIED}
    config["chat_template"] = getattr(auto, "chat_template", None)
    if (longest := getattr(auto, "model_max_length", None)) and longest < LONGEST_TEXT:
        config["model_max_length"] = longest
    known = {key: value for key, value in config.items() if value is not None}
    eos_id, more = _eos_ids(auto, folder)
    file = folder / GENERATION
    generation = read_model_json(file) if file.exists() else GREEDY
    return Tokenizer(backend, eos_id, Special(known, more, generation))


def _eos_ids(auto, folder: Path) -> tuple[int, tuple[int, ...]]:
    """Return the EOS of a folder, and all tokens that end a generation.

    It is the tokenizer's own, or else the first that the model's generation stops at.
    """
    found: list[int] = []
    for file in (folder / GENERATION, folder / "config.json"):
        value = read_model_json(file).get("eos_token_id") if file.exists() else None
        values = value if isinstance(value, list) else [value]
        known = range(len(auto))
        found = found or [each for each in values if type(each) is int and each in known]
    own = [] if auto.eos_token_id is None else [auto.eos_token_id]
    if eos_ids := tuple(dict.fromkeys([*own, *found])):
        return eos_ids[0], eos_ids
    raise UserError(
        f"{folder}: no end-of-sequence token: set eos_token in tokenizer_config.json to the token "
        "that ends a text"
    )


def _prefix(backend: tokenizers.Tokenizer) -> tuple[int, ...]:
    """Return the ids that the post-processor puts before the tokens of a text."""
    encoding = backend.encode("a", add_special_tokens=True)
    own = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence is not None]
    return tuple(encoding.ids[: own[0]]) if own else ()


def _byte_tokenizer() -> tokenizers.Tokenizer:
    """Build a tokenizer whose ids are bytes, followed by `<|bos|>`, `<|eos|>` and `<|pad|>`."""
    specials = ["<|bos|>", "<|eos|>", "<|pad|>"]
    alphabet = gguf_tokenizer.byte_alphabet()
    vocab = {token: i for i, token in enumerate([*alphabet, *specials])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", vocab["<|bos|>"])]
    )
    backend.add_special_tokens(specials)
    return backend
