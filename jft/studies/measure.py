"""How fast this machine does the work of a study: each kind of it once, on the model itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jft import config as config_lib
from jft.batch import Shape
from jft.checkpoints import model_ref, weights
from jft.checkpoints.model_ref import Origin
from jft.data.eval_batches import PackedCell
from jft.data.train_batches import Batches
from jft.evaluation import compiled, generation
from jft.model import flops
from jft.model import mesh as mesh_lib
from jft.model.decode import Stops
from jft.model.decoder import DecoderConfig
from jft.runtime.progress import phase
from jft.studies import costs
from jft.studies.costs import Training
from jft.training import optim, start
from jft.training import step as step_lib

# Tokens that are enough to see the speed of generation.
NEW_TOKENS = 8


class Speeds(NamedTuple):
    """Seconds of this machine.

    Attributes:
      decoder: the model's shape, with the adapters that are trained.
      start: to start a program.
      load: to load the model.
      training, scoring, generation: for a floating-point operation of each.
      compile_training, compile_scoring, compile_generation: for a shape that comes first.
    """

    decoder: DecoderConfig
    start: float
    load: float
    training: float = 0.0
    compile_training: float = 0.0
    scoring: float = 0.0
    compile_scoring: float = 0.0
    generation: float = 0.0
    compile_generation: float = 0.0


def speeds(config: config_lib.Config, trainings: list[Training], cells: list[PackedCell]) -> Speeds:
    """Measure what the study needs.

    The training of the shortest rows and the cells of middling size stand for the others.

    Raises:
      UserError: the model cannot be loaded.
    """
    origin = model_ref.find(config.model.path)
    mesh, dtype = mesh_lib.devices(config)
    with phase("Loading the model"):
        starting = _seconds(
            lambda: subprocess.run([sys.executable, "-c", "import jft.training.loop"])
        )
        began = time.monotonic()
        shape, params = weights.load(origin, mesh, dtype)
        loading = time.monotonic() - began
    adapters = weights.adapters_of(config.lora, dtype)
    found = Speeds(replace(shape, adapters=adapters), starting, loading)
    with mesh_lib.without_cache():  # what another run has compiled would seem to cost nothing
        if trainings:
            with phase("Measuring the speed of training"):
                smallest = min(trainings, key=lambda each: _shortest(each.batches).row_length)
                found = _training(found, config, smallest, mesh, dtype, origin)
        model = compiled.create(shape, params, mesh, dtype, NEW_TOKENS)
        labelled = [cell for cell in cells if not costs.generates(cell)]
        if labelled:
            with phase("Measuring the speed of scoring"):
                found = _scoring(found, model, _median(labelled))
        texts = [cell for cell in cells if costs.generates(cell)]
        if texts:
            with phase("Measuring the speed of generation"):
                found = _generation(found, model, _median(texts))
    return found


def _training(
    found: Speeds,
    config: config_lib.Config,
    training: Training,
    mesh: Mesh,
    dtype: jnp.dtype,
    origin: Origin,
) -> Speeds:
    """One micro-batch, with the update of the weights."""
    batches, shape = training.batches, _shortest(training.batches)
    layout = mesh_lib.row_sharding(mesh, leading=1)
    batch = jax.tree.map(
        lambda x: jax.device_put(x[:1], layout),
        batches.batch(batches.shapes.index(shape)),
    )
    optimizer = optim.create(config.optim, batches.steps)
    decoder, state, frozen = start.begin(config, mesh, dtype, optimizer, origin)
    began = time.monotonic()
    train_step = step_lib.Program(decoder, config.train.remat, dtype, optimizer, mesh)
    train_step.compile(batch)
    compiling = time.monotonic() - began
    state, _ = jax.block_until_ready(train_step(state, frozen, batch))
    seconds = _seconds(lambda: train_step(state, frozen, batch))
    work = flops.training(decoder, shape)
    return found._replace(training=seconds / work, compile_training=compiling)


def _scoring(found: Speeds, model: compiled.Runner, cell: PackedCell) -> Speeds:
    batch = next(cell.batches())[0]
    first, seconds = (_seconds(lambda: model.logprobs(batch)) for _ in range(2))
    work = flops.forward(found.decoder, cell.shape)
    return found._replace(scoring=seconds / work, compile_scoring=max(0.0, first - seconds))


def _generation(found: Speeds, model: compiled.Runner, cell: PackedCell) -> Speeds:
    """The prefill of a batch, which is scoring, and some new tokens for its prompts."""
    cell = replace(cell, rows=cell.rows[: cell.shape.rows])
    batch, _ = next(cell.batches())
    vocabulary = np.zeros(model.vocab_size, np.uint8)
    never = Stops(np.zeros(0, np.int32), vocabulary)  # none ends before the others
    first, filling = (_seconds(lambda: model.prefill(batch)) for _ in range(2))
    second, both = (
        _seconds(lambda: generation.tokens(model, cell, never, _ignore)) for _ in range(2)
    )
    work = costs.decoding_flops(cell, found.decoder, sum(map(len, cell.rows)), NEW_TOKENS)
    scoring = filling / flops.forward(found.decoder, cell.shape._replace(num_entries=0))
    return found._replace(
        scoring=found.scoring or scoring,
        generation=max(0.0, both - filling) / work,
        compile_generation=max(0.0, first - filling) + max(0.0, second - both),
    )


def _ignore(_finished: int) -> None:
    pass


def _shortest(batches: Batches) -> Shape:
    return min(batches.shapes, key=lambda shape: shape.row_length)


def _median(cells: list[PackedCell]) -> PackedCell:
    return sorted(cells, key=lambda cell: cell.shape.row_length * len(cell.rows))[len(cells) // 2]


def _seconds(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    jax.block_until_ready(work())
    return time.monotonic() - began
