"""Hugging Face's config.json <-> DecoderConfig, for Llama and models that compute the same."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from jft.errors import UserError
from jft.model.decoder import DecoderConfig

# The values of absent keys (LlamaConfig and MistralConfig of Transformers).
LLAMA = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "sliding_window": None,
}
MISTRAL = LLAMA | {
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
ARCHITECTURES = {"llama": LLAMA, "mistral": MISTRAL}
# Larger ones mean a damaged file.
LARGEST = {"head_dim": 1 << 16, "num_hidden_layers": 1 << 16, "num_attention_heads": 1 << 20}
LARGEST_SIZE, LARGEST_NUMBER = 2**31 - 1, 1e30
ROPE_TYPES = ("default", "linear", "llama3")


def from_json(raw: dict, file: Path) -> DecoderConfig:
    """Return the decoder that a config.json describes.

    Args:
      raw: the parsed file, in the spelling of Transformers 4 or 5.
      file: its path, for messages.

    Raises:
      UserError: a key is missing, or has a value that jft does not support.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        supported = ", ".join(ARCHITECTURES)
        raise UserError(f"{file}: model_type={kind!r}: jft supports {supported} only")
    raw = ARCHITECTURES[kind] | raw
    _check_computation(raw, file)
    heads, embed_dim = _size(raw, "num_attention_heads", file), _size(raw, "hidden_size", file)
    raw["num_key_value_heads"] = raw.get("num_key_value_heads") or heads
    raw["head_dim"] = raw.get("head_dim") or embed_dim // heads
    config = DecoderConfig(
        vocab_size=_size(raw, "vocab_size", file),
        embed_dim=embed_dim,
        num_layers=_size(raw, "num_hidden_layers", file),
        num_heads=heads,
        num_kv_heads=_size(raw, "num_key_value_heads", file),
        head_dim=_size(raw, "head_dim", file),
        mlp_dim=_size(raw, "intermediate_size", file),
        norm_eps=_number(raw, "rms_norm_eps", file),
        rope_theta=_number(_rope(raw, file), "rope_theta", file),
        rope_factors=_rope_factors(raw, file),
        tied_head=bool(raw["tie_word_embeddings"]),
        attention_bias=bool(raw["attention_bias"]),
        mlp_bias=bool(raw["mlp_bias"]),
        max_positions=_size(raw, "max_position_embeddings", file),
    )
    if config.num_heads % config.num_kv_heads:
        raise UserError(
            f"{file}: num_key_value_heads={config.num_kv_heads} must divide "
            f"num_attention_heads={config.num_heads}"
        )
    if config.head_dim % 2:
        raise UserError(f"{file}: head_dim={config.head_dim}: rotary embeddings need an even one")
    return config


