"""Pretrained weights: Hugging Face folders in and out, and the choice of format by path."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jft.checkpoints import gguf, hf_config, tensor_names
from jft.checkpoints.files import RANDOM_MODEL, locate, read_model_json
from jft.checkpoints.tensor_names import Index, Pretrained, Source
from jft.errors import UserError, expand, machine_trouble, refuse_pipe
from jft.model import decoder
from jft.model.decoder import DecoderConfig, Params
from jft.runtime.progress import say
from jft.runtime.workdir import write_text

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
# Names of the tensors that `tie_word_embeddings` says are one.
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Largest number of bytes in a file of weights that is written.
SHARD = 5_000_000_000
# Numbers that are read at once: the copy beside the array that they go into stays this small.
READ_AT_ONCE = 1 << 23
FLOATS = ("F64", "F32", "F16", "BF16")
# `RANDOM_MODEL`. Its vocabulary is that of tokenizer.py: 256 bytes and three special tokens.
TINY = DecoderConfig(
    vocab_size=259,
    embed_dim=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    mlp_dim=128,
    max_positions=4096,
)


def load(path: str) -> Pretrained:
    """Read a decoder as `open_weights` does, with all parameters as float32 NumPy arrays."""
    config, params = open_weights(path)
    return Pretrained(config, tensor_names.read_all(params))


def open_weights(path: str) -> Pretrained:
    """Open the decoder that `model.path` names; its parameters are read when they are indexed.

    Args:
      path: a Hugging Face folder or hub id with safetensors, a `.gguf` file, or
        `random:llama-tiny`, which is the same at every call.

    Returns:
      The shape, and the parameters as `LazyTensor`s, or NumPy arrays for the random model.

    Raises:
      UserError: nothing is there, it is damaged, or it is not a Llama-family decoder.
    """
    if path == RANDOM_MODEL:
        return Pretrained(
            TINY, jax.tree.map(np.asarray, decoder.init(TINY, jax.random.key(0, impl="rbg")))
        )
    if path.startswith("random:"):
        raise UserError(f"model.path={path}: the only random model is {RANDOM_MODEL}")
    local = locate(path, (CONFIG, "*.safetensors", INDEX))
    return _open_folder(local) if local.is_dir() else gguf.open_weights(str(local))


def check_config(path: str) -> None:
    """Refuse a folder that does not describe a Llama-family decoder before any slow work.

    Raises:
      UserError: what `load` would raise because of `config.json`.
    """
    folder = expand(path)
    if folder.is_dir():
        hf_config.from_json(read_model_json(folder / CONFIG), folder / CONFIG)


def save(
    config: DecoderConfig,
    params: Params,
    folder: str,
    dtype: str = "float32",
    special_ids: dict | None = None,
) -> None:
    """Write `config.json` and safetensors as Transformers' LlamaForCausalLM loads them.

    A model larger than `SHARD` goes into several files, of which one is in memory at a time.

    Args:
      config: the decoder's shape.
      params: its parameters, of any float type.
      folder: the folder to write; made if missing.
      dtype: `float32`, `bfloat16` or `float16`.
      special_ids: entries such as `eos_token_id`, the token that ends a generation in
        Transformers; None: no token does.

    Raises:
      UserError: Transformers has no rope type for the config's `rope_factors`.
    """
    special = {"dtype": dtype, "bos_token_id": None, "eos_token_id": None} | (special_ids or {})
    description = json.dumps(hf_config.to_json(config) | special, indent=2)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    _save_weights(config, params, target, jax.numpy.dtype(dtype))
    write_text(target / CONFIG, description + "\n")


def _save_weights(config: DecoderConfig, params: Params, folder: Path, dtype: np.dtype) -> None:
    # The shapes decide which tensor goes into which file, before any tensor is read.
    files: list[list[str]] = [[]]
    room, total = SHARD, 0
    for name, shape in tensor_names.expected_shapes(config, "hf").items():
        size = math.prod(shape) * dtype.itemsize
        if size > room and files[-1]:
            files.append([])
            room = SHARD
        files[-1].append(name)
        room, total = room - size, total + size
    names = [WEIGHTS]
    if len(files) > 1:
        names = [f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))]
        weight_map = {x: file for file, each in zip(names, files, strict=True) for x in each}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
    arrays = tensor_names.dump_tensors(config, params, dtype, "hf")
    for file, wanted in zip(names, files, strict=True):
        part = dict(itertools.islice(arrays, len(wanted)))
        assert list(part) == wanted
        write_tensors(part, folder / file)


def write_tensors(arrays: dict[str, np.ndarray], file: Path) -> None:
    """Write a safetensors file.

    Raises:
      UserError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        # Transformers 4 refuses a file that does not say it came from PyTorch's layout.
        save_file(arrays, file, metadata={"format": "pt"})
        file.chmod(0o666 & ~_umask())  # save_file makes files that only their owner can read
    except SafetensorError as error:
        reason = machine_trouble(error) or error
        raise UserError(
            f"{file}: cannot be written ({reason}); run the same command again"
        ) from None


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _open_folder(folder: Path) -> Pretrained:
    config = hf_config.from_json(read_model_json(folder / CONFIG), folder / CONFIG)
    files = _weight_files(folder)
    weights = open_files(str(folder), files, lambda name: name.endswith("rotary_emb.inv_freq"))
    if config.tied_head and HEAD in weights.shapes:
        _check_tied(folder, weights)
        del weights.shapes[HEAD]
    return Pretrained(config, tensor_names.lazy_params(config, weights, "hf"))


