"""The speed of this machine at the work of a study, measured on the model itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import jax
import numpy as np

from jft.batch import Shape
from jft.checkpoints.session import Session
from jft.data.eval_batches import PackedCell
from jft.data.packed import count_batches
from jft.data.train_batches import Batches
from jft.evaluation import generation
from jft.evaluation.compiled import CompiledModel
from jft.model import mesh as mesh_lib
from jft.model.decode import Stops
from jft.runtime.progress import phase
from jft.training import optim, start
from jft.training import step as step_lib

# Seconds that a job is allowed besides its work and loading the model: to start, to plan its data,
# and to compile what no job before it has compiled.
START_SECONDS = 15.0


def computed_tokens(micro_batches: Mapping[Shape, int]) -> int:
    """Count the tokens of some micro-batches of each shape, padding included."""
    return sum(n * shape.rows * shape.row_length for shape, n in micro_batches.items())


def measure(
    session: Session, runs: list[Batches], cells: list[PackedCell]
) -> tuple[float, dict[str, float]]:
    """Time one batch of each kind of work: that of middling size stands for all.

    Args:
      session: of the study.
      runs: its trainings.
      cells: its evaluation grid.

    Returns:
      The seconds of a job besides its work, and those of a token: a computed one for `training`
      and `scoring`, a new one for `generation`.

    Raises:
      UserError: the model cannot be loaded.
    """
    mesh, dtype, limit = session.mesh, session.dtype, session.config.eval.max_new_tokens
    with phase("Loading the model"):
        began = time.monotonic()
        decoder, params = session.model.load(mesh, dtype)
        job_seconds = START_SECONDS + time.monotonic() - began
    model = CompiledModel(decoder, params, mesh, dtype, limit)
    token_seconds = {}
    if runs:
        with phase("Measuring the speed of training"):
            token_seconds["training"] = _training(session, _median_run(runs))
    with phase("Measuring the speed of scoring"):
        token_seconds["scoring"] = _scoring(model, _median_cell(cells))
    if texts := [cell for cell in cells if cell.slots]:
        with phase("Measuring the speed of generation"):
            token_seconds["generation"] = _generation(model, _median_cell(texts))
    return job_seconds, token_seconds


def _training(session: Session, run: Batches) -> float:
    """Time a token of one micro-batch, with its share of the update of the weights."""
    config, layout = session.config, mesh_lib.row_sharding(session.mesh, leading=1)
    batch = jax.tree.map(lambda x: jax.device_put(x[:1], layout), run.batch(0))
    optimizer = optim.create(config.optim, run.steps)
    decoder, state, frozen = start.begin(session, config, optimizer)
    program = step_lib.CompiledStep(
        decoder, config.train.remat, session.dtype, optimizer, session.mesh
    )

    def train():
        nonlocal state  # the program takes its buffers
        state, metrics = program(state, frozen, batch)
        return metrics

    return _seconds(train) / batch.tokens_BT.size


def _scoring(model: CompiledModel, cell: PackedCell) -> float:
    """Time a token of one batch."""
    batch, _ = next(cell.batches())
    return _seconds(lambda: model.token_logprobs(batch)) / batch.tokens_BT.size


def _generation(model: CompiledModel, cell: PackedCell) -> float:
    """Time a new token after the prompts of one batch, with its share of the prompts."""
    cell = replace(cell, rows=cell.rows[: cell.shape.rows])
    # No token ends a generation, so that all are as long as they may become.
    stops = Stops(np.zeros(0, np.int32), np.zeros(model.vocab_size, np.uint8))
    seconds = _seconds(
        lambda: generation.generate_tokens(model, cell, stops, lambda finished: None)
    )
    return seconds / (sum(map(len, cell.rows)) * model.max_new_tokens)


def _median_run(runs: list[Batches]) -> Batches:
    return sorted(runs, key=lambda run: computed_tokens(run.micro_batches))[len(runs) // 2]


def _median_cell(cells: list[PackedCell]) -> PackedCell:
    by_size = sorted(cells, key=lambda cell: computed_tokens(count_batches([cell])))
    return by_size[len(cells) // 2]


def _seconds(run: Callable[[], object]) -> float:
    """Time the second of two calls: the first compiles."""
    jax.block_until_ready(run())
    began = time.monotonic()
    jax.block_until_ready(run())
    return time.monotonic() - began
