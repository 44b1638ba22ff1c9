"""How fast this machine does the work of a study: each kind of it once, on the model itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft import config as config_lib
from jft.batch import Shape
from jft.data.batches import Batches
from jft.data.items import Items
from jft.data.tokenizer import Tokenizer
from jft.evaluation import decoding, runner
from jft.model import flops
from jft.model.decoder import DecoderConfig, Params
from jft.progress import phase
from jft.studies import costs
from jft.studies.costs import Training
from jft.training import mesh as mesh_lib
from jft.training import optim, pretrained, setup
from jft.training import step as step_lib

# Tokens that are enough to see the speed of generation.
NEW_TOKENS = 8


class Speeds(NamedTuple):
    """Seconds of this machine.

    Attributes:
      decoder: the model's shape.
      shards: devices that share the rows of a batch.
      start: to start a program.
      load: to load the model.
      training, scoring, generation: for a floating-point operation of each.
      compile_training, compile_scoring, compile_generation: for a shape that comes first.
    """

    decoder: DecoderConfig
    shards: int
    start: float
    load: float
    training: float = 0.0
    compile_training: float = 0.0
    scoring: float = 0.0
    compile_scoring: float = 0.0
    generation: float = 0.0
    compile_generation: float = 0.0


def speeds(
    config: config_lib.Config, trainings: list[Training], cells: list[Items], tokenizer: Tokenizer
) -> Speeds:
    """Measure what the study needs.

    The training of the shortest rows and the cells of middling size stand for the others.

    Raises:
      UserError: the model cannot be loaded.
    """
    origin = pretrained.origin(config.model.path)
    mesh, dtype = setup.devices(config)
    with phase("Loading the model"):
        start = _seconds(lambda: subprocess.run([sys.executable, "-c", "import jft.training.loop"]))
        began = time.monotonic()
        shape, params = pretrained.load(origin, mesh)
        load = time.monotonic() - began
    found = Speeds(shape, mesh_lib.row_shards(mesh), start, load)
    with setup.without_cache():  # what another run has compiled would seem to cost nothing
        if trainings:
            with phase("Measuring the speed of training"):
                smallest = min(trainings, key=lambda each: _shortest(each.batches).row_length)
                found = _training(found, config, smallest, mesh, dtype, params)
        model = runner.create(shape, params, mesh, dtype, NEW_TOKENS)
        labelled = [cell for cell in cells if not costs.generates(cell)]
        if labelled:
            with phase("Measuring the speed of scoring"):
                found = _scoring(found, model, _median(labelled))
        texts = [cell for cell in cells if costs.generates(cell)]
        if texts:
            with phase("Measuring the speed of generation"):
                found = _generation(found, model, _median(texts), tokenizer)
    return found


def _training(
    found: Speeds,
    config: config_lib.Config,
    training: Training,
    mesh: Mesh,
    dtype: jnp.dtype,
    params: Params,
) -> Speeds:
    """One micro-batch, with the update of the weights."""
    batches, shape = training.batches, _shortest(training.batches)
    layout = mesh_lib.rows(mesh, leading=1)
    batch = jax.tree.map(
        lambda x: jax.device_put(x[:1], layout),
        batches.batch(batches.shapes.index(shape)),
    )
    optimizer = optim.create(config.optim, batches.steps)
    states = step_lib.shardings(found.decoder, optimizer, mesh)
    # A copy, since the step takes over what it is given.
    state = step_lib.create_state(jax.tree.map(jnp.copy, params), optimizer, states)
    began = time.monotonic()
    train_step = step_lib.Program(found.decoder, config.train.remat, dtype, optimizer, mesh)
    train_step.compile(batch)
    compiling = time.monotonic() - began
    state, _ = jax.block_until_ready(train_step(state, batch))
    seconds = _seconds(lambda: train_step(state, batch))
    work = flops.forward(found.decoder, shape)
    return found._replace(training=seconds / (costs.PASSES * work), compile_training=compiling)


def _scoring(found: Speeds, model: runner.Runner, cell: Items) -> Speeds:
    batch = next(cell.batches())[0]
    first, seconds = (_seconds(lambda: model.logprobs(batch)) for _ in range(2))
    work = flops.forward(found.decoder, cell.shape)
    return found._replace(scoring=seconds / work, compile_scoring=max(0.0, first - seconds))


def _generation(found: Speeds, model: runner.Runner, cell: Items, tokenizer: Tokenizer) -> Speeds:
    """The first group of prompts: the prefill of a batch, which is scoring, and some new tokens."""
    group = next(decoding.groups(cell, found.shards))
    slots, _ = decoding.slots_of([part for _, part in group], cell.shape, found.shards)
    stops = decoding.stops_of(tokenizer, model.vocab_size)
    stops = stops._replace(eos=stops.eos[:0], text_V=stops.text_V * 0)  # none ends before the rest
    batch = group[0][0]
    first, filling = (_seconds(lambda: model.prefill(batch)) for _ in range(2))
    # One batch over and over takes as long to go on from as the group would, which can be large.
    prefixes = (model.prefill(batch),) * len(group)
    second, decode = (_seconds(lambda: model.decode(prefixes, slots, stops)) for _ in range(2))
    prompts = len(slots.prompt_R)
    work = flops.decoding_step(found.decoder, prompts, cell.shape.row_length)
    scoring = filling / flops.forward(found.decoder, cell.shape._replace(num_entries=0))
    return found._replace(
        scoring=found.scoring or scoring,
        generation=decode / NEW_TOKENS / work,
        compile_generation=max(0.0, first - filling) + max(0.0, second - decode),
    )


def _shortest(batches: Batches) -> Shape:
    return min(batches.shapes, key=lambda shape: shape.row_length)


def _median(cells: list[Items]) -> Items:
    return sorted(cells, key=lambda cell: cell.shape.row_length * len(cell.rows))[len(cells) // 2]


def _seconds(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    jax.block_until_ready(work())
    return time.monotonic() - began
