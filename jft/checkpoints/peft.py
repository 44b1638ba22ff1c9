"""Adapters in the format of the PEFT library: a folder beside a base."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from jft.checkpoints import safetensors_io, tensor_names
from jft.checkpoints.files import ADAPTERS, locate, read_model_json
from jft.checkpoints.tensor_names import TABLE
from jft.errors import UserError
from jft.model.architecture import Adapters, DecoderConfig
from jft.model.decoder import Params

WEIGHTS = "adapter_model.safetensors"
# Of how adapters began: those that leave the base as it is. Others hide a change of its weights.
HARMLESS_BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")
# Beyond these something is damaged: no projection has more dimensions, and the change no digits.
LARGEST_RANK, LARGEST_ALPHA = 1 << 16, 1e9
# What would change how adapters compute, by the value that says they do not.
UNSUPPORTED = {
    "bias": "none",
    "fan_in_fan_out": False,
    "layers_to_transform": None,
    "layer_replication": None,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "lora_bias": False,
    "trainable_token_indices": None,
    "target_parameters": None,
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "use_bdlora": None,
    "kasa_config": None,
    "monteclora_config": None,
    "velora_config": None,
    "arrow_config": None,
    "loftq_config": {},
    "corda_config": None,
}


def is_one(path: str) -> bool:
    """Whether `model.path` names a folder on this machine that holds adapters and no model."""
    folder = Path(path).expanduser()
    return (folder / ADAPTERS).is_file() and not _holds_model(folder)


def check_none(path: str) -> None:
    """Refuse a model's folder that holds adapters, too: which of them is meant?

    Raises:
      UserError: it does.
    """
    folder = Path(path).expanduser()
    if (folder / ADAPTERS).is_file():
        raise UserError(
            f"model.path={path}: holds a model and adapters; move one of them, "
            f"{safetensors_io.WEIGHTS} or {WEIGHTS} with {ADAPTERS}, to a folder of its own"
        )


def _holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (safetensors_io.WEIGHTS, safetensors_io.INDEX))


def describe(path: str, dtype: str = "float32") -> tuple[str, Adapters]:
    """The base that adapters belong to, as `model.path`, and what they are.

    Args:
      path: the folder.
      dtype: the type that the base is to be held in.

    Raises:
      UserError: they compute something that jft does not know.
    """
    folder = locate(path, (ADAPTERS, WEIGHTS))
    file = folder / ADAPTERS
    raw = read_model_json(file)
    if raw.get("peft_type") != "LORA":
        raise UserError(f"{file}: peft_type={raw.get('peft_type')!r}: jft supports LORA only")
    for key, harmless in UNSUPPORTED.items():
        value = raw.get(key)
        if value != harmless and value is not False and value not in (None, [], {}):
            raise UserError(f"{file}: {key}={value!r}: jft supports {harmless!r} only")
    if raw.get("init_lora_weights") not in HARMLESS_BEGINNINGS:
        raise UserError(
            f"{file}: init_lora_weights={raw['init_lora_weights']!r}: PEFT changes the base first; "
            "save them again with path_initial_model_for_weight_conversion"
        )
    rank, alpha, base = raw.get("r"), raw.get("lora_alpha"), raw.get("base_model_name_or_path")
    if not isinstance(rank, int) or not 0 < rank <= LARGEST_RANK:
        raise UserError(f"{file}: r={rank!r}: must be a whole number from 1 to {LARGEST_RANK}")
    if not isinstance(alpha, int | float) or not 0 < alpha < LARGEST_ALPHA:
        raise UserError(f"{file}: lora_alpha={alpha!r}: must be a number above 0")
    if not isinstance(base, str) or not base:
        raise UserError(f"{file}: base_model_name_or_path={base!r}: must name the base")
    if raw.get("use_rslora"):  # Kalajdzievski 2023, arXiv 2312.03732: over the root of the rank
        alpha *= math.sqrt(rank)
    names = _source(folder).shapes
    targets = tuple(name for name, one in _first_layer("down").items() if one in names)
    if not targets:
        raise UserError(
            f"{folder / WEIGHTS}: holds no adapter of a projection in the first layer, such as "
            f"{_first_layer('down')['query']}"
        )
    return base, Adapters(rank, float(alpha), targets, bool(raw.get("use_dora")), dtype)


def read(path: str, config: DecoderConfig) -> Params:
    """The adapters in a folder, for a decoder whose config describes them, as NumPy arrays.

    Raises:
      UserError: tensors are missing, unknown, or of other shapes.
    """
    folder = locate(path, (ADAPTERS, WEIGHTS))
    return tensor_names.read(tensor_names.find(config, _source(folder), "hf", adapters=True))


def write(config: DecoderConfig, params: Params, folder: Path, base: str) -> None:
    """Write adapters as PEFT's `PeftModel.from_pretrained` reads them.

    Args:
      config: the decoder's shape, with adapters.
      params: the adapters alone.
      folder: where to.
      base: what they belong to: a path or a hub id.
    """
    adapters = config.adapters
    assert adapters
    modules = _first_layer("down")
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "lora_dropout": 0.0,
        "target_modules": [modules[name].split(".")[-3] for name in adapters.targets],
        "use_dora": adapters.dora,
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    arrays = dict(tensor_names.dump(config, params, np.dtype("float32"), "hf"))
    safetensors_io.write_tensors(arrays, folder / WEIGHTS)
    text = json.dumps(description, indent=2) + "\n"
    (folder / ADAPTERS).write_text(text, encoding="utf-8")


def _source(folder: Path) -> tensor_names.Source:
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder / WEIGHTS}: missing; jft reads adapters from safetensors only")
    return safetensors_io.source(str(folder), [folder / WEIGHTS], lambda name: False)


def _first_layer(name: str) -> dict[str, str]:
    """By projection the stored name of this array of its adapter in the first layer."""
    return {
        key.split("/")[-3]: stored.hf.format(0)
        for key, stored in TABLE.items()
        if key.endswith(f"/adapter/{name}")
    }
