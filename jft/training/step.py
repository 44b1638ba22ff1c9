"""The training step: a pure function from state and batch to state and metrics; its optimizer."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jft import config as config_lib
from jft.batch import Batch
from jft.model import decoder, lora
from jft.model import mesh as mesh_lib


class TrainState(NamedTuple):
    """The state that a step changes.

    Attributes:
      step: number of finished optimizer steps, int32.
      params: float32 master weights that are trained: all, or those of adapters.
      opt_state: the optimizer's moments and counters.
    """

    step: Any  # an array, or its shape or sharding where the state describes arrays
    params: decoder.Params
    opt_state: Any


class Metrics(NamedTuple):
    """Scalars of one step: the mean loss per target token, and the norm of its gradient."""

    loss: jax.Array
    grad_norm: jax.Array


def loss_sum(
    config: decoder.DecoderConfig,
    remat: str,
    dtype: jnp.dtype,
    params: decoder.Params,
    frozen: decoder.Params,
    batch: Batch,
) -> jax.Array:
    """Compute the weighted cross-entropy of a micro-batch in `dtype`, summed over its entries."""
    cast = lora.cast(lora.join(params, frozen), dtype)
    logprobs_BM = decoder.token_logprobs(config, cast, batch, remat)
    return -jnp.sum(logprobs_BM * batch.loss_weight_BM)


def train_step(
    config: decoder.DecoderConfig,
    remat: str,
    dtype: jnp.dtype,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    frozen: decoder.Params,
    batch: Batch,
) -> tuple[TrainState, Metrics]:
    """Take one optimizer step over all micro-batches of a batch, whose arrays are [A, B, ...].

    The loss is the weighted cross-entropy divided by the number of target tokens in the whole step,
    over all devices and micro-batches: the loss of the same examples in separate, padded rows.

    Args:
      config: the decoder's shape.
      remat: one of `linear.REMAT_POLICIES`.
      dtype: the type to compute in.
      optimizer: updates the trained parameters.
      state: before the step.
      frozen: the parameters beside trained adapters; empty where all are trained.
      batch: micro-batches without loss entries come last, and are skipped.
    """
    targets = jnp.sum(batch.loss_weight_BM != 0)
    filled = jnp.sum(jnp.any(batch.loss_weight_BM != 0, axis=(1, 2)))
    value_and_grad = jax.value_and_grad(functools.partial(loss_sum, config, remat, dtype))

    def sums(a):
        return value_and_grad(state.params, frozen, jax.tree.map(lambda x: x[a], batch))

    totals = sums(0)  # outside the loop, where it would be added to zeros: a pass over all weights
    if len(batch.tokens_BT) > 1:
        # The trip count is data, not shape: a step with fewer rows than the longest costs less.
        totals = jax.lax.fori_loop(
            1, filled, lambda a, totals: jax.tree.map(jnp.add, totals, sums(a)), totals
        )
    loss, grads = jax.tree.map(lambda x: x / targets, totals)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = Metrics(loss, optax.tree.norm(grads))
    return TrainState(state.step + 1, params, opt_state), metrics


def shapes(config: decoder.DecoderConfig, optimizer: optax.GradientTransformation) -> TrainState:
    """Describe the state as `jax.ShapeDtypeStruct`s."""
    params, _ = lora.split(decoder.shapes(config))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    return TrainState(step, params, jax.eval_shape(optimizer.init, params))


def shardings(
    config: decoder.DecoderConfig, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Choose the sharding of the state: moments as their weights, counters replicated."""
    params, _ = lora.split(mesh_lib.param_shardings(mesh, config))
    opt_state = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        shapes(config, optimizer).opt_state,
        params,
        transform_non_params=lambda _: mesh_lib.replicated(mesh),
    )
    return TrainState(mesh_lib.replicated(mesh), params, opt_state)


def create_state(
    params: decoder.Params, optimizer: optax.GradientTransformation, layout: TrainState
) -> TrainState:
    """Create the state before the first step, laid out over the mesh."""
    params = jax.device_put(params, layout.params)
    opt_state = jax.jit(optimizer.init, out_shardings=layout.opt_state)(params)
    return TrainState(jax.device_put(jnp.int32(0), layout.step), params, opt_state)


class CompiledStep:
    """The training step on a mesh, compiled for each shape of batches; it donates the state."""

    def __init__(
        self,
        config: decoder.DecoderConfig,
        remat: str,
        dtype: jnp.dtype,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
    ):
        self.mesh, self.shapes = mesh, shapes(config, optimizer)
        _, self.frozen = lora.split(decoder.shapes(config))
        layout = shardings(config, optimizer, mesh)
        _, frozen = lora.split(mesh_lib.param_shardings(mesh, config))
        self.step = jax.jit(
            functools.partial(train_step, config, remat, dtype, optimizer),
            in_shardings=(layout, frozen, mesh_lib.row_sharding(mesh, leading=1)),
            out_shardings=(layout, mesh_lib.replicated(mesh)),
            donate_argnums=0,
        )
        self._compiled: dict[tuple[tuple[int, ...], ...], jax.stages.Compiled] = {}

    def __call__(
        self, state: TrainState, frozen: decoder.Params, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        """Return the next state and the metrics of the step."""
        if _sizes(batch) not in self._compiled:
            self.compile(batch)
        return self._compiled[_sizes(batch)](state, frozen, batch)

    def compile(self, batch: Batch) -> jax.stages.Compiled:
        """Compile for batches of the shape of this one, unless that has been done."""
        if _sizes(batch) in self._compiled:
            return self._compiled[_sizes(batch)]
        with jax.set_mesh(self.mesh):
            compiled = self.step.lower(self.shapes, self.frozen, batch).compile()
        self._compiled[_sizes(batch)] = compiled
        return compiled


@functools.lru_cache(maxsize=4)
def compiled_step(
    config: decoder.DecoderConfig,
    remat: str,
    dtype: jnp.dtype,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> CompiledStep:
    """Return the step of these, with all that has been compiled for it in this process."""
    return CompiledStep(config, remat, dtype, optimizer, mesh)


def _sizes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in jax.tree.leaves(batch))


def learning_rate(config: config_lib.Optim, steps: int) -> optax.Schedule:
    """Make the schedule of the learning rate, a function of the step s counted from 0.

    After a linear warm-up of `warmup_steps` from 0 to `lr` it falls to 0 at `steps`, or stays:
    without a warm-up the linear schedule is `lr * (1 - s / steps)`.
    """
    decay_steps = max(1, steps - config.warmup_steps)
    decay = {
        "linear": optax.linear_schedule(config.lr, 0.0, decay_steps),
        "cosine": optax.cosine_decay_schedule(config.lr, decay_steps),
        "constant": optax.constant_schedule(config.lr),
    }[config.schedule]
    warmup = optax.linear_schedule(0.0, config.lr, max(1, config.warmup_steps))
    return optax.join_schedules([warmup, decay], [config.warmup_steps])


def adamw(config: config_lib.Optim, steps: int) -> optax.GradientTransformation:
    """Make AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), after clipping if there is any.

    Of equal settings it is the same object.
    """
    return _adamw(dataclasses.astuple(config), steps)


@functools.lru_cache(maxsize=16)
def _adamw(settings: tuple, steps: int) -> optax.GradientTransformation:
    config = config_lib.Optim(*settings)
    inner = optax.adamw(
        learning_rate(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return optax.chain(clip, inner)
