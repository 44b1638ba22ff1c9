"""Pretrained weights: Hugging Face folders in and out, and the choice of format by path."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jft.checkpoints import gguf, tensor_names
from jft.checkpoints.families import read as families
from jft.checkpoints.files import RANDOM_MODEL, locate, read_model_json
from jft.checkpoints.tensor_names import Index, Pretrained, Source
from jft.errors import UserError, machine_trouble, refuse_pipe
from jft.model import decoder
from jft.model.decoder import Params
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
# The shape of `RANDOM_MODEL`, whose vocabulary is that of tokenizer.py: 256 bytes and three special
# tokens.
TINY = families.SHAPES["llama-tiny"]


def load(path: str) -> Pretrained:
    """Read a decoder as `open_weights` does, with all parameters as float32 NumPy arrays."""
    opened = open_weights(path)
    return opened._replace(params=tensor_names.read_all(opened.params))


def open_weights(path: str) -> Pretrained:
    """Open the decoder that `model.path` names; its parameters are read when they are indexed.

    Args:
      path: a Hugging Face folder or hub id with safetensors, a `.gguf` file, or
        `random:llama-tiny`, which is the same at every call.

    Returns:
      The shape, and the parameters as `LazyTensor`s, or NumPy arrays for the random model.

    Raises:
      UserError: nothing is there, it is damaged, or it is of no family that jft supports.
    """
    if path == RANDOM_MODEL:
        raw = describe(path)
        config = families.decoder_config(raw, TINY)
        params = decoder.init(config, jax.random.key(0, impl="rbg"))
        return Pretrained(config, jax.tree.map(np.asarray, params), raw)
    _refuse_no_files(path)
    local = locate(path, (CONFIG, "*.safetensors", INDEX))
    return _open_folder(local) if local.is_dir() else gguf.open_weights(str(local))


def describe(path: str) -> dict[str, Any]:
    """Return the config.json of the model that `model.path` names; weights are not needed for it.

    Of a model of text and images it is that of the text part.

    Raises:
      UserError: nothing is there, it is damaged, or jft does not support it.
    """
    if path == RANDOM_MODEL:
        return read_model_json(TINY)
    _refuse_no_files(path)
    local = locate(path, (CONFIG,))
    return _read_config(local) if local.is_dir() else gguf.description(str(local))


def dtype_of(path: str) -> str:
    """Return the type of the weights of a folder, if all have the same; float32 otherwise."""
    if path == RANDOM_MODEL:
        return "float32"
    local, found = locate(path, (CONFIG, "*.safetensors", INDEX)), set()
    if not local.is_dir():
        return "float32"
    for file in _weight_files(local):
        with _open_safetensors(file) as handle:
            names = handle.keys()
            found |= {handle.get_slice(name).get_dtype() for name in names}
    return {"BF16": "bfloat16", "F16": "float16"}.get("".join(found), "float32")


def _refuse_no_files(path: str) -> None:
    if path.startswith("shape:"):
        raise UserError(f"model.path={path}: a shape has no weights; jft.plan alone takes it")
    if path.startswith("random:"):
        raise UserError(f"model.path={path}: the only random model is {RANDOM_MODEL}")


def _read_config(folder: Path) -> dict[str, Any]:
    raw = families.text_part(read_model_json(folder / CONFIG), folder / CONFIG)
    families.decoder_config(raw, folder / CONFIG)
    return raw


def save(
    description: dict[str, Any],
    params: Params,
    folder: str,
    dtype: str = "float32",
    special_ids: dict | None = None,
) -> None:
    """Write `config.json` and safetensors as Transformers loads them, in the model's own family.

    A model larger than `SHARD` goes into several files, of which one is in memory at a time.

    Args:
      description: the content of the model's config.json, whose keys are kept.
      params: its parameters, of any float type.
      folder: the folder to write; made if missing.
      dtype: `float32`, `bfloat16` or `float16`.
      special_ids: entries such as `eos_token_id`, the token that ends a generation in
        Transformers; None: no token does.
    """
    target = Path(folder)
    family = families.family_of(description, target / CONFIG)
    special = {"bos_token_id": None, "eos_token_id": None} | (special_ids or {})
    # Code beside the weights, which `auto_map` names, is not written: Transformers has the family.
    dropped = ("torch_dtype", "auto_map")
    kept = {key: value for key, value in description.items() if key not in dropped}
    content = {"architectures": [family.architecture]} | kept | {"dtype": dtype} | special
    target.mkdir(parents=True, exist_ok=True)
    _save_weights(description, params, target, jax.numpy.dtype(dtype))
    write_text(target / CONFIG, json.dumps(content, indent=2) + "\n")


def _save_weights(
    description: dict[str, Any], params: Params, folder: Path, dtype: np.dtype
) -> None:
    config = families.decoder_config(description, folder / CONFIG)
    tensors = families.tensors(families.family_of(description, folder / CONFIG))
    # The shapes decide which tensor goes into which file, before any tensor is read.
    files: list[list[str]] = [[]]
    room, total = SHARD, 0
    for name, shape in tensor_names.expected_shapes(config, tensors, "hf").items():
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
    arrays = tensor_names.dump_tensors(config, params, dtype, tensors, "hf")
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
    raw, of_text = _read_config(folder), families.is_text_part(read_model_json(folder / CONFIG))
    config = families.decoder_config(raw, folder / CONFIG)
    tensors = families.tensors(families.family_of(raw, folder / CONFIG))
    name_of = families.text_tensor if of_text else _parameter
    weights = open_files(str(folder), _weight_files(folder), name_of)
    if config.tied_head and HEAD in weights.shapes:
        _check_tied(folder, weights)
        del weights.shapes[HEAD]
    return Pretrained(config, tensor_names.lazy_params(config, weights, tensors, "hf"), raw)


def _parameter(name: str) -> str | None:
    return None if name.endswith("rotary_emb.inv_freq") else name


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


def open_files(label: str, shards: list[Path], name_of: Callable[[str], str | None]) -> Source:
    """Read the headers of safetensors files.

    Args:
      label: the model's path, for messages.
      shards: the files.
      name_of: returns the parameter that a tensor is, by its name; None: it is none.

    Raises:
      UserError: a file is missing or damaged, or holds a tensor that is not of floats.
    """
    files: dict[str, tuple[Path, str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in shards:
        with _open_safetensors(file) as handle:
            for tensor in sorted(handle.keys()):
                name = name_of(tensor)
                if name is None:
                    continue
                view = handle.get_slice(tensor)
                if view.get_dtype() not in FLOATS:
                    raise UserError(
                        f"{file}: the tensor {name} is of type {view.get_dtype()}: jft reads "
                        f"{', '.join(FLOATS)}; use the unquantized model or a GGUF file"
                    )
                if name in files:
                    raise UserError(
                        f"{file}: the tensor {name} is in {files[name][0].name}, too; remove the "
                        "file that is left over from another save"
                    )
                files[name], shapes[name] = (file, tensor), tuple(view.get_shape())

    def read(name: str, index: Index, dtype: np.dtype) -> np.ndarray:
        first, *others = index
        sizes = [part.stop - part.start for part in index]
        array = np.empty(sizes, dtype)
        at_once = max(1, READ_AT_ONCE // math.prod(sizes[1:]))
        file, tensor = files[name]
        for begin in range(0, sizes[0], at_once):
            end = min(begin + at_once, sizes[0])
            part = slice(first.start + begin, first.start + end)
            # The file is opened anew for each part, since the pages read of a memory-mapped file
            # count as memory of the process until it is closed.
            with _open_safetensors(file) as handle:
                array[begin:end] = handle.get_slice(tensor)[(part, *others)]
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
