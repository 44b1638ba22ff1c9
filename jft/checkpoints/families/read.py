"""A config.json -> `DecoderConfig`, by the table of families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jft.checkpoints.families import rope
from jft.checkpoints.families.family import FULL, WINDOWED, Family, Keys, Stored
from jft.checkpoints.families.gguf_config import known_scaling
from jft.checkpoints.families.table import FAMILIES, REFUSED, TEXT_PARTS
from jft.checkpoints.families.tensors import LLAMA_TENSORS
from jft.errors import UserError
from jft.model.architecture import DecoderConfig, LayerKind

# The config.json of models that are planned for without their files, by name.
SHAPES = {file.stem: file for file in sorted((Path(__file__).parent / "shapes").glob("*.json"))}
BIASES = ("attention_bias", "mlp_bias")


def family_of(raw: dict[str, Any], file: Path) -> Family:
    """Find the family of a config.json.

    Raises:
      UserError: jft does not support it; the message says why.
    """
    kind = raw.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES:
        return FAMILIES[kind]
    supported = f"jft supports {', '.join([*FAMILIES, *TEXT_PARTS])}"
    reasons = [why for name, why in REFUSED.items() if str(kind).startswith(name)]
    named = f"{file}: model_type={repr(kind)[:60]}"
    if reasons:
        raise UserError(f"{named} is not supported: {reasons[0]}; {supported}")
    raise UserError(f"{named}: {supported} only")


def text_part(raw: dict[str, Any], file: Path) -> dict[str, Any]:
    """Take the config of the text part of a model of text and images; else the config itself.

    Raises:
      UserError: the model has no text part.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        return raw
    inner, wanted = raw.get("text_config"), TEXT_PARTS[kind]
    if not isinstance(inner, dict):
        raise UserError(
            f"{file}: text_config={repr(inner)[:40]}: must be an object; download the file again"
        )
    if inner.get("model_type", wanted) != wanted:
        raise UserError(
            f"{file}: text_config has model_type={repr(inner['model_type'])[:60]}, where {kind} "
            f"has {wanted}; download the file again"
        )
    # Quantized, and with a tied head, is what the whole model says that it is.
    outer = ("eos_token_id", "quantization_config", "tie_word_embeddings")
    found = {key: raw[key] for key in outer if raw.get(key) is not None}
    ends = {"eos_token_id": inner["eos_token_id"]} if "eos_token_id" in inner else {}
    return inner | found | ends | {"model_type": wanted}


def is_text_part(raw: dict[str, Any]) -> bool:
    """Check whether a config.json is of a model of text and images, of which the text is read."""
    return raw.get("model_type") in TEXT_PARTS


def text_tensor(name: str) -> str | None:
    """Return the name in the text part alone of a tensor of such a model; None: it is of images.

    Transformers 4 had the text part under `language_model.`, 5 has its layers there, in `model.`.
    """
    for before, after in (("model.language_model.", "model."), ("language_model.", "")):
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name if name.startswith("lm_head.") else None


def tensors(family: Family) -> dict[str, Stored]:
    """Return where a family's parameters are stored, by their path in the decoder."""
    return LLAMA_TENSORS | family.tensors


def all_tensors() -> list[dict[str, Stored]]:
    """Return `tensors` of all families."""
    return [tensors(family) for family in FAMILIES.values()]