def _check_tied(folder: Path, weights: Source) -> None:
    """Check that a head which the config ties to the embedding is a copy of it.

    Raises:
      UserError: it is another one. Transformers 4 drops such a head, 5 keeps it.
    """
    shape = weights.shapes[HEAD]
    same = shape == weights.shapes.get(EMBEDDING)
    rows = max(1, READ_AT_ONCE // max(1, math.prod(shape[1:])))
    for begin in range(0, shape[0], rows) if same else ():
        index = (slice(begin, min(begin + rows, shape[0])), *(slice(0, size) for size in shape[1:]))
        head, embedding = (
            weights.read(name, index, np.dtype(np.float32)) for name in (HEAD, EMBEDDING)
        )
        same = same and np.array_equal(head, embedding)
    if not same:
        raise UserError(
            f"{folder}: {CONFIG} has tie_word_embeddings=true, but the weights hold a {HEAD} that "
            f"differs from {EMBEDDING}; set it to false to use that head, or remove the tensor"
        )


def open_files(label: str, shards: list[Path], skip: Callable[[str], bool]) -> Source:
    """Read the headers of safetensors files.

    Args:
      label: the model's path, for messages.
      shards: the files.
      skip: tells by the name of a tensor whether to leave it out.

    Raises:
      UserError: a file is missing or damaged, or holds a tensor that is not of floats.
    """
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in shards:
        with _open_safetensors(file) as handle:
            for name in sorted(handle.keys()):
                if skip(name):
                    continue
                view = handle.get_slice(name)
                if view.get_dtype() not in FLOATS:
                    raise UserError(
                        f"{file}: the tensor {name} is of type {view.get_dtype()}: jft reads "
                        f"{', '.join(FLOATS)}; use the unquantized model or a GGUF file"
                    )
                if name in files:
                    raise UserError(
                        f"{file}: the tensor {name} is in {files[name].name}, too; remove the file "
                        "that is left over from another save"
                    )
                files[name], shapes[name] = file, tuple(view.get_shape())

    def read(name: str, index: Index, dtype: np.dtype) -> np.ndarray:
        first, *others = index
        sizes = [part.stop - part.start for part in index]
        array = np.empty(sizes, dtype)
        at_once = max(1, READ_AT_ONCE // math.prod(sizes[1:]))
        for begin in range(0, sizes[0], at_once):
            end = min(begin + at_once, sizes[0])
            part = slice(first.start + begin, first.start + end)
            # The file is opened anew for each part, since the pages read of a memory-mapped file
            # count as memory of the process until it is closed.
            with _open_safetensors(files[name]) as handle:
                array[begin:end] = handle.get_slice(name)[(part, *others)]
        return array

    return Source(label, shapes, read)


def _weight_files(folder: Path) -> list[Path]:
    shards = _shards(folder)
    if (folder / WEIGHTS).exists() and WEIGHTS not in shards:
        if shards:  # of another save
            say(f"note: {folder}: {WEIGHTS} is read, as by Transformers, and not {INDEX} beside it")
        return [folder / WEIGHTS]
    if shards:
        return [folder / name for name in shards]
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        raise UserError(
            f"{folder}: holds {pickles[0]} but no {WEIGHTS}; jft does not load pickled weights, "
            "which can run any code. Convert them where PyTorch is installed: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
        )
    raise UserError(f"{folder}: holds neither {WEIGHTS} nor {INDEX}; download the weights again")


def _shards(folder: Path) -> list[str]:
    """List the files that an index names; none where there is no index."""
    if not (folder / INDEX).exists():
        return []
    shards = read_model_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{folder / INDEX}: weight_map is missing; download the file again")
    for name in shards.values():
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise UserError(f"{folder / INDEX}: weight_map names {name!r}, which is no file")
    return sorted(set(shards.values()))


def _open_safetensors(file: Path):
    from safetensors import SafetensorError, safe_open

    refuse_pipe(file)
    try:
        return safe_open(file, framework="np")
    except FileNotFoundError:  # which it raises whatever keeps a file from being opened
        if file.exists():
            with file.open("rb"):
                raise UserError(f"{file}: cannot be opened; run the same command again") from None
        raise UserError(
            f"{file}: missing, though {INDEX} names it; download this shard again"
        ) from None
    except (SafetensorError, OSError) as error:
        if reason := machine_trouble(error):
            raise UserError(f"{file}: cannot be read: {reason}") from None
        raise UserError(
            f"{file}: truncated or not safetensors ({error}); copy or download it again"
        ) from None
