"""What a run begins with, or goes on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jft import config as config_lib
from jft.checkpoints import model_ref, weights
from jft.checkpoints.model_ref import Origin
from jft.checkpoints.orbax_steps import Checkpoints
from jft.model import decoder as decoder_lib
from jft.model import lora
from jft.model import mesh as mesh_lib
from jft.model.decoder import DecoderConfig, Params
from jft.runtime.progress import count, say
from jft.training import step as step_lib
from jft.training.step import TrainState


class Start(NamedTuple):
    """A decoder, what is trained, and the parameters that are frozen: none without adapters."""

    decoder: DecoderConfig
    state: TrainState
    frozen: Params


def after(
    step: int,
    config: config_lib.Config,
    mesh: Mesh,
    dtype: jnp.dtype,
    optimizer: optax.GradientTransformation,
    base: Origin,
    folder: Path,
    checkpoints: Checkpoints,
) -> Start:
    """What a run goes on from after a step, or begins with."""
    if step:
        begun = go_on(config, mesh, dtype, optimizer, folder, checkpoints, step)
    else:
        begun = begin(config, mesh, dtype, optimizer, base)
    say(_summary(begun, mesh))
    return begun


def begin(
    config: config_lib.Config,
    mesh: Mesh,
    dtype: jnp.dtype,
    optimizer: optax.GradientTransformation,
    base: Origin,
) -> Start:
    """Before the first step: the base, with adapters that change nothing yet if asked for."""
    adapters = weights.adapters_of(config.lora, dtype)
    if adapters is None:
        decoder, params = weights.load(base, mesh)
        layout = step_lib.shardings(decoder, optimizer, mesh)
        return Start(decoder, step_lib.create_state(params, optimizer, layout), {})
    if not base.finished:
        say(
            f"note: {base.path} has not come to its end; these adapters need its step {base.step}, "
            "which it deletes when it goes on"
        )
    decoder, frozen = weights.load_frozen(base, mesh, adapters)
    layout = step_lib.shardings(decoder, optimizer, mesh)
    drawn = lora.init(step_lib.shapes(decoder, optimizer).params, config.data.seed)
    params = jax.tree.map(mesh_lib.put, drawn, layout.params)
    if adapters.dora:
        params = jax.jit(lora.init_magnitudes, out_shardings=layout.params)(params, frozen)
    return Start(decoder, step_lib.create_state(params, optimizer, layout), frozen)


def go_on(
    config: config_lib.Config,
    mesh: Mesh,
    dtype: jnp.dtype,
    optimizer: optax.GradientTransformation,
    folder: Path,
    checkpoints: Checkpoints,
    step: int,
) -> Start:
    """After a step that is saved.

    Raises:
      UserError: it is damaged, or the base of adapters is not there any more.
    """
    adapters = weights.adapters_of(config.lora, dtype)
    frozen: Params = {}
    decoder = replace(model_ref.read_model(folder).decoder, adapters=adapters)
    if adapters:
        base = model_ref.base_of(model_ref.find(str(folder)))
        _, frozen = weights.load_frozen(base, mesh, adapters)
    layout = step_lib.shardings(decoder, optimizer, mesh)
    shapes = step_lib.shapes(decoder, optimizer)
    like = jax.tree.map(lambda shape, where: shape.update(sharding=where), shapes, layout)
    say(f"Going on from step {step} in {folder}")
    return Start(decoder, checkpoints.restore(like, step), frozen)


def _summary(begun: Start, mesh: Mesh) -> str:
    """What is trained, and on what."""
    trained = _size(begun.state.params)
    whole = _size(decoder_lib.shapes(replace(begun.decoder, adapters=None)))
    beside = f" of adapters to a model of {whole}" if begun.decoder.adapters else ""
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    devices = f"{count(mesh.size, 'device')} ({mesh.devices.flat[0].device_kind})"
    layout = f": {axes}" if mesh.size > 1 else ""
    return f"Training {trained} parameters{beside}, on {devices}{layout}"


def _size(params: Params) -> str:
    return f"{sum(x.size for x in jax.tree.leaves(params)):,}"
