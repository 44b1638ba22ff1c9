"""Write the tiny checkpoints beside this file, and the logits that Transformers gives for them.

Needs PyTorch, which jft and its tests do not:

    pip install torch transformers peft safetensors numpy
    python tests/golden/make_golden.py

Every variant is a folder: the checkpoint as Transformers saves it, and expected.npz with `tokens`
[T], `positions` [T] up to several thousand, `at` [M] (indices into the sequence) and `logits`
[M, V], computed in float32. Rerunning it changes the files only in the last bits.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

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
VARIANTS = {
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3, "rope_parameters": DEFAULT},
    "untied": {"num_key_value_heads": 4},
    "llama3": {"rope_parameters": LLAMA3, "head_dim": 16},
    "linear": {"rope_parameters": LINEAR, "tie_word_embeddings": True},
    "bias": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    "mistral": {"sliding_window": None},
}
DTYPES = {"untied": torch.bfloat16, "llama3": torch.float16}
SHARDED = {"untied": "6KB"}
# Adapters as PEFT saves them, by name: of which variant, and how.
ADAPTERS = {
    "lora": ("tied", {"r": 2, "lora_alpha": 5, "target_modules": ["q_proj", "o_proj", "up_proj"]}),
    "rslora": ("tied", {"r": 3, "use_rslora": True, "target_modules": "all-linear"}),
    "dora": ("bias", {"r": 2, "lora_alpha": 3, "use_dora": True, "target_modules": "all-linear"}),
}


def main() -> None:
    """Write all variants."""
    for seed, name in enumerate(VARIANTS):
        torch.manual_seed(seed)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(name, folder)
        write_expected(folder, load(name))
    for seed, (name, (variant, settings)) in enumerate(ADAPTERS.items()):
        torch.manual_seed(seed)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        write_adapters(folder, load(variant), settings)
        write_expected(folder, PeftModel.from_pretrained(load(variant), folder).eval())
        write_gradients(folder, PeftModel.from_pretrained(load(variant), folder, is_trainable=True))


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
    """Write the gradients of adapters: of the log-probability of token 0, summed over positions."""
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
    _, model = classes(name)
    folder = HERE / name
    return model.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def write_checkpoint(name: str, folder: Path) -> None:
    """Save a random model whose attention is far from uniform and whose norms and biases matter."""
    config, model = classes(name)
    model = model(config(**SHAPE | VARIANTS[name]))
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


def write_expected(folder: Path, model: torch.nn.Module) -> None:
    """Save the logits of one sequence whose positions leap ahead, as in no short text."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, SHAPE["vocab_size"], 40)
    positions = np.sort(rng.choice(np.arange(6000), 40, replace=False))
    positions[:8] = np.arange(8)
    at = np.array([0, 1, 7, 8, 15, 23, 31, 39])
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor(tokens)[None],
            position_ids=torch.tensor(positions)[None],
            # Without a mask, Transformers takes leaps in the positions for packed sequences.
            attention_mask=torch.ones(1, 40, dtype=torch.long),
            use_cache=False,
        ).logits[0, at]
    np.savez(
        folder / "expected.npz", tokens=tokens, positions=positions, at=at, logits=logits.numpy()
    )


def classes(name: str):
    """Return the config and model class of a variant."""
    if name == "mistral":
        return MistralConfig, MistralForCausalLM
    return LlamaConfig, LlamaForCausalLM


if __name__ == "__main__":
    main()
