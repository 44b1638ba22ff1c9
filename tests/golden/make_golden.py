"""Write the tiny checkpoints beside this file, and the logits that Transformers gives for them.

Needs PyTorch, which jft and its tests do not:

    pip install torch transformers peft safetensors numpy
    python tests/golden/make_golden.py

Every variant is a folder: the checkpoint as Transformers saves it, and expected.npz with `tokens`
[T], `positions` [T] up to several thousand, `at` [M] (indices into the sequence) and `logits`
[M, V], computed in float32, and `generated` [16], the tokens that greedy decoding adds to `tokens`.
Rerunning it changes the files only in the last bits. Names as arguments make these variants alone.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent
SHAPE = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
DEFAULT = {"rope_type": "default", "rope_theta": 500.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 8.0,
    "original_max_position_embeddings": 256,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 2.5],
    "long_factor": [1.0, 27.0],
    "original_max_position_embeddings": 512,
}
WINDOW = 6
# The `model_type` of each variant, llama unless it says otherwise, and its settings.
VARIANTS = {
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3, "rope_parameters": DEFAULT},
    "untied": {"num_key_value_heads": 4},
    "llama3": {"rope_parameters": LLAMA3, "head_dim": 16},
    "linear": {"rope_parameters": LINEAR, "tie_word_embeddings": True},
    "bias": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral_window": {"model_type": "mistral", "sliding_window": WINDOW},
    "qwen2": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 6},
    "gemma": {"model_type": "gemma", "head_dim": 10},
    "gemma2": {
        "model_type": "gemma2",
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 5,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 2.0,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 4,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 12,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    },
    "smollm3": {"model_type": "smollm3", "no_rope_layer_interval": 2, "rope_theta": 5000.0},
    "olmo2": {"model_type": "olmo2"},
    "olmo3": {
        "model_type": "olmo3",
        "num_hidden_layers": 4,
        "sliding_window": WINDOW,
        "rope_parameters": {
            "full_attention": YARN,
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
        },
    },
    "phi3": {
        "model_type": "phi3",
        "sliding_window": WINDOW,
        "rope_parameters": DEFAULT | {"partial_rotary_factor": 0.5},
    },
    "longrope": {"model_type": "phi3", "rope_parameters": LONGROPE, "head_dim": 4},
    "longrope_short": {"model_type": "phi3", "rope_parameters": LONGROPE, "head_dim": 4},
    "granite": {
        "model_type": "granite",
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.25,
        "residual_multiplier": 0.6,
        "logits_scaling": 0.5,
    },
}
# Variants with a window have neighbouring positions from here on, since Transformers counts the
# distance in a window in tokens; all others have positions that leap.
STARTS = {
    "mistral_window": 5500,
    "qwen2": 5500,
    "gemma2": 5500,
    "gemma3": 5500,
    "olmo3": 5500,
    "phi3": 5500,
    "longrope_short": 100,
}
# Variants of which the gradients of all parameters are written.
GRADIENTS = ("qwen2", "gemma3", "olmo3")
DTYPES = {"untied": torch.bfloat16, "llama3": torch.float16}
SHARDED = {"untied": "6KB"}
# Adapters as PEFT saves them, by name: of which variant, and how.
ADAPTERS = {
    "lora": ("tied", {"r": 2, "lora_alpha": 5, "target_modules": ["q_proj", "o_proj", "up_proj"]}),
    "rslora": ("tied", {"r": 3, "use_rslora": True, "target_modules": "all-linear"}),
    "dora": ("bias", {"r": 2, "lora_alpha": 3, "use_dora": True, "target_modules": "all-linear"}),
    "lora_qwen2": ("qwen2", {"r": 2, "target_modules": ["q_proj", "v_proj", "gate_proj"]}),
    "lora_gemma3": ("gemma3", {"r": 2, "target_modules": "all-linear"}),
    "lora_phi3": ("longrope", {"r": 2, "target_modules": "all-linear"}),
}


def main() -> None:
    """Write all variants, or those that are asked for."""
    wanted = sys.argv[1:] or [*VARIANTS, *ADAPTERS]
    for seed, name in enumerate(VARIANTS):
        if name in wanted:
            torch.manual_seed(seed)
            folder = HERE / name
            shutil.rmtree(folder, ignore_errors=True)
            write_checkpoint(name, folder)
            write_expected(folder, load(name), STARTS.get(name))
            if name in GRADIENTS:
                write_gradients(folder, load(name))
    for seed, (name, (variant, settings)) in enumerate(ADAPTERS.items()):
        if name in wanted:
            torch.manual_seed(seed)
            folder = HERE / name
            shutil.rmtree(folder, ignore_errors=True)
            write_adapters(folder, load(variant), settings)
            tuned = PeftModel.from_pretrained(load(variant), folder).eval()
            write_expected(folder, tuned, STARTS.get(variant))
            trained = PeftModel.from_pretrained(load(variant), folder, is_trainable=True)
            write_gradients(folder, trained)


def write_adapters(folder: Path, base: torch.nn.Module, settings: dict) -> None:
    """Save random adapters that change a good deal."""
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    for key, parameter in model.named_parameters():
        if "lora_magnitude" in key:
            parameter.data *= 1 + 0.3 * torch.rand_like(parameter)
        elif "lora" in key:
            parameter.data = 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    file = folder / "adapter_config.json"
    # It names the folder of its base, which is where it was written.
    raw = json.loads(file.read_text())
    raw["base_model_name_or_path"] = "BASE"
    file.write_text(json.dumps(raw, indent=2) + "\n")


def write_gradients(folder: Path, model: torch.nn.Module) -> None:
    """Write the gradients of what is trained: of the log-probability of token 0, summed up."""
    tokens = np.load(folder / "expected.npz", allow_pickle=False)["tokens"]
    logits = model.eval()(input_ids=torch.tensor(tokens)[None]).logits
    torch.log_softmax(logits, -1)[..., 0].sum().backward()
    grads = {
        name.replace(".default", "").removesuffix(".weight" if "magnitude" in name else ""): (
            parameter.grad.numpy()
        )
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    np.savez(folder / "gradients.npz", **grads)


def load(name: str) -> torch.nn.Module:
    """Load the model of a variant."""
    return AutoModelForCausalLM.from_pretrained(
        HERE / name, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def write_checkpoint(name: str, folder: Path) -> None:
    """Save a random model whose attention is far from uniform and whose norms and biases matter."""
    config = AutoConfig.for_model(**{"model_type": "llama"} | SHAPE | VARIANTS[name])
    model = AutoModelForCausalLM.from_config(config)
    for key, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if parameter.ndim == 1:
            parameter.data = 0.3 * noise + (1.0 if "norm" in key else 0.0)
        else:
            parameter.data = noise * (1.0 if "embed" in key else 1.5 * parameter.shape[1] ** -0.5)
    size = {"max_shard_size": SHARDED[name]} if name in SHARDED else {}
    model.to(DTYPES.get(name, torch.float32)).save_pretrained(folder, **size)
    (folder / "generation_config.json").unlink()
    if name == "linear":
        use_old_spelling(folder / "config.json")


def use_old_spelling(file: Path) -> None:
    """Spell the rotary settings as Transformers 4 did."""
    raw = json.loads(file.read_text())
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope["rope_theta"]
    raw["rope_scaling"] = {"type": rope["rope_type"], "factor": rope["factor"]}
    file.write_text(json.dumps(raw, indent=2) + "\n")


def write_expected(folder: Path, model: torch.nn.Module, start: int | None = None) -> None:
    """Save the logits of one sequence, and what the model generates after it.

    Its positions leap ahead, as in no short text, or count up from `start`.
    """
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, SHAPE["vocab_size"], 40)
    positions = np.sort(rng.choice(np.arange(6000), 40, replace=False))
    positions[:8] = np.arange(8)
    if start is not None:
        positions = start + np.arange(40)
    at = np.array([0, 1, 7, 8, 15, 23, 31, 39])
    ids, ones = torch.tensor(tokens)[None], torch.ones(1, 40, dtype=torch.long)
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            position_ids=torch.tensor(positions)[None],
            # Without a mask, Transformers takes leaps in the positions for packed sequences.
            attention_mask=ones,
            use_cache=False,
        ).logits[0, at]
        generated = model.generate(
            input_ids=ids, attention_mask=ones, max_new_tokens=16, do_sample=False, pad_token_id=0
        )[0, 40:]
    np.savez(
        folder / "expected.npz",
        tokens=tokens,
        positions=positions,
        at=at,
        logits=logits.numpy(),
        generated=generated.numpy(),
    )


if __name__ == "__main__":
    main()
