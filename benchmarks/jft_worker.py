"""The work as jft does it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from benchmarks import worker
from benchmarks.work import LEARNING_RATE, MAX_LENGTH, MAX_NEW_TOKENS, WORKS, Work
from jft import config as config_lib
from jft.data import batches as batches_lib
from jft.data import items as items_lib
from jft.data import settings
from jft.data import tokenizer as tokenizer_lib
from jft.evaluation import decoding, runner, scoring
from jft.training import mesh as mesh_lib
from jft.training import optim, pretrained, setup
from jft.training import step as step_lib


def prepare(spec: dict) -> Callable[[], list]:
    """One round of the work that `spec` names, on its model and data."""
    work = WORKS[spec["work"]]
    config = config_lib.get_config()
    config.model.path, config.data.root = spec["model"], spec["data"]
    config.data.task, config.data.max_length = work.task, MAX_LENGTH
    return (_train if work.kind == "train" else _evaluate)(work, config, spec["rounds"])


def _train(work: Work, config: config_lib.Config, rounds: int) -> Callable[[], list]:
    config.data.train, config.data.shots, config.data.shuffle = work.rows, work.shots, False
    config.train.batch_size, config.train.steps = work.amount, rounds
    config.optim.lr = LEARNING_RATE
    mesh, dtype = setup.devices(config)
    tokenizer = tokenizer_lib.load(pretrained.tokenizer_path(config.model.path))
    batches = batches_lib.plan(config, tokenizer, mesh_lib.row_shards(mesh))
    decoder, params = pretrained.load(pretrained.origin(config.model.path), mesh)
    optimizer = optim.create(config.optim, batches.steps)
    state = step_lib.create_state(params, optimizer, step_lib.shardings(decoder, optimizer, mesh))
    program = step_lib.Program(decoder, config.train.remat, dtype, optimizer, mesh)
    layout, steps = mesh_lib.rows(mesh, leading=1), iter(range(rounds))

    def load(step):
        return jax.tree.map(lambda x: jax.device_put(x, layout), batches.batch(step))

    for shape in dict.fromkeys(batches.shapes):
        program.compile(load(batches.shapes.index(shape)))

    def do_round() -> list:
        nonlocal state
        state, metrics = program(state, load(next(steps)))
        return [float(metrics.loss)]

    return do_round


def _evaluate(work: Work, config: config_lib.Config, _rounds: int) -> Callable[[], list]:
    config.eval.datasets, config.eval.shots = (f"{work.task}:{work.rows}",), (work.shots,)
    config.eval.limit, config.eval.max_new_tokens = work.amount, MAX_NEW_TOKENS
    config.data.demos = work.demos
    mesh, dtype = setup.devices(config)
    tokenizer = tokenizer_lib.load(pretrained.tokenizer_path(config.model.path))
    (setting,) = settings.settings(config)
    decoder, params = pretrained.load(pretrained.origin(config.model.path), mesh)
    model = runner.create(decoder, params, mesh, dtype, MAX_NEW_TOKENS)

    def do_round() -> list:
        cell = items_lib.plan(setting, tokenizer, config, mesh_lib.row_shards(mesh))
        if work.kind == "generate":
            return decoding.generate(model, cell, tokenizer, lambda finished: None)
        return np.asarray(scoring.score(model, cell, lambda finished: None)).tolist()

    return do_round


if __name__ == "__main__":
    worker.serve(prepare)
