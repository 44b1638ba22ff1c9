"""The table of families, by `model_type`; defaults are those of Transformers' config classes.

To add a family, add an entry, and a golden file (tests/golden/make_golden.py). What it computes
must be a matter of the switches of `DecoderConfig`; no other file knows families by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jft.checkpoints.families import tensors
from jft.checkpoints.families.family import (
    FULL,
    WINDOWED,
    Family,
    Gguf,
    Keys,
    full_layers,
    listed_layers,
)

LLAMA_DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
QWEN_DEFAULTS = LLAMA_DEFAULTS | {
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
GEMMA_DEFAULTS = LLAMA_DEFAULTS | {
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "head_dim": 256,
    "tie_word_embeddings": True,
}
# Norms of Gemma have weights 1 + w, multiplied in float32; of OLMo, w in float32.
GEMMA_NORMS = {"norm_offset": 1.0, "norm_float32": True}


def _sqrt_of_width(keys: Keys) -> float:
    return keys.number("hidden_size") ** 0.5


def _score_scale(keys: Keys) -> float:
    return keys.number("query_pre_attn_scalar") ** -0.5


def _all_windowed(keys: Keys) -> list[str]:
    return [WINDOWED if keys.window() else FULL] * keys.size("num_hidden_layers")


def _qwen_layers(keys: Keys) -> list[str]:
    if not keys.flag("use_sliding_window") or not keys.window():
        return full_layers(keys)
    first = keys.size("max_window_layers") if keys.raw["max_window_layers"] else 0
    return listed_layers(lambda keys, i: i >= first)(keys)


def _smollm3_rotated(keys: Keys) -> list:
    layers = keys.size("num_hidden_layers")
    listed = keys.raw.get("no_rope_layers")
    if isinstance(listed, list) and len(listed) > layers:  # as in configs of cut models
        keys.raw["no_rope_layers"] = listed[:layers]
    if found := keys.by_layer("no_rope_layers", int):
        return found
    interval = keys.size("no_rope_layer_interval")
    return [(i + 1) % interval > 0 for i in range(layers)]


def _smollm3_layers(keys: Keys) -> list[str]:
    windowed = keys.flag("use_sliding_window") and bool(keys.window())
    rotated = _smollm3_rotated(keys)
    return listed_layers(lambda keys, i: windowed and not rotated[i])(keys)


def _gemma_scalar(layers_of_27b: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Make the rule by which llama.cpp scales scores: the largest Gemma differs from the others."""

    def unsaid(known: dict[str, Any]) -> dict[str, Any]:
        largest = known["num_hidden_layers"] == layers_of_27b
        of_width = known["hidden_size"] // known["num_attention_heads"]
        return {"query_pre_attn_scalar": of_width if largest else known["head_dim"]}

    return unsaid


