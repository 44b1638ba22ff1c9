"""Steps of 16 examples, as the paper takes them, of a real model: where waiting is what they cost.

python -m benchmarks.accelerator.small_steps SPEC
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from benchmarks.accelerator.part import Row, Spec, attempt, serve
from benchmarks.accelerator.programs import STEPS, rows_of
from benchmarks.work import LEARNING_RATE, MAX_LENGTH
from jft import config as config_lib
from jft.checkpoints.session import open_session
from jft.data import train_batches as batches_lib
from jft.model import mesh as mesh_lib
from jft.training import step as step_lib


def measure(spec: Spec, shots: int, dtype: str) -> Row:
    """Time steps of 16 examples: each waited for, and one sent after the other."""
    found, number = rows_of(spec), 6 if spec.tiny else STEPS
    config = config_lib.get_config()
    config.model.path, config.model.dtype, config.data.root = spec.model, dtype, spec.data
    config.data.task, config.data.train, config.data.shots = found.task, (found.train,), shots
    config.data.shuffle, config.train.batch_size, config.train.steps = False, 16, number
    config.data.max_length, config.optim.lr = MAX_LENGTH, LEARNING_RATE
    session = open_session(config)
    mesh, (decoder, params) = session.mesh, session.model.load(session.mesh)
    batches = batches_lib.plan_run(config, session.tokenizer, *session.packing)
    optimizer = step_lib.adamw(config.optim, number)
    state = step_lib.create_state(params, optimizer, step_lib.shardings(decoder, optimizer, mesh))
    del params
    program = step_lib.CompiledStep(decoder, config.train.remat, jnp.dtype(dtype), optimizer, mesh)
    layout = mesh_lib.row_sharding(mesh, leading=1)
    began = time.perf_counter()
    built = [batches.batch(step) for step in range(number)]
    building = time.perf_counter() - began
    for batch in built:
        program.compile(batch)
    losses, seconds, half = [], [], number // 2
    for batch in built[:half]:
        began = time.perf_counter()
        state, metrics = program(state, {}, jax.device_put(batch, layout))
        losses.append(float(metrics.loss))
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    for batch in built[half:]:
        state, metrics = program(state, {}, jax.device_put(batch, layout))
    jax.block_until_ready(metrics)
    sent = (time.perf_counter() - began) / (number - half)
    return {
        "step ms, waited for": round(sorted(seconds)[len(seconds) // 2] * 1e3, 2),
        "sent": round(sent * 1e3, 2),
        "building a batch ms": round(building / number * 1e3, 2),
        "shapes": len(set(batches.shapes)),
        "losses": " ".join(f"{loss:.4f}" for loss in losses[:4]),
    }


def rows(spec: Spec) -> Iterator[Row]:
    """Measure FT and FTICL, in the type of accelerators and in float32."""
    for shots in (0, 2) if spec.tiny else (0, 4):
        for dtype in ("float32",) if spec.tiny else ("bfloat16", "float32"):
            row = {"table": "d. Steps of 16 examples", "shots": shots, "dtype": dtype}
            yield attempt(row, functools.partial(measure, spec, shots, dtype))


if __name__ == "__main__":
    serve(rows)
