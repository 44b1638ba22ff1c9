"""The metadata of a GGUF file -> the config.json of the model that it was made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jft.checkpoints.families.family import FULL, WINDOWED, Family, Gguf
from jft.checkpoints.families.rope import ORIGINAL, llama3_factors
from jft.checkpoints.families.table import FAMILIES
from jft.errors import UserError

# Tensors that are no parameters: rotary tables, which the config holds.
TABLE_NAMES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
TABLES = (*TABLE_NAMES, "attn_rot_embd.weight")


class GgufModel(NamedTuple):
    """The description of the model in a GGUF file.

    Attributes:
      path: of the file, for messages.
      metadata: by key.
      shapes: of the tensors, by name, outermost dimension first.
      read: returns a tensor as floats.
    """

    path: str
    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]

    @property
    def architecture(self) -> str:
        """The name of its architecture, with which the names of its keys begin."""
        return str(self.metadata.get("general.architecture"))

    def get(self, key: str, default: Any = None) -> Any:
        """Read a key of the architecture."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def number(self, key: str, default: float | None = None) -> float:
        """Read a number, 0 or more.

        Raises:
          UserError: the key is missing and has no default, or has another value.
        """
        value = self._need(key, default)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UserError(
                f"{self.path}: {self.architecture}.{key}={value!r}: must be a number, 0 or more"
            )
        # Of a float32 the shortest decimal that rounds to it, which is what the config said.
        rounded = np.float32(value)
        return float(str(rounded)) if rounded == value else float(value)

    def size(self, key: str, default: int | None = None) -> int:
        """Read a whole number above 0.

        Raises:
          UserError: the key is missing and has no default, or has another value.
        """
        value = self._need(key, default)
        if not isinstance(value, int) or value < 1:
            raise UserError(
                f"{self.path}: {self.architecture}.{key}={value!r}: jft supports one whole number "
                "above 0"
            )
        return value

    def _need(self, key: str, default: float | None) -> Any:
        value = self.get(key, default)
        if value is None:
            raise UserError(
                f"{self.path}: the metadata key {self.architecture}.{key} is missing; convert the "
                "model again"
            )
        return value


def description(model: GgufModel) -> dict[str, Any]:
    """Make the config.json of a model in a GGUF file.

    Raises:
      UserError: a key is missing, damaged, or asks for what jft does not support.
    """
    kind, family, gguf = _family(model)
    if experts := model.get("expert_count", 0):
        raise UserError(
            f"{model.path}: {model.architecture}.expert_count={experts}: jft supports dense models "
            "only"
        )
    raw = {"architectures": [family.architecture], "model_type": kind} | _sizes(model)
    _check_heads(model, family, raw)
    raw |= {
        "rms_norm_eps": model.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": model.number("rope.freq_base", 10000.0),
        "max_position_embeddings": model.size("context_length"),
        "tie_word_embeddings": "output.weight" not in model.shapes,
        "hidden_act": family.defaults["hidden_act"],
    }
    if scaling := _rope_scaling(model, raw):
        raw["rope_scaling"] = scaling
        if ORIGINAL in family.defaults:  # where Transformers looks for it first
            raw[ORIGINAL] = scaling.get(ORIGINAL, family.defaults[ORIGINAL])
    for key, end in (("attention_bias", ".attn_"), ("mlp_bias", ".ffn_")):
        there = any(name.endswith(".bias") and end in name for name in model.shapes)
        if key in family.biases:
            raw[key] = there
    raw |= {
        name: model.number(key) for key, name in gguf.keys.items() if model.get(key) is not None
    }
    if "sliding_window" in raw:
        raw["sliding_window"] = int(raw["sliding_window"])
    return raw | gguf.unsaid(raw) | _said_of_windows(model, family, raw)


