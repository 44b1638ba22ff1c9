"""Adapters in the format of the PEFT library, in a folder that names their base model."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from jft.checkpoints import safetensors_io, tensor_names
from jft.checkpoints.families import read as families
from jft.checkpoints.families.family import Family, Stored
from jft.checkpoints.families.tensors import LLAMA_TENSORS
from jft.checkpoints.files import ADAPTERS, locate, read_model_json
from jft.errors import UserError, expand
from jft.model import decoder, lora
from jft.model.architecture import Adapters, DecoderConfig
from jft.model.decoder import Params
from jft.runtime.workdir import write_text

WEIGHTS = "adapter_model.safetensors"
# Values of `init_lora_weights` with which PEFT leaves the base as it is. All others change the
# base's weights before training, which a folder of adapters does not show.
INIT_THAT_KEEPS_BASE = (None, True, False, "gaussian", "orthogonal", "eva")
# A larger rank or alpha means a damaged file: no projection has more dimensions, and float32 has no
# digits left for the base where the change is that large.
LARGEST_RANK, LARGEST_ALPHA = 1 << 16, 1e9
# The keys of adapter_config.json that `describe` reads, and those that do not change what the
# tensors of the weights file compute (PEFT 0.7 to 0.21). Any other key must be `UNSET`, since PEFT
# adds a key for every new variant of LoRA.
HANDLED = {
    "base_model_name_or_path",
    "init_lora_weights",
    "lora_alpha",
    "peft_type",
    "r",
    "use_dora",
    "use_rslora",
}
HARMLESS = {
    "auto_mapping",  # classes of Transformers
    "ensure_weight_tying",  # of saved modules, which are refused themselves
    "eva_config",  # initialization
    "exclude_modules",  # compared with the weights, as target_modules is
    "inference_mode",
    "layers_pattern",  # goes with layers_to_transform, which is refused
    "lora_dropout",  # training only
    "lora_ga_config",  # initialization
    "megatron_config",  # how devices share the work
    "megatron_core",
    "peft_version",
    "qalora_group_size",  # goes with use_qalora, which is refused
    "revision",  # of the base, which jft finds by its name alone
    "runtime_config",
    "target_modules",  # as exclude_modules
    "task_type",
}
# Besides False. The number 0 is not among them: it may be the index of a layer.
UNSET: tuple[object, ...] = (None, "none", "", [], {})


def is_adapter_folder(path: str) -> bool:
    """Check whether `model.path` names a folder on this machine with adapters and no model."""
    folder = expand(path)
    return (folder / ADAPTERS).is_file() and not _holds_model(folder)


def check_no_adapters(path: str) -> None:
    """Refuse a model's folder that holds adapters, too, since either could be meant.

    Raises:
      UserError: it holds adapters.
    """
    folder = expand(path)
    if (folder / ADAPTERS).is_file():
        raise UserError(
            f"model.path={path}: holds a model and adapters; move one of them, "
            f"{safetensors_io.WEIGHTS} or {WEIGHTS} with {ADAPTERS}, to a folder of its own"
        )


def _holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (safetensors_io.WEIGHTS, safetensors_io.INDEX))


def describe(path: str, dtype: str = "float32") -> tuple[str, Adapters]:
    """Read the description of adapters.

    Args:
      path: the folder.
      dtype: the type that the base is to be held in.

    Returns:
      The base, as `model.path`, and the adapters.

    Raises:
      UserError: the file is damaged, or asks for a computation that jft does not know.
    """
    folder = locate(path, (ADAPTERS, WEIGHTS))
    file = folder / ADAPTERS
    raw = read_model_json(file)
    if raw.get("peft_type") != "LORA":
        raise UserError(f"{file}: peft_type={raw.get('peft_type')!r}: jft supports LORA only")
    for key, value in raw.items():
        is_set = value is not False and value not in UNSET
        if is_set and key not in HANDLED | HARMLESS:
            raise UserError(f"{file}: {key}={value!r}: jft supports adapters without it only")
    if raw.get("init_lora_weights") not in INIT_THAT_KEEPS_BASE:
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
    # Rank-stabilized LoRA divides alpha by the root of the rank (Kalajdzievski 2023, arXiv
    # 2312.03732), `Adapters` by the rank.
    if raw.get("use_rslora"):
        alpha *= math.sqrt(rank)
    names = _source(folder).shapes
    # The family is that of the base, which may not be there: the names of all are tried.
    found = {
        name: one
        for tensors in families.all_tensors()
        for name, one in _first_layer(tensors, "down").items()
        if one in names
    }
    targets = tuple(name for name in _first_layer(LLAMA_TENSORS, "down") if name in found)
    if not targets:
        raise UserError(
            f"{folder / WEIGHTS}: holds no adapter of a projection in the first layer, such as "
            f"{_first_layer(LLAMA_TENSORS, 'down')['query']}"
        )
    _check_modules(file, raw, {name.split(".")[-3] for name in found.values()})
    return base, Adapters(rank, float(alpha), targets, bool(raw.get("use_dora")), dtype)


def _check_modules(file: Path, raw: dict, modules: Collection[str]) -> None:
    """Check that PEFT would put the adapters that the weights hold where they are.

    Raises:
      UserError: it would leave out one of them. A pattern is not looked at.
    """
    for key, wanted in (("target_modules", True), ("exclude_modules", False)):
        named = raw.get(key)
        if isinstance(named, list) and named:
            ends = {str(each).rpartition(".")[2] for each in named}
            if wrong := sorted(each for each in modules if (each in ends) != wanted):
                raise UserError(
                    f"{file}: {key}={','.join(map(str, named))} leaves out {', '.join(wrong)}, of "
                    f"which {WEIGHTS} holds adapters; correct one of the two"
                )


def read_adapters(path: str, config: DecoderConfig, family: Family) -> Params:
    """Read the adapters in a folder as NumPy arrays.

    Args:
      path: the folder.
      config: the decoder's shape, with these adapters.
      family: of the model that they change.

    Raises:
      UserError: tensors are missing, unknown, or of other shapes.
    """
    folder = locate(path, (ADAPTERS, WEIGHTS))
    tensors = families.tensors(family)
    return tensor_names.read_all(
        tensor_names.lazy_params(config, _source(folder), tensors, "hf", adapters=True)
    )


def write_adapters(
    config: DecoderConfig, family: Family, params: Params, folder: Path, base: str
) -> None:
    """Write adapters as PEFT's `PeftModel.from_pretrained` reads them.

    Args:
      config: the decoder's shape, with adapters.
      family: of the model that they change.
      params: the adapters alone.
      folder: the folder to write to.
      base: path or hub id of the model that they change.
    """
    tensors = families.tensors(family)
    config, params = _fuse(config, tensors, params)
    adapters = config.adapters
    assert adapters
    modules = _first_layer(tensors, "down")
    named = dict.fromkeys(modules[name].split(".")[-3] for name in adapters.targets)
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(named),
        "use_dora": adapters.dora,
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    float32 = np.dtype("float32")
    arrays = dict(tensor_names.dump_tensors(config, params, float32, tensors, "hf"))
    safetensors_io.write_tensors(arrays, folder / WEIGHTS)
    text = json.dumps(description, indent=2) + "\n"
    write_text(folder / ADAPTERS, text)


def _fuse(
    config: DecoderConfig, tensors: dict[str, Stored], params: Params
) -> tuple[DecoderConfig, Params]:
    """Make adapters of fused projections one: of m times the rank, where the largest fuses m.

    The adapter of a matrix that holds queries and keys, say, has the rows of both `down`, and both
    `up` as blocks on its diagonal. All others are filled up with zeros to that rank.

    Raises:
      UserError: magnitudes are trained, and only some of the projections of a matrix have any.
    """
    adapters = config.adapters
    assert adapters
    by_tensor: dict[str, list[str]] = {}
    for name, tensor in _first_layer(tensors, "down").items():
        by_tensor.setdefault(tensor, []).append(name)
    groups = [group for group in by_tensor.values() if {*group} & {*adapters.targets}]
    times, rank = max(map(len, groups)), adapters.rank
    if times == 1:
        return config, params
    targets = tuple(name for group in groups for name in group)
    if adapters.dora and {*targets} != {*adapters.targets}:
        raise UserError(
            f"this family stores {', '.join(targets)} as fewer matrices, and PEFT has magnitudes "
            "of all of a matrix or of none; export the merged model, without --adapters"
        )
    changed = replace(adapters, rank=times * rank, alpha=times * adapters.alpha, targets=targets)
    config = replace(config, adapters=changed)
    shapes, _ = lora.split(decoder.shapes(config))
    fused = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    for part, projections in fused["layers"].items():
        own = {name: each[lora.ADAPTER] for name, each in params["layers"].get(part, {}).items()}
        for name, projection in projections.items():
            adapter, group = projection[lora.ADAPTER], next(x for x in groups if name in x)
            for i, other in enumerate(group):
                block = slice(i * rank, (i + 1) * rank)
                if other in own:
                    adapter["down"][:, block] = own[other]["down"]
                if other == name in own:
                    adapter["up"][..., block] = own[name]["up"]
            if adapters.dora:
                adapter["magnitude"] = own[name]["magnitude"]
    return config, fused


def _source(folder: Path) -> tensor_names.Source:
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder / WEIGHTS}: missing; jft reads adapters from safetensors only")
    return safetensors_io.open_files(str(folder), [folder / WEIGHTS], lambda name: name)


def _first_layer(tensors: dict[str, Stored], name: str) -> dict[str, str]:
    """Return the stored name of an adapter's array in the first layer, by projection."""
    return {
        key.split("/")[-3]: stored.hf.format(0)
        for key, stored in tensors.items()
        if key.endswith(f"/adapter/{name}")
    }
