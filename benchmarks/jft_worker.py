"""The work, done by jft."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import worker
from benchmarks.work import LEARNING_RATE, MAX_LENGTH, MAX_NEW_TOKENS, MAX_PROMPT, WORKS, Work
from jft import config as config_lib
from jft.batch import Batch
from jft.checkpoints import model_ref
from jft.checkpoints.session import open_session
from jft.checkpoints.tokenizer import Tokenizer
from jft.checkpoints.weights import FLOAT32
from jft.data import eval_batches as items_lib
from jft.data import eval_grid
from jft.data import train_batches as batches_lib
from jft.data.packed import in_order
from jft.evaluation import compiled, generation
from jft.evaluation.compiled import CompiledModel
from jft.model import decoder as decoder_lib
from jft.model import mesh as mesh_lib
from jft.training import step as step_lib


def prepare(spec: dict) -> Callable[[], list]:
    """Return a function that does one round of the work that `spec` names."""
    work, config = WORKS[spec["work"]], configure(spec)
    session = open_session(config)
    mesh, dtype, tokenizer = session.mesh, session.dtype, session.tokenizer
    held = FLOAT32 if work.kind == "train" else dtype
    decoder, params = session.model.load(mesh, held)
    if work.kind == "train":
        batches = batches_lib.plan_run(config, tokenizer, *session.packing)
        compile_all, do_round = trainer(config, batches, decoder, params, mesh, dtype)
        compile_all()
        return do_round
    model = CompiledModel(decoder, params, mesh, dtype, MAX_NEW_TOKENS)
    return _evaluator(work, config, tokenizer, model, mesh)


def configure(spec: dict) -> config_lib.Config:
    """Describe the work that `spec` names as a config of jft's programs."""
    work, config = WORKS[spec["work"]], config_lib.get_config()
    config.model.path, config.data.root = spec["model"], spec["data"]
    config.data.task, config.data.max_length = work.task, MAX_LENGTH
    if work.kind == "train":
        config.data.train, config.data.shots, config.data.shuffle = (work.file,), work.shots, False
        config.train.batch_size, config.train.steps = work.amount, spec["rounds"]
        config.optim.lr, config.data.demo_loss = LEARNING_RATE, bool(work.beside)
    else:
        config.eval.datasets, config.eval.shots = (f"{work.task}:{work.file}",), (work.shots,)
        config.eval.limit, config.eval.max_new_tokens = work.amount, MAX_NEW_TOKENS
        config.eval.max_length, config.data.demos = MAX_PROMPT, (work.demos,)
        config.eval.retention = ()
    return config


def load_tokenizer(config: config_lib.Config) -> Tokenizer:
    """Load the tokenizer of the config's model."""
    return model_ref.resolve(config.model.path).tokenizer()


def plan_cell(
    config: config_lib.Config, tokenizer: Tokenizer, shards: int
) -> items_lib.PackedCells:
    """Plan the only cell of an evaluation."""
    (setting,) = eval_grid.all_cells(config)
    return items_lib.pack_cell(setting, tokenizer, config, shards)


def trainer(
    config: config_lib.Config,
    batches: batches_lib.Batches,
    decoder: decoder_lib.DecoderConfig,
    params: decoder_lib.Params,
    mesh: Mesh,
    dtype: jax.numpy.dtype,
) -> tuple[Callable[[], None], Callable[[], list]]:
    """Return a function that compiles all steps of a run, and one that does the next step."""
    optimizer = step_lib.adamw(config.optim, batches.steps)
    state = step_lib.create_state(params, optimizer, step_lib.shardings(decoder, optimizer, mesh))
    program = step_lib.CompiledStep(decoder, config.train.remat, dtype, optimizer, mesh)
    layout, steps = mesh_lib.row_sharding(mesh, leading=1), iter(range(batches.steps))

    def load(step: int) -> Batch:
        return jax.tree.map(lambda x: jax.device_put(x, layout), batches.batch(step))

    def compile_all() -> None:
        for shape in dict.fromkeys(batches.shapes):
            program.compile(load(batches.shapes.index(shape)))

    def do_round() -> list:
        nonlocal state
        state, metrics = program(state, {}, load(next(steps)))
        return [float(metrics.loss)]

    return compile_all, do_round


def _evaluator(
    work: Work,
    config: config_lib.Config,
    tokenizer: Tokenizer,
    model: CompiledModel,
    mesh: Mesh,
) -> Callable[[], list]:
    def do_round() -> list:
        cell = plan_cell(config, tokenizer, mesh_lib.row_shards(mesh))
        if work.kind == "generate":
            texts = in_order(generation.generate(model, cell, tokenizer))
            return [each.text for each in texts]
        return np.asarray(in_order(compiled.score_answers(model, cell))).tolist()

    return do_round


if __name__ == "__main__":
    worker.serve(prepare)
