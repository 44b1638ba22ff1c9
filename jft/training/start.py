"""The beginning of a run: its base with what is trained, or the checkpoint that it resumes from."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from jft import config as config_lib
from jft.checkpoints import model_ref, weights
from jft.checkpoints.orbax_steps import Checkpoints
from jft.checkpoints.session import Session
from jft.model import decoder as decoder_lib
from jft.model import lora
from jft.model import mesh as mesh_lib
from jft.model.decoder import DecoderConfig, Params
from jft.runtime.progress import count, say
from jft.training import step as step_lib
from jft.training.step import TrainState


class Start(NamedTuple):
    """A decoder, the state that is trained, and frozen parameters: none without adapters."""

    decoder: DecoderConfig
    state: TrainState
    frozen: Params


def trained_decoder(session: Session, config: config_lib.Config) -> DecoderConfig:
    """Describe the decoder of a run before it is loaded: that of the base, with adapters if any."""
    adapters = weights.adapters_of(config.lora, session.dtype)
    return replace(session.model.decoder, adapters=adapters)


def begin(
    session: Session, config: config_lib.Config, optimizer: optax.GradientTransformation
) -> Start:
    """Load the base for step 0, with new adapters that change nothing yet if they are asked for."""
    base, mesh = session.model, session.mesh
    adapters = weights.adapters_of(config.lora, session.dtype)
    if adapters is None:
        decoder, params = base.load(mesh)
        layout = step_lib.shardings(decoder, optimizer, mesh)
        return Start(decoder, step_lib.create_state(params, optimizer, layout), {})
    if not base.finished:
        say(
            f"note: {base.path} has not come to its end; these adapters need its step {base.step}, "
            "which it deletes when it goes on"
        )
    if base.has_adapters:
        say(
            f"note: {base.path} holds adapters: they are merged, and new ones are trained beside "
            "the result"
        )
    decoder, frozen = base.load_frozen(mesh, adapters)
    layout = step_lib.shardings(decoder, optimizer, mesh)
    drawn = lora.init(step_lib.shapes(decoder, optimizer).params, config.data.seed)
    params = jax.tree.map(mesh_lib.put, drawn, layout.params)
    if adapters.dora:
        params = jax.jit(lora.init_magnitudes, out_shardings=layout.params)(params, frozen)
    return Start(decoder, step_lib.create_state(params, optimizer, layout), frozen)


def resume(
    session: Session,
    config: config_lib.Config,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    step: int,
) -> Start:
    """Restore a step that is saved.

    Raises:
      UserError: it is damaged, or the base of adapters is not there any more.
    """
    mesh, run = session.mesh, model_ref.resolve(str(checkpoints.workdir))
    adapters = weights.adapters_of(config.lora, session.dtype)
    frozen: Params = {}
    decoder = replace(run.decoder, adapters=adapters)
    if adapters:
        _, frozen = run.base.load_frozen(mesh, adapters)
    layout = step_lib.shardings(decoder, optimizer, mesh)
    shapes = step_lib.shapes(decoder, optimizer)
    like = jax.tree.map(lambda shape, where: shape.update(sharding=where), shapes, layout)
    say(f"Going on from step {step} in {checkpoints.workdir}")
    return Start(decoder, checkpoints.restore(like, step), frozen)


def say_what_is_trained(start: Start, mesh: Mesh) -> None:
    """Print how many parameters are trained, and on which devices."""
    trained = _size(start.state.params)
    whole = _size(decoder_lib.shapes(replace(start.decoder, adapters=None)))
    beside = f" of adapters to a model of {whole}" if start.decoder.adapters else ""
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    devices = f"{count(mesh.size, 'device')} ({mesh.devices.flat[0].device_kind})"
    layout = f": {axes}" if mesh.size > 1 else ""
    say(f"Training {trained} parameters{beside}, on {devices}{layout}")


def _size(params: Params) -> str:
    return f"{sum(x.size for x in jax.tree.leaves(params)):,}"
