"""Where a model's files are, on disk or on the hub, and opening them, for both sides of jft."""

from __future__ import annotations

import functools
import hashlib
import re
import typing
from collections.abc import Sequence
from pathlib import Path

from jft.errors import UserError
from jft.runtime import workdir as workdir_lib

if typing.TYPE_CHECKING:
    from gguf import GGUFReader

ADAPTERS = "adapter_config.json"
RANDOM_MODEL = "random:llama-tiny"
FILE_SUFFIXES = (".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt")
# What decides a model's numbers; its fingerprint reads at most so many blocks of each file.
FINGERPRINTED = ("config.json", ADAPTERS, "*.safetensors", "tokenizer*.json", "vocab.*", "*.model")
BLOCK, BLOCKS = 1 << 16, 256
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def locate(path: str, patterns: Sequence[str]) -> Path:
    """The local file or folder that `model.path` means.

    Args:
      path: a file, a folder, or a hub id such as `HuggingFaceTB/SmolLM2-135M`.
      patterns: the names of the files to download from the hub's top folder.

    Raises:
      UserError: nothing is there, or the hub does not give it.
    """
    if not path:
        raise UserError(
            "model.path is empty: give a folder, a .gguf file, a hub id or " + RANDOM_MODEL
        )
    local = Path(path).expanduser()
    if local.exists():
        return local
    if (
        path.startswith(("/", ".", "~"))
        or path.endswith(FILE_SUFFIXES)
        or not HUB_ID.fullmatch(path)
    ):
        raise UserError(
            f"model.path={path}: no such file or folder; give one that exists, "
            f"a hub id such as HuggingFaceTB/SmolLM2-135M, or {RANDOM_MODEL}"
        )
    return _download(path, patterns)


def fingerprint(path: str) -> str:
    """A SHA-256 of what a model is made of: of small files the bytes, of large ones samples.

    Args:
      path: as `locate` takes it.
    """
    if path == RANDOM_MODEL:
        return path
    found = locate(path, FINGERPRINTED)
    files = [found] if found.is_file() else sorted(f for p in FINGERPRINTED for f in found.glob(p))
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        step = max(BLOCK, size // BLOCKS)
        with file.open("rb") as content:
            for start in range(0, size, step):
                content.seek(start)
                digest.update(content.read(BLOCK))
    return digest.hexdigest()


def read_model_json(path: Path) -> dict:
    """Read the object in a JSON file of a Hugging Face folder.

    Raises:
      UserError: the file is missing, or holds no JSON object.
    """
    return workdir_lib.read_json(path, _explain)


def _explain(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        remedy = "model.path must be a folder as Transformers' save_pretrained writes"
        return f"{path}: missing; {remedy}"
    if isinstance(error, OSError):
        return f"{path}: {error.strerror}"
    if isinstance(error, TypeError):
        return f"{path}: holds a JSON {error}; it must hold an object"
    return f"{path}: not valid JSON ({error}); copy or download it again"


# Reading the metadata takes seconds, and the weights and the tokenizer both need it.
@functools.lru_cache(maxsize=1)
def open_gguf(path: Path) -> GGUFReader:
    """A reader of a GGUF file's metadata and tensors, memory-mapped.

    Raises:
      UserError: not a whole GGUF file of a version that the `gguf` package reads.
    """
    from gguf import GGUFReader

    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(f"{path}: not a GGUF file: it does not begin with the bytes GGUF")
    try:
        reader = GGUFReader(path)
    # The reader checks no bounds: a file cut short shows as whatever numpy makes of missing bytes.
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: truncated or damaged ({error}); copy or download it again"
        ) from None
    if gguf_value(reader, "split.count", 1) > 1:
        raise UserError(f"{path}: one part of several; join them with llama-gguf-split --merge")
    return reader


def gguf_value(reader: GGUFReader, key: str, default=None):
    """A metadata value of a GGUF file as a Python object; `default` where the key is absent."""
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _download(repo: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    elsewhere = "or download it elsewhere and pass the folder"
    try:
        # Subfolders hold the same weights in other formats: `original/`, `onnx/`.
        folder = snapshot_download(repo, allow_patterns=list(patterns), ignore_patterns="*/*")
    except GatedRepoError:
        remedy = "accept its terms on its page there and run `hf auth login`"
        raise UserError(f"model.path={repo}: access is gated; {remedy}, {elsewhere}") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"model.path={repo}: no such folder here and no such repository on the hub; check the "
            f"name, for a private one run `hf auth login`, {elsewhere}"
        ) from None
    except OSError as error:
        raise UserError(
            f"model.path={repo}: no such folder here, and the hub could not be reached "
            f"({str(error).splitlines()[0]}); check the name, the network and whether "
            f"HF_HUB_OFFLINE is set, {elsewhere}"
        ) from None
    return Path(folder)
