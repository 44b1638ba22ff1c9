"""Locate the files of a model, on this machine or on the hub, and fingerprint them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from jft.errors import UserError, expand, machine_trouble, naming
from jft.runtime import workdir as workdir_lib

ADAPTERS = "adapter_config.json"
RANDOM_MODEL = "random:llama-tiny"
FILE_SUFFIXES = (".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt")
# The files that decide a model's numbers. A fingerprint reads `BLOCKS` blocks of `BLOCK` bytes,
# evenly spaced, of each file, so that its time does not grow with the weights.
FINGERPRINTED = ("config.json", ADAPTERS, "*.safetensors", "tokenizer*.json", "vocab.*", "*.model")
BLOCK, BLOCKS = 1 << 16, 256
# How the GGUF files of a model in parts are named: `name-00001-of-00003.gguf`.
PART = re.compile(r"-(\d+)-of-(\d+)\.gguf$")
MOST_PARTS = 1000
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def locate(path: str, patterns: Sequence[str]) -> Path:
    """Find the local file or folder that `model.path` names, downloading it from the hub if needed.

    Args:
      path: a file, a folder, or a hub id such as `HuggingFaceTB/SmolLM2-135M`.
      patterns: the names of the files to download from the top folder of the repository.

    Raises:
      UserError: there is no such file or folder, or the download fails.
    """
    if not path:
        raise UserError(
            "model.path is empty: give a folder, a .gguf file, a hub id or " + RANDOM_MODEL
        )
    local = expand(path)
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


def gguf_parts(path: Path) -> list[Path]:
    """List the files of a model in parts, named as llama-gguf-split names them, by any of them."""
    if not (found := PART.search(path.name)) or not int(found[2]):
        return [path]
    width, count = len(found[1]), int(found[2])
    names = (f"-{i + 1:0{width}}-of-{found[2]}.gguf" for i in range(min(count, MOST_PARTS)))
    parts = [path.with_name(path.name[: found.start()] + name) for name in names]
    if missing := [part.name for part in parts if not part.exists()]:
        raise UserError(f"{path}: one part of {count}, of which {missing[0]} is missing beside it")
    return parts


def fingerprint(path: str) -> str:
    """Hash a model's files with SHA-256: all bytes of small files, samples of large ones.

    Args:
      path: a path for `locate`, or `RANDOM_MODEL`.

    Returns:
      The hexadecimal digest; for `RANDOM_MODEL` its name.
    """
    if path == RANDOM_MODEL:
        return path
    found = locate(path, FINGERPRINTED)
    files = (
        gguf_parts(found)
        if found.is_file()
        else sorted(f for p in FINGERPRINTED for f in found.glob(p))
    )
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        distance = max(BLOCK, size // BLOCKS)
        with naming(file), file.open("rb") as content:
            for start in range(0, size, distance):
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
        return f"{path}: {machine_trouble(error) or error.strerror}"
    if isinstance(error, TypeError):
        return f"{path}: holds a JSON {error}; it must hold an object"
    return f"{path}: not valid JSON ({error}); copy or download it again"


def _download(repo: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

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
    except (HFValidationError, RevisionNotFoundError) as error:
        raise UserError(
            f"model.path={repo}: no such folder here, and no hub id "
            f"({str(error).strip().splitlines()[0]}); check the name"
        ) from None
    except OSError as error:
        raise UserError(
            f"model.path={repo}: no such folder here, and the hub could not be reached "
            f"({str(error).splitlines()[0]}); check the name, the network and whether "
            f"HF_HUB_OFFLINE is set, {elsewhere}"
        ) from None
    return Path(folder)
