"""A model to start from or to score: from files, or from the checkpoints of a workdir."""

from __future__ import annotations

import functools
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft import config as config_lib
from jft import model_files
from jft import workdir as workdir_lib
from jft.data import trained_on
from jft.errors import UserError
from jft.model import decoder, hub
from jft.training import mesh as mesh_lib
from jft.training.checkpoint import Checkpoints
from jft.training.step import TrainState

FLOAT32 = jnp.dtype("float32")
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
    """

    decoder: decoder.DecoderConfig
    steps: int
    base: str
    base_sha256: str


def origin(path: str) -> Origin:
    """Look a model up without loading it.

    Raises:
      UserError: `model.path` is empty, or a workdir without a checkpoint.
    """
    if not path:
        raise UserError(
            "model.path is empty; give a Hugging Face folder or hub id, a .gguf file or a workdir"
        )
    folder, wanted = _of_run(path)
    if not workdir_lib.is_workdir(folder):
        hub.check(path)
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


def _of_run(path: str) -> tuple[Path, int | None]:
    """The folder of `model.path`, and the step where one of a run is named: RUN/checkpoints/40."""
    folder = Path(path).expanduser()
    if folder.parent.name == "checkpoints" and folder.name.isdecimal():
        return folder.parent.parent, int(folder.name)
    return folder, None


def absolute(path: str) -> str:
    """The path in full if it is on this machine; hub ids and built-in models as they are."""
    folder = Path(path).expanduser()
    return str(folder.resolve()) if folder.exists() else path


def fingerprint(origin: Origin) -> str:
    """A SHA-256 that changes when the model's weights or its tokenizer do.

    Of a run it is that of the manifest and the tokenizer; of files that of samples of them.
    """
    if origin.run is None:
        return model_files.fingerprint(origin.path)
    folder = Path(origin.path)
    manifest = Checkpoints(folder, read_only=True).manifest(origin.step)
    tokenizer = model_files.fingerprint(str(folder / "tokenizer"))
    return workdir_lib.sha256([manifest, tokenizer])


def seen(origin: Origin) -> frozenset[str] | None:
    """The rows that it was trained on here, by hash; None for any other model."""
    return trained_on.read(Path(origin.path)) if origin.run else None


def tokenizer_path(path: str) -> str:
    """What `tokenizer.load` takes for this model."""
    folder = _of_run(path)[0] / "tokenizer"
    return str(folder) if folder.is_dir() else path


def load(
    origin: Origin, mesh: Mesh, dtype: jnp.dtype = FLOAT32
) -> tuple[decoder.DecoderConfig, decoder.Params]:
    """A model's shape and its parameters, laid out over the mesh.

    Each process reads what its devices hold, a layer at a time: there may be no room for more.
    """
    if origin.run is None:
        config, unread = hub.find(origin.path)
        layout = mesh_lib.parameters(mesh, config)
        place = functools.partial(mesh_lib.put_by_layer, dtype=dtype)
        return config, jax.tree.map(place, decoder.letters(config), unread, layout)
    folder = Path(origin.path)
    config = read_model(folder).decoder
    shaped = jax.tree.map(
        lambda shape, sharding: shape.update(sharding=sharding),
        decoder.shapes(config),
        mesh_lib.parameters(mesh, config),
    )
    like = TrainState(step=None, params=shaped, opt_state=None)
    params = Checkpoints(folder, read_only=True).restore(like, origin.step).params
    return config, jax.tree.map(functools.partial(_cast, dtype=dtype), params)


def _cast(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """In another type; what it was before is given up."""
    if x.dtype == dtype:
        return x
    cast = jax.block_until_ready(x.astype(dtype))
    x.delete()
    return cast


def write_model(workdir: Path, saved: SavedModel) -> None:
    """Put beside the checkpoints what is needed to read them."""
    record = saved._asdict() | {"decoder": asdict(saved.decoder)}
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
            if not isinstance(value, wanted):
                raise TypeError(f"decoder.{field.name}={value!r}")
        return SavedModel(shape, int(raw["steps"]), str(raw["base"]), str(raw["base_sha256"]))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(f"{file}: damaged: {error!r}; restore it, or train again") from None