LLAMA = Family(
    "LlamaForCausalLM",
    LLAMA_DEFAULTS,
    biases=("attention_bias", "mlp_bias"),
    gguf=Gguf("llama", pairs=True),
)
FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": Family(
        "MistralForCausalLM",
        LLAMA_DEFAULTS
        | {
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
        },
        biases=(),
        layer_types=_all_windowed,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        QWEN_DEFAULTS,
        biases=(),
        switches={"qkv_bias": True},
        layer_types=_qwen_layers,
        gguf=Gguf("qwen2"),
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        QWEN_DEFAULTS | {"head_dim": 128},
        switches={"query_key_norm": "head"},
        layer_types=_qwen_layers,
        tensors=tensors.HEAD_NORMS,
        gguf=Gguf("qwen3"),
    ),
    "gemma": Family(
        "GemmaForCausalLM",
        GEMMA_DEFAULTS,
        switches=GEMMA_NORMS,
        computed={"embed_scale": _sqrt_of_width},
        # Its first files said `gelu` for the approximation by a hyperbolic tangent.
        activations={"gelu": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"},
        gguf=Gguf("gemma", ranked_by_id=True),
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        GEMMA_DEFAULTS
        | {
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        switches=GEMMA_NORMS | {"norms": "both"},
        computed={
            "embed_scale": _sqrt_of_width,
            "score_scale": _score_scale,
            "score_cap": lambda keys: keys.cap("attn_logit_softcapping"),
            "logit_cap": lambda keys: keys.cap("final_logit_softcapping"),
        },
        layer_types=listed_layers(lambda keys, i: i % 2 == 0),
        tensors=tensors.NORMS_BOTH,
        gguf=Gguf(
            "gemma2",
            {
                "attention.sliding_window": "sliding_window",
                "attn_logit_softcapping": "attn_logit_softcapping",
                "final_logit_softcapping": "final_logit_softcapping",
            },
            _gemma_scalar(layers_of_27b=46),
            ranked_by_id=True,
        ),
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        GEMMA_DEFAULTS
        | {
            # The files of the larger models leave these to the defaults of their text part.
            "vocab_size": 262208,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 131072,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "sliding_window_pattern": 6,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
        },
        switches=GEMMA_NORMS | {"norms": "both", "query_key_norm": "head"},
        computed={
            "embed_scale": _sqrt_of_width,
            "score_scale": _score_scale,
            "logit_cap": lambda keys: keys.cap("final_logit_softcapping"),
        },
        layer_types=listed_layers(
            lambda keys, i: (i + 1) % keys.size("sliding_window_pattern") > 0
        ),
        local_theta="rope_local_base_freq",
        tensors=tensors.HEAD_NORMS | tensors.NORMS_BOTH,
        gguf=Gguf(
            "gemma3",
            {"attention.sliding_window": "sliding_window"},
            _gemma_scalar(layers_of_27b=62),
            ranked_by_id=True,
        ),
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        LLAMA_DEFAULTS
        | {
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "rope_theta": 2e6,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
            "no_rope_layer_interval": 4,
        },
        biases=("attention_bias", "mlp_bias"),
        layer_types=_smollm3_layers,
        rotated=_smollm3_rotated,
        gguf=Gguf("smollm3", pairs=True),
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        LLAMA_DEFAULTS | {"rms_norm_eps": 1e-5},
        switches={"norms": "after", "norm_float32": True, "query_key_norm": "heads"},
        tensors=tensors.HEADS_NORMS | tensors.NORMS_AFTER,
        gguf=Gguf("olmo2"),
    ),
    "olmo3": Family(
        "Olmo3ForCausalLM",
        LLAMA_DEFAULTS | {"rms_norm_eps": 1e-5, "rope_theta": 5e5, "sliding_window": 4096},
        switches={"norms": "after", "norm_float32": True, "query_key_norm": "heads"},
        layer_types=listed_layers(lambda keys, i: (i + 1) % 4 > 0),
        local_theta="rope_theta",
        tensors=tensors.HEADS_NORMS | tensors.NORMS_AFTER,
        gguf=Gguf("olmo2", {"attention.sliding_window": "sliding_window"}),
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        LLAMA_DEFAULTS
        | {
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
        },
        biases=(),
        layer_types=_all_windowed,
        rope_types={"su": "longrope", "yarn": "longrope"},
        partial=True,
        tensors=tensors.FUSED,
        gguf=Gguf("phi3", {"attention.sliding_window": "sliding_window"}, adds_space=True),
    ),
    "granite": Family(
        "GraniteForCausalLM",
        LLAMA_DEFAULTS
        | {
            "embedding_multiplier": 1.0,
            "residual_multiplier": 1.0,
            "attention_multiplier": 1.0,
            "logits_scaling": 1.0,
        },
        biases=("attention_bias", "mlp_bias"),
        computed={
            "embed_scale": lambda keys: keys.number("embedding_multiplier"),
            "residual_scale": lambda keys: keys.number("residual_multiplier"),
            "score_scale": lambda keys: keys.number("attention_multiplier"),
            "logit_scale": lambda keys: 1 / keys.number("logits_scaling"),
        },
        gguf=Gguf(
            "granite",
            {
                "embedding_scale": "embedding_multiplier",
                "residual_scale": "residual_multiplier",
                "attention.scale": "attention_multiplier",
                "logit_scale": "logits_scaling",
            },
            pairs=True,
        ),
    ),
}
# Models of text and images, by the family of their text part.
TEXT_PARTS = {"gemma3": "gemma3_text"}

RECURRENT = "it keeps a recurrent state, which prefix trees cannot share"
EXPERTS = "a mixture of experts, for which jft has no router and no expert parallelism"
# Families that are refused, by the beginning of their `model_type`.
REFUSED = {
    **dict.fromkeys(
        (
            *("mamba", "falcon_mamba", "falcon_h1", "rwkv", "recurrent_gemma", "jamba", "bamba"),
            *("lfm2", "qwen3_5", "qwen3_next", "granitemoehybrid", "nemotron_h", "zamba"),
            *("plamo2", "olmo_hybrid", "kimi_linear"),
        ),
        RECURRENT,
    ),
    **dict.fromkeys(
        (
            *("mixtral", "qwen2_moe", "qwen3_moe", "qwen3_vl_moe", "olmoe", "flex_olmo", "phimoe"),
            *("granitemoe", "deepseek", "gpt_oss", "llama4", "dbrx", "glm4_moe", "ernie4_5_moe"),
            *("jetmoe", "hunyuan_v1_moe", "afmoe", "minimax"),
        ),
        EXPERTS,
    ),
    "gemma3n": "its layers have inputs of their own and share keys and values",
    "gemma4": "its layers have inputs of their own, share keys and values, and differ in head size",
}
