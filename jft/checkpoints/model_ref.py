"""Where a model comes from: files, or a step of a run; looked up without loading it."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

from jft import config as config_lib
from jft.checkpoints import files, peft, safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.checkpoints.orbax_steps import Checkpoints
from jft.data import trained_on
from jft.errors import UserError
from jft.model import decoder
from jft.runtime import workdir as workdir_lib

# What the fields of a decoder's shape may hold, by their annotation.
NUMBERS = {"int": int, "float": int | float, "bool": bool}


class Origin(NamedTuple):
    """Where a model comes from.

    Attributes:
      path: as results name it: absolute where it lies on this machine.
      run: the config it was fine-tuned with here; None for any other model.
      step: of that run; 0 for any other model.
      finished: whether that run reached its last step, or this one was asked for by name.
    """

    path: str
    run: config_lib.Config | None
    step: int
    finished: bool


class SavedModel(NamedTuple):
    """What stands beside a run's checkpoints.

    Attributes:
      decoder: the model's shape.
      steps: how long the run is to be.
      base, base_sha256: the model that it began from: its path, absolute, and its fingerprint.
      base_step: where that is a run, which of its steps; None otherwise.
    """

    decoder: decoder.DecoderConfig
    steps: int
    base: str
    base_sha256: str
    base_step: int | None


def find(path: str) -> Origin:
    """Look a model up without loading it.

    Raises:
      UserError: `model.path` is empty, or a workdir without a checkpoint.
    """
    if not path:
        raise UserError(
            "model.path is empty; give a Hugging Face folder or hub id, a .gguf file or a workdir"
        )
    folder, wanted = of_run(path)
    if not workdir_lib.is_workdir(folder):
        _check_files(path)
        return Origin(absolute(path), None, 0, True)
    run = workdir_lib.read_config(folder / workdir_lib.CONFIG)
    steps = Checkpoints(folder, read_only=True).steps()
    if not steps:
        raise UserError(f"model.path={path}: no checkpoint there; jft.train makes them")
    step = steps[-1] if wanted is None else wanted
    if step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(f"model.path={path}: no such step; there is {there}")
    finished = wanted is not None or step >= read_model(folder).steps
    return Origin(absolute(str(folder)), run, step, finished)


def _check_files(path: str) -> None:
    """Refuse early what is no model, and adapters whose bases lead back to them."""
    seen = []
    while peft.is_one(path):
        seen.append(absolute(path))
        path, _ = peft.describe(path)
        if absolute(path) in seen:
            raise UserError(f"{seen[-1]} holds adapters to {path}, which are adapters to it")
    if not seen:
        peft.check_none(path)
        safetensors_io.check(path)


def of_run(path: str) -> tuple[Path, int | None]:
    """The folder of `model.path`, and the step where one of a run is named: RUN/checkpoints/40."""
    folder = Path(path).expanduser()
    step = int(folder.name) if folder.name.isdecimal() else None
    steps = folder if step is None else folder.parent
    if steps.name == "checkpoints" and workdir_lib.is_workdir(steps.parent):
        return steps.parent, step
    return folder, None


def absolute(path: str) -> str:
    """The path in full if it is on this machine; hub ids and built-in models as they are."""
    folder = Path(path).expanduser()
    return str(folder.resolve()) if folder.exists() else path


def fingerprint(origin: Origin) -> str:
    """A SHA-256 that changes when the model's weights or its tokenizer do.

    Of a run it is that of the manifest and the tokenizer; of files that of samples of them; of
    adapters their base belongs to it.
    """
    if origin.run is None:
        own = files.fingerprint(origin.path)
        if not has_adapters(origin):
            return own
        return workdir_lib.sha256([own, fingerprint(base_of(origin))])
    folder = Path(origin.path)
    manifest = Checkpoints(folder, read_only=True).manifest(origin.step)
    parts = [manifest, files.fingerprint(str(folder / "tokenizer"))]
    if has_adapters(origin):
        # How they count is in no array.
        parts += [read_model(folder).base_sha256, asdict(origin.run.lora)]
    return workdir_lib.sha256(parts)


def seen(origin: Origin) -> frozenset[str] | None:
    """The rows that it was trained on here, by hash; None for any other model."""
    return trained_on.read_hashes(Path(origin.path)) if origin.run else None


def tokenizer_path(path: str) -> str:
    """What `tokenizer.load` takes for this model."""
    folder = of_run(path)[0]
    if (folder / "tokenizer").is_dir():
        return str(folder / "tokenizer")
    if peft.is_one(path) and not tokenizer_lib.is_in(folder):
        return tokenizer_path(peft.describe(path)[0])
    return path


def has_adapters(origin: Origin) -> bool:
    """Whether the model is a base and adapters to it."""
    return bool(origin.run.lora.rank) if origin.run else peft.is_one(origin.path)


def base_path(path: str) -> str | None:
    """What adapters belong to, as `model.path`; None for any other model. Nothing is checked."""
    folder, _ = of_run(path)
    if workdir_lib.is_workdir(folder):
        if not workdir_lib.read_config(folder / workdir_lib.CONFIG).lora.rank:
            return None
        saved = read_model(folder)
        return _at_step(saved.base, saved.base_step)
    return peft.describe(path)[0] if peft.is_one(path) else None


def base_of(origin: Origin) -> Origin:
    """The model that adapters belong to.

    Raises:
      UserError: it is not there, or is not the one that they were trained on.
    """
    path = base_path(origin.path)
    assert path
    wanted = read_model(Path(origin.path)).base_sha256 if origin.run else None
    try:
        base = find(path)
        sha256 = fingerprint(base)
    except UserError as error:
        raise UserError(f"{origin.path} holds adapters, whose base is missing: {error}") from None
    if wanted not in (None, sha256):
        raise UserError(
            f"{origin.path} holds adapters to {path}, which is another model by now; restore it"
        )
    return base


def name(origin: Origin) -> str:
    """As `model.path`, this model and no other: of a run its step, too."""
    return _at_step(origin.path, origin.step if origin.run else None)


def _at_step(path: str, step: int | None) -> str:
    return path if step is None else f"{path}/checkpoints/{step}"


def write_model(workdir: Path, saved: SavedModel) -> None:
    """Put beside the checkpoints what is needed to read them; adapters are the config's to say."""
    shape = asdict(saved.decoder)
    del shape["adapters"]
    record = saved._asdict() | {"decoder": shape}
    workdir_lib.write_json(workdir / "model.json", record)


def read_model(workdir: Path) -> SavedModel:
    """What `write_model` wrote."""
    file = workdir / "model.json"
    raw = workdir_lib.read_json(file)
    try:
        shape = decoder.DecoderConfig(**raw["decoder"])
        shape = replace(shape, rope_factors=tuple(map(float, shape.rope_factors)))
        for field in fields(shape):
            value, wanted = getattr(shape, field.name), NUMBERS.get(str(field.type), object)
            empty = isinstance(value, int) and not isinstance(value, bool) and value < 1
            if empty or not isinstance(value, wanted):
                raise TypeError(f"decoder.{field.name}={value!r}")
        if shape.adapters is not None:
            raise TypeError(f"decoder.adapters={shape.adapters!r}")
        step = None if raw["base_step"] is None else int(raw["base_step"])
        base = str(raw["base"]), str(raw["base_sha256"]), step
        return SavedModel(shape, int(raw["steps"]), *base)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(f"{file}: damaged: {error!r}; restore it, or train again") from None