def _said_of_windows(model: GgufModel, family: Family, raw: dict[str, Any]) -> dict[str, Any]:
    """Read which layers have a window, and their rotary base, where a file says it."""
    found: dict[str, Any] = {}
    pattern, layers = model.get("attention.sliding_window_pattern"), raw["num_hidden_layers"]
    if isinstance(pattern, list) and len(pattern) >= layers:
        found["layer_types"] = [WINDOWED if each else FULL for each in pattern[:layers]]
    elif isinstance(pattern, int) and pattern > 0:
        found["layer_types"] = [WINDOWED if (i + 1) % pattern else FULL for i in range(layers)]
    elif pattern is not None:
        raise UserError(
            f"{model.path}: {model.architecture}.attention.sliding_window_pattern={pattern!r}: "
            f"must say of {layers} layers whether they have a window"
        )
    if (base := model.get("rope.freq_base_swa")) and family.local_theta not in ("", "rope_theta"):
        found[family.local_theta] = float(base)
    elif base and float(base) != raw["rope_theta"]:
        raise UserError(
            f"{model.path}: {model.architecture}.rope.freq_base_swa={base:g}: differs from "
            f"rope.freq_base={raw['rope_theta']:g}, which this family has for all layers"
        )
    return found


def _family(model: GgufModel) -> tuple[str, Family, Gguf]:
    """Find the family of a file; of two with one architecture, the one whose keys it has."""
    found = _of_architecture(model.architecture)
    if not found:
        known = dict.fromkeys(each.gguf.architecture for each in FAMILIES.values() if each.gguf)
        raise UserError(
            f"{model.path}: general.architecture={model.metadata.get('general.architecture')!r}: "
            f"jft supports {', '.join(known)} only"
        )
    with_keys = [each for each in found if all(model.get(key) for key in each[2].keys)]
    return max(with_keys or found, key=lambda each: len(each[2].keys))


def _of_architecture(name: str) -> list[tuple[str, Family, Gguf]]:
    return [
        (kind, family, family.gguf)
        for kind, family in FAMILIES.items()
        if family.gguf and family.gguf.architecture == name
    ]


def rules_of(metadata: dict[str, Any]) -> Gguf:
    """Return what is known of files of an architecture; of one that jft does not know, nothing."""
    found = _of_architecture(str(metadata.get("general.architecture")))
    return found[0][2] if found else Gguf("")


