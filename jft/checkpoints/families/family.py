"""The types that the table of families is made of, and the reader of config.json's keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jft.errors import UserError

# Larger ones mean a damaged file.
LARGEST = {"head_dim": 1 << 16, "num_hidden_layers": 1 << 16, "num_attention_heads": 1 << 20}
LARGEST_SIZE, SMALLEST_NUMBER, LARGEST_NUMBER = 2**31 - 1, 1e-30, 1e30
# What `layer_types` may hold.
FULL, WINDOWED = "full_attention", "sliding_attention"


class Keys(NamedTuple):
    """The keys of a config.json, read with errors that name the file.

    Attributes:
      raw: the parsed file, absent keys filled in.
      file: its path, for messages.
    """

    raw: dict[str, Any]
    file: Path

    def size(self, key: str) -> int:
        """Read a whole number above 0.

        Raises:
          UserError: the key is missing, or has another value.
        """
        value = self.number(key)
        if value != int(value) or value > LARGEST.get(key, LARGEST_SIZE):
            most = LARGEST.get(key, LARGEST_SIZE)
            raise UserError(f"{self.file}: {key}={value:g}: must be a whole number up to {most}")
        return int(value)

    def number(self, key: str) -> float:
        """Read a number above 0.

        Raises:
          UserError: the key is missing, or has another value.
        """
        if key not in self.raw:
            raise UserError(
                f"{self.file}: the key {key} is missing; copy or download the file again"
            )
        value = self.raw[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not SMALLEST_NUMBER < value < LARGEST_NUMBER:
            raise UserError(f"{self.file}: {key}={repr(value)[:40]}: must be a number above 0")
        return float(value)

    def flag(self, key: str) -> bool:
        """Read true or false; what is absent or null is false.

        Raises:
          UserError: the key has another value.
        """
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            raise UserError(f"{self.file}: {key}={repr(value)[:40]}: must be true or false")
        return bool(value)

    def cap(self, key: str) -> float:
        """Read a number above 0 that may be absent; 0 where it is."""
        return self.number(key) if self.raw.get(key) else 0.0

    def window(self) -> int:
        """Read `sliding_window`; 0 where there is none."""
        return self.size("sliding_window") if self.raw.get("sliding_window") else 0

    def by_layer(self, key: str, kind: type | tuple[type, ...]) -> list | None:
        """Read a list with a value for each layer; None where there is none.

        Raises:
          UserError: it is no list, of another length, or holds values of another type.
        """
        values = self.raw.get(key)
        if values is None:
            return None
        layers = self.size("num_hidden_layers")
        if not isinstance(values, list) or len(values) != layers:
            raise UserError(
                f"{self.file}: {key}={repr(values)[:60]}: must be a list of "
                f"num_hidden_layers={layers} values"
            )
        if wrong := [value for value in values if not isinstance(value, kind)]:
            raise UserError(f"{self.file}: {key} holds {repr(wrong[0])[:40]}")
        return values


class Stored(NamedTuple):
    """The names and the layout of one parameter in other formats.

    A group of letters in `layout` is one stored dimension. The kernel of the queries, [N, H, D] in
    the decoder, has the layout `NH D`: a matrix of N * H rows, head by head, and D columns. PyTorch
    and GGUF lay out a linear map from D to N * H like this, with its outputs first.

    Attributes:
      hf: name in a Hugging Face folder or, of an adapter, in PEFT's; `{}` stands for the layer.
      gguf: name in a GGUF file, likewise; empty where the format is not read.
      layout: the stored dimensions of one layer, in the letters of `jft.batch`.
      before: the groups of rows that come before in the same tensor, where a family fuses several
        projections into one: of the values, `("NH", "KH")`.
    """

    hf: str
    gguf: str
    layout: str
    before: tuple[str, ...] = ()


def full_layers(keys: Keys) -> list[str]:
    """Return the types of layers of which none has a window."""
    return [FULL] * keys.size("num_hidden_layers")


def all_rotated(keys: Keys) -> list:
    """Return True for every layer."""
    return [True] * keys.size("num_hidden_layers")


def listed_layers(is_windowed: Callable[[Keys, int], bool]) -> Callable[[Keys], list[str]]:
    """Take the types of layers that `layer_types` lists, or else those that a rule gives."""

    def types(keys: Keys) -> list[str]:
        layers = range(keys.size("num_hidden_layers"))
        return keys.by_layer("layer_types", str) or [
            WINDOWED if is_windowed(keys, i) else FULL for i in layers
        ]

    return types


@dataclass(frozen=True)
class Gguf:
    """The GGUF files of a family, as llama.cpp writes them.

    Attributes:
      architecture: `general.architecture`, with which the names of its keys begin.
      keys: keys of config.json, by the end of the metadata key that holds them, beside those that
        all families have.
      unsaid: returns further keys of config.json, from those that are known.
      pairs: whether the rows of queries and keys are in the order in which llama.cpp rotates them,
        neighbours as pairs.
      ranked_by_id: whether a sentencepiece vocabulary is in the order of its merges, which its
        scores are not.
      adds_space: whether a text that begins with a space gets another one before it, where the
        tokenizer puts one before texts.
    """

    architecture: str
    keys: dict[str, str] = field(default_factory=dict)
    unsaid: Callable[[dict[str, Any]], dict[str, Any]] = lambda known: {}
    pairs: bool = False
    ranked_by_id: bool = False
    adds_space: bool = False


@dataclass(frozen=True)
class Family:
    """A family of models: how its config.json and tensors are read, and what it computes.

    Attributes:
      architecture: the class of Transformers, as exports name it.
      defaults: the values of absent keys.
      biases: of `attention_bias` and `mlp_bias`, the keys that the family has.
      switches: fields of `DecoderConfig` that all its models share.
      computed: fields of `DecoderConfig` that are read from keys.
      activations: what `hidden_act` may be, by the names of `DecoderConfig`.
      layer_types: returns the type of every layer, `FULL` or `WINDOWED`.
      rotated: returns for every layer whether it has a rotary embedding.
      local_theta: the key of the rotary base of layers with a window, which no scaling changes;
        empty: their rotary embedding is that of all others.
      rope_types: other names of rotary types.
      partial: whether a part of each head may be rotated alone.
      tensors: parameters that are stored otherwise than by Llama.
      gguf: its GGUF files; None: jft reads none.
    """

    architecture: str
    defaults: dict[str, Any]
    biases: tuple[str, ...] = ("attention_bias",)
    switches: dict[str, Any] = field(default_factory=dict)
    computed: dict[str, Callable[[Keys], Any]] = field(default_factory=dict)
    activations: dict[str, str] = field(
        default_factory=lambda: {
            "silu": "silu",
            "swish": "silu",
            "gelu_pytorch_tanh": "gelu_tanh",
            "gelu_new": "gelu_tanh",
        }
    )
    layer_types: Callable[[Keys], list[str]] = full_layers
    rotated: Callable[[Keys], list] = all_rotated
    local_theta: str = ""
    rope_types: dict[str, str] = field(default_factory=dict)
    partial: bool = False
    tensors: dict[str, Stored] = field(default_factory=dict)
    gguf: Gguf | None = None