def decoder_config(raw: dict[str, Any], file: Path) -> DecoderConfig:
    """Return the decoder that a config.json describes.

    Args:
      raw: the parsed file, in the spelling of Transformers 4 or 5.
      file: its path, for messages.

    Raises:
      UserError: a key is missing, or has a value that jft does not support.
    """
    raw = text_part(raw, file)
    family = family_of(raw, file)
    raw = family.defaults | raw
    keys = Keys(raw, file)
    _check_computation(keys, family)
    heads, embed_dim = keys.size("num_attention_heads"), keys.size("hidden_size")
    raw["num_key_value_heads"] = raw.get("num_key_value_heads") or heads
    raw["head_dim"] = raw.get("head_dim") or embed_dim // heads
    if heads % keys.size("num_key_value_heads"):
        raise UserError(
            f"{file}: num_key_value_heads={keys.size('num_key_value_heads')} must divide "
            f"num_attention_heads={heads}"
        )
    if keys.size("head_dim") % 2:
        raise UserError(
            f"{file}: head_dim={keys.size('head_dim')}: rotary embeddings need an even one"
        )
    fields: dict[str, Any] = {
        "vocab_size": keys.size("vocab_size"),
        "embed_dim": embed_dim,
        "num_layers": keys.size("num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": keys.size("num_key_value_heads"),
        "head_dim": keys.size("head_dim"),
        "mlp_dim": keys.size("intermediate_size"),
        "layers": _layers(keys, family),
        "rotated_dim": rope.rotated_dim(keys, family),
        "activation": _activation(keys, family),
        "qkv_bias": keys.flag("attention_bias"),
        "out_bias": keys.flag("attention_bias"),
        "mlp_bias": keys.flag("mlp_bias"),
        "norm_eps": keys.number("rms_norm_eps"),
        "tied_head": keys.flag("tie_word_embeddings"),
        "max_positions": keys.size("max_position_embeddings"),
    }
    computed = {name: of(keys) for name, of in family.computed.items()}
    return DecoderConfig(**fields | family.switches | computed)


def _check_computation(keys: Keys, family: Family) -> None:
    """Refuse settings that change the computation in a way that the decoder does not support."""
    raw, file = keys
    if raw.get("quantization_config"):
        raise UserError(
            f"{file}: quantization_config: jft reads float weights only; use the unquantized model "
            "or a GGUF file"
        )
    for key in BIASES:
        if keys.flag(key) and key not in family.biases:
            kind = raw["model_type"]
            raise UserError(f"{file}: {key}=true: Transformers' {kind} has no such biases")
    if raw.get("is_causal") is not None and not keys.flag("is_causal"):
        raise UserError(f"{file}: is_causal=false: jft attends to what came before only")
    if keys.flag("use_bidirectional_attention"):
        raise UserError(
            f"{file}: use_bidirectional_attention=true: jft attends to what came before only"
        )


def _activation(keys: Keys, family: Family) -> str:
    name = keys.raw.get("hidden_activation") or keys.raw["hidden_act"]
    if not isinstance(name, str) or name not in family.activations:
        known = ", ".join(family.activations)
        raise UserError(f"{keys.file}: hidden_act={repr(name)[:40]}: jft supports {known} here")
    return family.activations[name]


def _layers(keys: Keys, family: Family) -> tuple[LayerKind, ...]:
    """Find the kind of every layer; a single one where all are of one kind."""
    types, rotated = family.layer_types(keys), family.rotated(keys)
    if unknown := [kind for kind in types if kind not in (FULL, WINDOWED)]:
        raise UserError(
            f"{keys.file}: layer_types holds {unknown[0]!r}: jft supports {FULL} and {WINDOWED}"
        )
    # Transformers takes a window of 0 for none, too.
    if WINDOWED in types and not keys.window():
        raise UserError(f"{keys.file}: layer_types holds {WINDOWED}, but sliding_window is not set")
    ropes = rope.read_ropes(keys, family)
    layers = tuple(
        LayerKind(keys.window() if kind == WINDOWED else 0, ropes[kind] if turns else None)
        for kind, turns in zip(types, rotated, strict=True)
    )
    return layers[:1] if len(set(layers)) == 1 else layers


def describe_llama(sizes: dict[str, Any]) -> dict[str, Any]:
    """Make the config.json of a decoder as version 1 of `model.json` held it: a Llama's sizes."""
    keys = {
        "vocab_size": "vocab_size",
        "hidden_size": "embed_dim",
        "intermediate_size": "mlp_dim",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_kv_heads",
        "head_dim": "head_dim",
        "rms_norm_eps": "norm_eps",
        "max_position_embeddings": "max_positions",
        "rope_theta": "rope_theta",
        "tie_word_embeddings": "tied_head",
        "attention_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
    }
    raw = {"model_type": "llama"} | {key: sizes[name] for key, name in keys.items()}
    factors = sizes["rope_factors"]
    if not isinstance(factors, list):
        raise TypeError(f"decoder.rope_factors={factors!r}")
    if factors:
        raw["rope_scaling"] = known_scaling(list(map(float, factors)), raw)
    return raw
