"""The names and layouts under which other formats store the decoder's parameters.

One table serves reading and writing, Hugging Face and GGUF. It has one entry for each parameter of
the decoder, under the path that the parameter has there; a family that stores one otherwise says so
in its own entries. A model uses those of the parameters that its `DecoderConfig` gives it.
"""

from __future__ import annotations

from jft.checkpoints.families.family import Stored


def _linear(
    path: str, hf: str, gguf: str, outputs: str, inputs: str, before: tuple[str, ...] = ()
) -> dict[str, Stored]:
    hf, gguf = f"model.layers.{{}}.{hf}", f"blk.{{}}.{gguf}"
    peft, adapter = f"base_model.model.{hf}.lora", f"layers/{path}/adapter"
    layout = f"{outputs} {inputs}"
    return {
        f"layers/{path}/kernel": Stored(f"{hf}.weight", f"{gguf}.weight", layout, before),
        f"layers/{path}/bias": Stored(f"{hf}.bias", f"{gguf}.bias", outputs, before),
        # Adapters as PEFT stores them; jft does not read llama.cpp's.
        f"{adapter}/down": Stored(f"{peft}_A.weight", "", f"J {inputs}"),
        f"{adapter}/up": Stored(f"{peft}_B.weight", "", f"{outputs} J", before),
        f"{adapter}/magnitude": Stored(f"{peft}_magnitude_vector", "", outputs, before),
    }


def _norm(path: str, hf: str, gguf: str, layout: str = "D") -> dict[str, Stored]:
    stored = Stored(f"model.layers.{{}}.{hf}.weight", f"blk.{{}}.{gguf}.weight", layout)
    return {f"layers/{path}/scale": stored}


LLAMA_TENSORS = {
    "embed": Stored("model.embed_tokens.weight", "token_embd.weight", "V D"),
    "final_norm/scale": Stored("model.norm.weight", "output_norm.weight", "D"),
    "head/kernel": Stored("lm_head.weight", "output.weight", "V D"),
    **_norm("attention_norm", "input_layernorm", "attn_norm"),
    **_linear("attention/query", "self_attn.q_proj", "attn_q", "NH", "D"),
    **_linear("attention/key", "self_attn.k_proj", "attn_k", "KH", "D"),
    **_linear("attention/value", "self_attn.v_proj", "attn_v", "KH", "D"),
    **_linear("attention/out", "self_attn.o_proj", "attn_output", "D", "NH"),
    **_norm("mlp_norm", "post_attention_layernorm", "ffn_norm"),
    **_linear("mlp/gate", "mlp.gate_proj", "ffn_gate", "F", "D"),
    **_linear("mlp/up", "mlp.up_proj", "ffn_up", "F", "D"),
    **_linear("mlp/down", "mlp.down_proj", "ffn_down", "D", "F"),
}
# Norms of each head of queries and keys, or of all heads together.
HEAD_NORMS = {
    **_norm("attention/query_norm", "self_attn.q_norm", "attn_q_norm", "H"),
    **_norm("attention/key_norm", "self_attn.k_norm", "attn_k_norm", "H"),
}
HEADS_NORMS = {
    **_norm("attention/query_norm", "self_attn.q_norm", "attn_q_norm", "NH"),
    **_norm("attention/key_norm", "self_attn.k_norm", "attn_k_norm", "KH"),
}
# Norms after attention and feed-forward layer; the first has the name that Llama gives to the one
# before the feed-forward layer, which is called otherwise where there are both.
NORMS_AFTER = {
    **_norm("attention_out_norm", "post_attention_layernorm", "post_attention_norm"),
    **_norm("mlp_out_norm", "post_feedforward_layernorm", "post_ffw_norm"),
}
NORMS_BOTH = NORMS_AFTER | _norm("mlp_norm", "pre_feedforward_layernorm", "ffn_norm")
# Queries, keys and values as one matrix, and gate and up as one.
FUSED = {
    **_linear("attention/query", "self_attn.qkv_proj", "attn_qkv", "NH", "D"),
    **_linear("attention/key", "self_attn.qkv_proj", "attn_qkv", "KH", "D", ("NH",)),
    **_linear("attention/value", "self_attn.qkv_proj", "attn_qkv", "KH", "D", ("NH", "KH")),
    **_linear("mlp/gate", "mlp.gate_up_proj", "ffn_up", "F", "D"),
    **_linear("mlp/up", "mlp.gate_up_proj", "ffn_up", "F", "D", ("F",)),
}
