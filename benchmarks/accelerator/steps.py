"""Steps of models of several sizes: their speed, the share of it that was needed, their memory.

    python -m benchmarks.accelerator.steps SPEC

MFU counts the FLOPs of tokens that stand in the rows, of keys that are seen and of targets, three
times; beside it what the compiled step computes, with padding and all pairs of its blocks.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.attention import forest_batch, seen_pairs
from benchmarks.accelerator.part import Row, Spec, attempt, serve
from jft import config as config_lib
from jft.batch import Batch, Shape
from jft.model import decoder as decoder_lib
from jft.model import flops
from jft.model import mesh as mesh_lib
from jft.model.architecture import DecoderConfig
from jft.model.kernels import choices
from jft.planning import chips, estimate, planner
from jft.training import step as step_lib

# Names of devices, as JAX gives them, and of `chips.CHIPS`.
KINDS = {
    "NVIDIA H100": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA A100": "a100",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
}
WARM, TIMED = 2, 8


class Case(NamedTuple):
    """A step.

    Attributes:
      model: one of the published shapes.
      layers: of it, as many as fit; 0: all.
      rows, length: of the batch.
      prefix: tokens of demonstrations before all sequences of a row.
      each: tokens of a sequence after them; 0: the row is one.
      remat: `train.remat`.
      attention: candidate that is asked for; empty: that of the table.
    """

    model: str
    layers: int
    rows: int
    length: int
    prefix: int
    each: int
    remat: str = "attention"
    attention: str = ""


# In the order of their memory, of which devices only tell the peak since the start.
CASES = (
    Case("smollm2-135m", 0, 16, 2048, 308, 75),
    Case("smollm2-135m", 0, 16, 2048, 0, 0),
    Case("llama-3.2-1b", 0, 8, 2048, 308, 75),
    Case("llama-3.2-1b", 0, 8, 2048, 0, 0),
    Case("llama-2-7b", 8, 4, 2048, 308, 75),
    Case("llama-2-7b", 8, 4, 2048, 0, 0),
    # What else a line of the table, or a default, could say; peaks are those of the steps above.
    Case("llama-3.2-1b", 0, 8, 2048, 0, 0, attention="cudnn"),
    Case("llama-3.2-1b", 0, 8, 2048, 0, 0, attention="tokamax"),
    Case("smollm2-135m", 0, 16, 2048, 308, 75, remat="none"),
    Case("llama-3.2-1b", 0, 8, 2048, 308, 75, remat="full"),
)
TINY = (
    Case("llama-tiny", 1, 2, 128, 30, 20),
    Case("llama-tiny", 1, 2, 128, 0, 0, remat="none", attention="xla"),
)


def measure(case: Case) -> Row:
    """Compile a step, and time it."""
    os.environ.pop(choices.VARIABLE, None)
    if case.attention:
        os.environ[choices.VARIABLE] = case.attention
    decoder = planner.decoder_config(f"{planner.PREFIX}{case.model}")
    if case.layers:
        decoder = dataclasses.replace(decoder, num_layers=case.layers)
    config, on_cpu = config_lib.get_config(), jax.devices()[0].platform == "cpu"
    mesh = mesh_lib.make_mesh(config.mesh, jax.devices()[:1])
    dtype = jnp.dtype("float32" if on_cpu else "bfloat16")
    drawn, counts = forest_batch(case.rows, case.length, case.prefix, case.each)
    stacked = jax.tree.map(lambda x: np.asarray(x)[None], drawn)
    batch = jax.device_put(stacked, mesh_lib.row_sharding(mesh, leading=1))
    optimizer = step_lib.adamw(config.optim, 100)
    layout = step_lib.shardings(decoder, optimizer, mesh)
    with jax.set_mesh(mesh):
        params = decoder_lib.init(decoder, jax.random.key(0))
    state = step_lib.create_state(params, optimizer, layout)
    del params
    program = step_lib.CompiledStep(decoder, case.remat, dtype, optimizer, mesh)
    began = time.perf_counter()
    compiled = program.compile(batch)
    compiling = time.perf_counter() - began
    forecast = estimate.step_memory(decoder, optimizer, mesh, batch, compiled).peak
    losses = []
    for number in (WARM, TIMED):
        began = time.perf_counter()
        for _ in range(number):
            state, metrics = program(state, {}, batch)
        losses.append(float(metrics.loss))
        seconds = (time.perf_counter() - began) / number
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    needed = 3 * _needed(decoder, drawn, counts.row_tokens)
    computed = flops.forward_backward(decoder, shape_of(drawn), case.remat)
    return {
        "step ms": round(seconds * 1e3, 2),
        "tokens/s": round(counts.row_tokens / seconds),
        "as unshared": round(counts.sequence_tokens / seconds),
        "MFU needed": _mfu(needed / seconds),
        "computed": _mfu(computed / seconds),
        "filled": f"{counts.row_tokens / drawn.tokens_BT.size:.0%}",
        "peak GB": round(peak / 1e9, 2) if peak else "not told",
        "forecast GB": round(forecast / 1e9, 2),
        "compile s": round(compiling, 1),
        "loss after 2 and 10 steps": " ".join(f"{loss:.4f}" for loss in losses),
    }


def shape_of(batch: Batch) -> Shape:
    """Describe a batch of one micro-batch."""
    listed, prefix = batch.key_blocks_BQW, batch.prefix_blocks_BU
    assert listed is not None
    assert prefix is not None
    rows, length = batch.tokens_BT.shape
    entries = batch.loss_index_BM.shape[1]
    return Shape(1, rows, length, entries, listed.shape[2], prefix.shape[1])


def _needed(decoder: DecoderConfig, batch: Batch, tokens: int) -> float:
    """Count the FLOPs of a forward pass that the batch cannot do without."""
    layers = 2 * decoder.num_layers * flops.layer_parameters(decoder) * tokens
    attention = 4 * decoder.num_layers * decoder.num_heads * decoder.head_dim * seen_pairs(batch)
    entries = int((batch.loss_weight_BM != 0).sum())
    return layers + attention + 2 * flops.head_parameters(decoder) * entries


def _mfu(flops_per_second: float) -> str:
    kind = jax.devices()[0].device_kind
    found = next((chip for name, chip in KINDS.items() if kind.startswith(name)), None)
    if found is None:
        return f"{flops_per_second / 1e12:.2f} TFLOP/s"
    return f"{flops_per_second / chips.CHIPS[found].flops:.1%}"


def rows(spec: Spec) -> Iterator[Row]:
    """Measure the steps, as one table."""
    for case in TINY if spec.tiny else CASES:
        named = f"{case.model}{f', {case.layers} layers' * bool(case.layers)}"
        kind = f"{case.prefix}+{case.each}" if case.each else "plain"
        row = {
            "table": "c. Steps of jft",
            "model": named,
            "rows": f"{case.rows} x {case.length}, {kind}",
            "remat": case.remat,
            "attention": case.attention or "by the table",
        }
        yield attempt(row, functools.partial(measure, case))


if __name__ == "__main__":
    serve(rows)