def to_json(config: DecoderConfig) -> dict:
    """Return the config.json of a LlamaForCausalLM, as Transformers 4 and 5 both read it.

    Raises:
      UserError: no rope type of Transformers gives the config's `rope_factors`.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed_dim,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_positions,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(config),
        "tie_word_embeddings": config.tied_head,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
    }


def llama3_factors(
    head_dim: int, theta: float, factor: float, low: float, high: float, original: float
) -> tuple[float, ...]:
    """Compute the divisors that Llama 3.1 applies to rotary frequencies (arXiv 2407.21783).

    Wavelengths above `original / low` positions are stretched by `factor`, those below
    `original / high` are unchanged, and in between the frequency is interpolated.

    Args:
      head_dim: H.
      theta: base of the rotary frequencies.
      factor: stretch of the longest wavelengths.
      low: number of wavelengths in `original` positions below which all of `factor` applies.
      high: number of wavelengths in `original` positions above which nothing changes.
      original: positions that the model was trained on before it was stretched.

    Returns:
      H / 2 divisors, 1 for a frequency that does not change.
    """
    wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    unchanged = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    return tuple((1.0 / ((1.0 - unchanged) / factor + unchanged)).tolist())


def _check_computation(raw: dict, file: Path) -> None:
    """Refuse settings that change the computation in a way that the decoder does not support."""
    if raw["hidden_act"] not in ("silu", "swish"):
        raise UserError(f"{file}: hidden_act={raw['hidden_act']!r}: jft supports silu only")
    if raw.get("quantization_config"):
        raise UserError(
            f"{file}: quantization_config: jft reads float weights only; use the unquantized model "
            "or a GGUF file"
        )
    if raw["model_type"] == "mistral" and raw.get("attention_bias"):
        raise UserError(f"{file}: attention_bias=true: Transformers' mistral has no such biases")
    if raw.get("is_causal") is False:
        raise UserError(f"{file}: is_causal=false: jft attends to what came before only")
    window = raw["sliding_window"] and _number(raw, "sliding_window", file)
    longest = _number(raw, "max_position_embeddings", file)
    if window and window < longest:
        raise UserError(
            f"{file}: sliding_window={window:.0f} is below max_position_embeddings={longest:.0f}: "
            "jft attends to the whole sequence; use a model without a window"
        )
    if (part := _rope(raw, file).get("partial_rotary_factor", 1.0)) != 1.0:
        raise UserError(f"{file}: partial_rotary_factor={part}: jft rotates whole heads only")


def _rope(raw: dict, file: Path) -> dict:
    """Return the rotary settings: `rope_parameters` of Transformers 5, or `rope_scaling` of 4."""
    new, old = raw.get("rope_parameters") or {}, raw.get("rope_scaling") or {}
    inner = new or old
    if not isinstance(new, dict) or not isinstance(old, dict):
        raise UserError(f"{file}: rope_scaling={old or new!r}: must be an object")
    if new and any(_typed(new).get(key) != value for key, value in _typed(old).items()):
        raise UserError(
            f"{file}: rope_scaling={old} and rope_parameters={new} disagree; remove the wrong one"
        )
    keys = ("rope_theta", "partial_rotary_factor")
    outer = {key: raw[key] for key in keys if raw.get(key) is not None}
    original = "original_max_position_embeddings"
    default = {original: raw["max_position_embeddings"]}
    # Of two original lengths Transformers believes that outside.
    outside = {original: raw[original]} if raw.get(original) is not None else {}
    return default | outer | inner | outside


def _typed(rope: dict) -> dict:
    """Call the type of rotary settings as Transformers 5 does."""
    return {"rope_type" if key == "type" else key: value for key, value in rope.items()}


def _rope_factors(raw: dict, file: Path) -> tuple[float, ...]:
    rope, head_dim = _rope(raw, file), _size(raw, "head_dim", file)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE_TYPES:
        supported = ", ".join(ROPE_TYPES)
        raise UserError(f"{file}: rope type {kind!r}: jft supports {supported}")
    if kind == "default":
        return ()
    factor = _number(rope, "factor", file)
    if kind == "linear":
        return (factor,) * (head_dim // 2)
    names = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    low, high, original = (_number(rope, name, file) for name in names)
    theta = _number(rope, "rope_theta", file)
    if low >= high:
        raise UserError(f"{file}: low_freq_factor={low:g}: must be below high_freq_factor={high:g}")
    return llama3_factors(head_dim, theta, factor, low, high, original)


def _rope_scaling(config: DecoderConfig) -> dict | None:
    """Find the rope type that gives `rope_factors`; None where there are none.

    A `DecoderConfig` holds factors only, so the settings of llama3 are searched for. Its factors do
    not change if low, high and original are all scaled by one number, so low is set to 1; high is 4
    times as much in every published model, and the original length is tried in powers of two.
    """
    if not config.rope_factors:
        return None
    wanted, factor = np.array(config.rope_factors), round(max(config.rope_factors), 4)
    if np.allclose(wanted, factor, rtol=1e-5):
        return {"rope_type": "linear", "factor": factor}
    for original in (2**exponent for exponent in range(4, 24)):
        found = llama3_factors(config.head_dim, config.rope_theta, factor, 1.0, 4.0, original)
        if np.allclose(found, wanted, rtol=1e-5):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            }
    raise UserError(
        "this model's rope_factors fit neither Transformers' linear nor its llama3 rope type, so "
        "no config.json can describe it; keep using the jft checkpoint"
    )


def _size(raw: dict, key: str, file: Path) -> int:
    value = _number(raw, key, file)
    if value != int(value) or value > LARGEST.get(key, LARGEST_SIZE):
        most = LARGEST.get(key, LARGEST_SIZE)
        raise UserError(f"{file}: {key}={value:g}: must be a whole number up to {most}")
    return int(value)


def _number(raw: dict, key: str, file: Path) -> float:
    if key not in raw:
        raise UserError(f"{file}: the key {key} is missing; copy or download the file again")
    value = raw[key]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < LARGEST_NUMBER:
        raise UserError(f"{file}: {key}={repr(value)[:40]}: must be a number above 0")
    return float(value)