def _sizes(model: GgufModel) -> dict[str, Any]:
    """Read the sizes of a model, and check them against its tensors.

    Raises:
      UserError: they contradict each other.
    """
    path, shapes = model.path, model.shapes
    if "token_embd.weight" not in shapes:
        raise UserError(f"{path}: the tensor token_embd.weight is missing; the file is incomplete")
    layers, embed_dim = model.size("block_count"), model.size("embedding_length")
    if layers > len(shapes):
        raise UserError(
            f"{path}: {model.architecture}.block_count={layers}, but the file holds {len(shapes)} "
            "tensors in all"
        )
    heads = model.size("attention.head_count")
    # Files without a key length: the queries tell, or else the width does.
    rows_of_queries, *_ = shapes.get("blk.0.attn_q.weight", (embed_dim,))
    head_dim = model.size("attention.key_length", rows_of_queries // heads)
    rotated = model.size("rope.dimension_count", head_dim)
    rows, tokens = shapes["token_embd.weight"][0], model.metadata.get("tokenizer.ggml.tokens", ())
    if len(tokens) > rows:
        raise UserError(
            f"{path}: tokenizer.ggml.tokens holds {len(tokens)} tokens, but token_embd.weight has "
            f"{rows} rows; convert the model again"
        )
    sizes = {
        "vocab_size": model.size("vocab_size", rows),
        "hidden_size": embed_dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": model.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": model.size("feed_forward_length"),
    }
    return sizes if rotated == head_dim else sizes | {"partial_rotary_factor": rotated / head_dim}


def _check_heads(model: GgufModel, family: Family, raw: dict[str, Any]) -> None:
    """Check heads against the queries, where these are a tensor of their own.

    Raises:
      UserError: they contradict each other.
    """
    heads, head_dim = raw["num_attention_heads"], raw["head_dim"]
    values = model.size("attention.value_length", head_dim)
    if values != head_dim or ("partial_rotary_factor" in raw and not family.partial):
        raise UserError(
            f"{model.path}: {model.architecture}.rope.dimension_count, attention.key_length and "
            "attention.value_length differ: jft supports heads of one size, rotated whole"
        )
    if head_dim % 2:
        raise UserError(f"{model.path}: heads of {head_dim}: rotary embeddings need an even number")
    name = family.tensors.get("layers/attention/query/kernel")
    query = "blk.0.attn_q.weight" if name is None else name.gguf.format(0)
    if query not in model.shapes:
        raise UserError(f"{model.path}: the tensor {query} is missing; the file is incomplete")
    if name is None and (rows := model.shapes[query][0]) != heads * head_dim:
        raise UserError(
            f"{model.path}: the metadata asks for {heads} heads of {head_dim}, but {query} has "
            f"{rows} rows"
        )


def _rope_scaling(model: GgufModel, raw: dict[str, Any]) -> dict[str, Any] | None:
    """Find the rotary settings that give what the file holds; None where nothing is scaled."""
    original = model.get("rope.scaling.original_context_length")
    if "rope_factors_long.weight" in model.shapes:
        lists = {
            key: _table(model, f"rope_factors_{length}.weight", raw)
            for key, length in (("short_factor", "short"), ("long_factor", "long"))
        }
        scale = model.number("rope.scaling.attn_factor", 1.0)
        return {"rope_type": "longrope", ORIGINAL: original, "attention_factor": scale} | lists
    # As llama.cpp: a factor without a type is linear, and without a factor nothing is scaled.
    kind = model.get("rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        raise UserError(
            f"{model.path}: {model.architecture}.rope.scaling.type={kind!r}: jft supports none, "
            "linear and yarn"
        )
    # Files from before scaling.type existed give the factor as scale_linear.
    before = model.number("rope.scale_linear", 0.0)
    factor = model.number("rope.scaling.factor", before)
    if kind == "yarn":
        return _yarn(model, factor, original)
    linear = factor if factor and kind == "linear" else 1.0
    if "rope_freqs.weight" not in model.shapes:
        return None if linear == 1.0 else {"rope_type": "linear", "factor": linear}
    factors = [each * linear for each in _table(model, "rope_freqs.weight", raw)]
    return known_scaling(factors, raw)


def _yarn(model: GgufModel, factor: float, original: int | None) -> dict[str, Any]:
    """Read YaRN's settings; llama.cpp multiplies its own factor of sine and cosine by a number.

    Raises:
      UserError: that number, or the weight of the unscaled frequencies, is not 1.
    """
    for key in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor"):
        value = model.number(f"rope.scaling.{key}", 1.0)
        if value != 1:
            raise UserError(
                f"{model.path}: {model.architecture}.rope.scaling.{key}={value:g}: jft supports 1; "
                "use the model's Hugging Face folder"
            )
    found = {"rope_type": "yarn", "factor": factor, ORIGINAL: original}
    for name in ("beta_fast", "beta_slow"):
        if model.get(f"rope.scaling.yarn_{name}") is not None:
            found[name] = model.number(f"rope.scaling.yarn_{name}")
    return found


def _table(model: GgufModel, name: str, raw: dict[str, Any]) -> list[float]:
    """Read the divisors of rotary frequencies."""
    wanted = (int(raw["head_dim"] * raw.get("partial_rotary_factor", 1.0)) // 2,)
    if name not in model.shapes or model.shapes[name] != wanted:
        raise UserError(
            f"{model.path}: the tensor {name} has the shape {model.shapes.get(name)}, but the "
            f"metadata asks for {wanted}"
        )
    return model.read(name).astype(np.float64).tolist()


def known_scaling(factors: list[float], raw: dict[str, Any]) -> dict[str, Any]:
    """Find the rotary settings of config.json that give some divisors.

    GGUF holds the divisors only, so the settings of llama3 are searched for. Its divisors do not
    change if low, high and original are all scaled by one number, so low is set to 1; high is 4
    times as much in every published model, and the original length is tried in powers of two. Any
    others are spelled out, as those of LongRoPE for short and long sequences alike.
    """
    wanted, factor = np.array(factors), round(max(factors), 4)
    for original in (2**exponent for exponent in range(4, 24)):
        found = llama3_factors(raw["head_dim"], raw["rope_theta"], factor, 1.0, 4.0, original)
        if len(found) == len(wanted) and np.allclose(found, wanted, rtol=1e-5):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                ORIGINAL: original,
            }
    return {
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": 1.0,
        "factor": 1.0,
        ORIGINAL: raw["max_position_embeddings"],
    }
