"""Label scoring: each label's log-probability after the prompt; the highest is the prediction."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jft.data.choices import Choices
from jft.model import decoder
from jft.training import mesh as mesh_lib


class Scorer(NamedTuple):
    """A model, ready to score.

    Attributes:
      logprobs: `token_logprobs` of a batch on the mesh.
      mesh: the devices.
      batch_tokens: the most tokens that a device takes at once; at least one row.
    """

    logprobs: Callable
    mesh: Mesh
    batch_tokens: int


def scorer(
    config: decoder.DecoderConfig,
    params: decoder.Params,
    mesh: Mesh,
    dtype: jnp.dtype,
    batch_tokens: int,
) -> Scorer:
    """Cast the parameters to the type to compute in, and compile for each shape when it comes."""
    layout = mesh_lib.parameters(mesh, config)
    cast = jax.jit(
        lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree), out_shardings=layout
    )(params)
    run = jax.jit(
        functools.partial(decoder.token_logprobs, config), out_shardings=mesh_lib.replicated(mesh)
    )

    def logprobs(batch):
        rows = mesh_lib.rows(mesh, leading=0)
        placed = jax.tree.map(lambda x: jax.device_put(x, rows), batch)
        with jax.set_mesh(mesh):
            return run(cast, placed)

    return Scorer(logprobs, mesh, batch_tokens)


def score(model: Scorer, choices: Choices, advance: Callable[[int], None]) -> np.ndarray:
    """The labels' log-probabilities, [items, labels] in float64.

    A label's score is the sum over its tokens. The next batch is built and sent while the device
    works on the one before.

    Args:
      model: what scores.
      choices: the items of one cell.
      advance: called with the number of items finished since.
    """
    labels = len(choices.encoded[0].sequences)
    scores = np.zeros((len(choices.encoded), labels))
    left = np.full(len(choices.encoded), labels)
    rows = _rows_of_a_batch(model, choices)

    def collect(logprobs, batch, slots) -> None:
        values_BM = np.asarray(logprobs, np.float64) * batch.loss_weight_BM
        finished = 0
        for b, row in enumerate(slots):
            sums = np.bincount(batch.loss_slot_BM[b], values_BM[b], minlength=len(row))
            for (item, label), value in zip(row, sums, strict=True):
                scores[item, label] = value
                left[item] -= 1
                finished += left[item] == 0
        advance(int(finished))

    pending = None
    for batch, slots in choices.batches(rows):
        under_way = (model.logprobs(batch), batch, slots)
        if pending:
            collect(*pending)
        pending = under_way
    if pending:
        collect(*pending)
    return scores


def _rows_of_a_batch(model: Scorer, choices: Choices) -> int:
    """As many as fit, but not padding without end; powers of two, so that few are compiled."""
    shards = mesh_lib.row_shards(model.mesh)
    most = max(1, model.batch_tokens // choices.row_length)
    needed = 1
    while needed * shards < len(choices.rows):
        needed *= 2
    return min(most, needed) * shards
