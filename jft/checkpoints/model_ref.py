"""The model that `model.path` names: resolved once, without loading it or touching devices.

A path means files (a Hugging Face folder, a hub id, a GGUF file), a run (a workdir of jft.train, or
one of its checkpoints), or a folder of PEFT's adapters. `resolve` finds out which and reads what
describes it; everything else that a program wants to know of a model hangs on the `ModelRef`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft import config as config_lib
from jft.checkpoints import files, manifest, model_record, peft, safetensors_io, weights
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.checkpoints.families import read as families
from jft.checkpoints.families.family import Family
from jft.checkpoints.model_record import ModelRecord
from jft.checkpoints.tokenizer import Tokenizer
from jft.checkpoints.weights import FLOAT32, Model
from jft.data import trained_on
from jft.errors import UserError, expand
from jft.model import lora
from jft.model import mesh as mesh_lib
from jft.model.architecture import Adapters, DecoderConfig
from jft.runtime import records
from jft.runtime import workdir as workdir_lib


@dataclass(frozen=True)
class ModelRef:
    """A model that was found, and is not loaded.

    Attributes:
      path: as results name it: absolute where it lies on this machine.
      run: the config that it was fine-tuned with here; None for any other model.
      record: of that run; None for any other model.
      step: of that run; 0 for any other model.
      finished: whether the run reached its last step, or this step was asked for by name.
      peft: the path of the base, and the adapters, of a folder in PEFT's format; None otherwise.
    """

    path: str
    run: config_lib.Config | None = None
    record: ModelRecord | None = None
    step: int = 0
    finished: bool = True
    peft: tuple[str, Adapters] | None = None

    @property
    def folder(self) -> Path:
        """The workdir of the run, or the files' folder."""
        return Path(self.path)

    @property
    def step_path(self) -> str:
        """The path of this model and no other, as `model.path`: for a run with its step."""
        return _at_step(self.path, self.step if self.run else None)

    @property
    def has_adapters(self) -> bool:
        """True for a base with adapters to it."""
        return bool(self.run.lora.rank) if self.run else self.peft is not None

    @property
    def base_path(self) -> str | None:
        """The model that adapters belong to, as `model.path`; None where there are none."""
        if not self.has_adapters:
            return None
        if self.record:
            return _at_step(self.record.base, self.record.base_step)
        return self.peft[0] if self.peft else None

    @property
    def base(self) -> ModelRef:
        """The model that adapters belong to, found and checked anew at every call.

        Raises:
          UserError: it is not there, or is not the one that they were trained on.
        """
        path = self.base_path
        assert path
        try:
            base = resolve(path)
            base.check_files()
            sha256 = base.fingerprint()
        except UserError as error:
            raise UserError(f"{self.path} holds adapters, whose base is missing: {error}") from None
        if self._base_sha256 not in ("", sha256):
            raise UserError(
                f"{self.path} holds adapters to {path}, which is another model by now; restore it"
            )
        return base

    @property
    def _base_sha256(self) -> str:
        """The fingerprint of the base that adapters were trained on; empty where none was left."""
        if self.record:
            return self.record.base_sha256
        if (self.folder / records.ADAPTER_BASE.name).exists():
            return records.read(self.folder, records.ADAPTER_BASE)["base_sha256"]
        return ""

    def fingerprint(self) -> str:
        """Make a SHA-256 that changes when the model's weights or its tokenizer do.

        For a run it is made of the manifest and the tokenizer, for files of samples of them; that
        of adapters includes their base. It is computed anew at every call.
        """
        if self.run is None:
            own = files.fingerprint(self.path)
            return workdir_lib.sha256([own, self.base.fingerprint()]) if self.has_adapters else own
        assert self.record
        arrays = manifest.read(self.folder, self.step)
        parts = [arrays, files.fingerprint(str(self.folder / "tokenizer"))]
        if self.has_adapters:
            # How much adapters count is in no array.
            parts += [self.record.base_sha256, asdict(self.run.lora)]
        return workdir_lib.sha256(parts)

    @functools.cached_property
    def trained_on(self) -> frozenset[str] | None:
        """Hashes of the rows that it was trained on here; None for any other model."""
        return trained_on.read_hashes(self.folder) if self.run else None

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """The content of its config.json, adapters aside; weights are not needed for it.

        Raises:
          UserError: nothing describes it.
        """
        if self.record:
            return self.record.description
        return self.base.description if self.peft else safetensors_io.describe(self.path)

    @property
    def decoder(self) -> DecoderConfig:
        """The model's shape, adapters aside."""
        return families.decoder_config(self.description, self._described_in)

    @property
    def family(self) -> Family:
        """The model's family."""
        return families.family_of(self.description, self._described_in)

    @property
    def _described_in(self) -> Path:
        """The file of the description, for messages."""
        name = "model.json" if self.record else safetensors_io.CONFIG
        return self.folder / name if self.folder.is_dir() else self.folder

    @property
    def tokenizer_path(self) -> str:
        """The place of its tokenizer: in a run's workdir, beside the weights, or with the base."""
        if (self.folder / "tokenizer").is_dir():
            return str(self.folder / "tokenizer")
        if self.peft and not tokenizer_lib.is_tokenizer_folder(self.folder):
            return resolve(self.peft[0]).tokenizer_path
        return self.path

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer.

        Raises:
          UserError: there is none, or it is damaged.
        """
        return tokenizer_lib.load(self.tokenizer_path)

    def load(self, mesh: Mesh, dtype: jnp.dtype = FLOAT32) -> Model:
        """Load the model's shape and its parameters, adapters merged, laid out over the mesh.

        Each process reads what its devices hold, a layer at a time: there may be no room for more.

        Raises:
          UserError: it is damaged, or adapters to another base than what is there now.
        """
        config, arrays = self._arrays(mesh, dtype)
        return config, weights.in_tree(config, arrays)

    def load_frozen(self, mesh: Mesh, adapters: Adapters) -> Model:
        """Load the model as the frozen base of adapters: its shape with them, and parameters."""
        held = FLOAT32 if adapters.base == "int8" else jnp.dtype(adapters.dtype)
        return weights.frozen(*self._arrays(mesh, held), mesh, adapters)

    def load_adapted(self, mesh: Mesh, dtype: jnp.dtype = FLOAT32) -> Model:
        """Load a model with adapters as it was trained: base and adapters apart.

        Where training left it to `model.dtype`, the frozen parameters are in `dtype`.
        """
        adapters = self._adapters(dtype)
        config, frozen = self.base.load_frozen(mesh, adapters)
        like, _ = lora.split(weights.sharded_shapes(config, mesh))
        if self.run:
            trained = weights.restore(self.folder, self.step, like)
        else:
            layout = jax.tree.map(lambda x: x.sharding, like)
            adapted = peft.read_adapters(self.path, config, self.family)
            trained = jax.tree.map(mesh_lib.put, adapted, layout)
        return config, lora.join(trained, frozen)

    def _adapters(self, dtype: jnp.dtype) -> Adapters:
        found = weights.adapters_of(self.run.lora, dtype) if self.run else None
        found = replace(self.peft[1], base=str(dtype)) if self.peft else found
        assert found
        return found

    def _arrays(self, mesh: Mesh, dtype: jnp.dtype) -> tuple[DecoderConfig, Iterator[jax.Array]]:
        """The shape without adapters, and its parameters in the order of `decoder.dims`."""
        if self.has_adapters:
            return weights.merged(self.load_adapted(mesh, dtype), dtype)
        if self.record:
            shape = self.decoder
            return shape, weights.from_checkpoint(self.folder, self.step, shape, mesh, dtype)
        return weights.from_files(self.path, mesh, dtype)

    def check(self, mesh: Mesh) -> None:
        """Check that the model can be loaded, as far as it lies on this machine, over a mesh.

        Raises:
          UserError: weights that are not there, or sizes that the mesh does not divide.
        """
        if self.has_adapters:
            if self.peft:
                adapted = replace(self.decoder, adapters=self.peft[1])
                peft.read_adapters(self.path, adapted, self.family)
            return self.base.check(mesh)
        mesh_lib.check_model(mesh, self.decoder)
        self.check_files()

    def check_files(self) -> None:
        """Check that files of weights are whole by their headers, if they are on this machine.

        Raises:
          UserError: some are missing or damaged.
        """
        if self.run is None and self.peft is None and self.folder.exists():
            safetensors_io.open_weights(self.path)


def resolve(path: str) -> ModelRef:
    """Find the model that `model.path` names.

    Raises:
      UserError: `model.path` is empty, names a workdir without a checkpoint, or what is no model.
    """
    if not path:
        raise UserError(
            "model.path is empty; give a Hugging Face folder or hub id, a .gguf file or a workdir"
        )
    folder, wanted = _run_folder(path)
    if not workdir_lib.is_workdir(folder):
        if (folder / "checkpoints").is_dir() and (folder / workdir_lib.CONFIG).exists():
            raise UserError(
                f"{folder / workdir_lib.CONFIG}: damaged, of a workdir of jft.train; restore it"
            )
        return ModelRef(_absolute(path), peft=_check_files(path))
    run = workdir_lib.read_config(folder / workdir_lib.CONFIG)
    steps = manifest.saved_steps(folder)
    if not steps:
        raise UserError(f"model.path={path}: no checkpoint there; jft.train makes them")
    step = steps[-1] if wanted is None else wanted
    if step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(f"model.path={path}: no such step; there is {there}")
    record = model_record.read_record(folder)
    finished = wanted is not None or step >= record.steps
    return ModelRef(_absolute(str(folder)), run, record, step, finished)


def _check_files(path: str) -> tuple[str, Adapters] | None:
    """Refuse early what is no model; describe what is a folder of adapters.

    Raises:
      UserError: no model, or adapters whose bases lead back to themselves.
    """
    described = first = None
    seen = []
    while peft.is_adapter_folder(path):
        seen.append(_absolute(path))
        described = peft.describe(path)
        first, path = first or described, described[0]
        if _absolute(path) in seen:
            raise UserError(f"{seen[-1]} holds adapters to {path}, which are adapters to it")
    if not seen:
        peft.check_no_adapters(path)
        if expand(path).is_dir():  # before any slow work
            safetensors_io.describe(path)
    return first


def _run_folder(path: str) -> tuple[Path, int | None]:
    """Split `RUN/checkpoints/40` into the workdir and the step; other paths have no step."""
    folder = expand(path)
    step = int(folder.name) if folder.name.isdecimal() else None
    steps = folder if step is None else folder.parent
    if steps.name == "checkpoints" and workdir_lib.is_workdir(steps.parent):
        return steps.parent, step
    return folder, None


def _absolute(path: str) -> str:
    """Make a path on this machine absolute; hub ids and built-in models stay as they are."""
    folder = expand(path)
    return str(folder.resolve()) if folder.exists() else path


def _at_step(path: str, step: int | None) -> str:
    return path if step is None else f"{path}/checkpoints/{step}"
