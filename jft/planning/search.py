"""The search for the fastest mesh, micro-batch and rematerialization that fit.

Time and memory are guessed for all candidates; the few that look best are compiled.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp

from jft import config as config_lib
from jft.batch import Shape
from jft.checkpoints import weights
from jft.model import flops
from jft.model.decoder import DecoderConfig
from jft.model.sharding import DIVIDED, PARAMETERS
from jft.planning.chips import Chip, Slice
from jft.planning.estimate import TrainingEstimate, compute_dtype

TENSOR = (1, 2, 4, 8)
TOKENS = (1024, 2048, 4096, 8192, 16384)
REMAT = ("none", "attention", "full")
# How far a guess of the memory may be off, and how many candidates are compiled at most.
MARGIN, TRIES = 1.15, 6
# Bytes of a number: of activations and of the weights that are computed with; of gradients; and of
# a trained weight with its gradient, two moments, and a copy to compute with.
BFLOAT16, FLOAT32, TRAINED = 2, 4, 18


class Candidate(NamedTuple):
    """A way to run: sizes of the mesh, tokens of a micro-batch on a device, and `train.remat`."""

    data: int
    fsdp: int
    tensor: int
    tokens: int
    remat: str

    def applied(self, config: config_lib.Config) -> config_lib.Config:
        """Copy a config, with this way to run."""
        changed = copy.deepcopy(config)
        mesh, train = changed.mesh, changed.train
        mesh.data, mesh.fsdp, mesh.tensor = self.data, self.fsdp, self.tensor
        train.micro_batch_tokens, train.remat = self.tokens, self.remat
        return changed


def best(
    config: config_lib.Config,
    decoder: DecoderConfig,
    on: Slice,
    longest: int,
    compiled: Callable[[config_lib.Config], TrainingEstimate],
) -> tuple[config_lib.Config, TrainingEstimate] | None:
    """Find the fastest candidate that fits; None where none does.

    Args:
      config: config of the run.
      decoder: shape of its model.
      on: the chips.
      longest: tokens of its longest sequence, which a row must hold.
      compiled: function from a config to its estimate.
    """
    for candidate in _to_try(config, decoder, on, longest)[:TRIES]:
        changed = candidate.applied(config)
        estimate = compiled(changed)
        if estimate.fits:
            return changed, estimate
    return None


def _to_try(
    config: config_lib.Config, decoder: DecoderConfig, on: Slice, longest: int
) -> list[Candidate]:
    """Order the candidates: those that seem to fit, the fastest first, then the smallest."""
    decoder = replace(decoder, adapters=weights.adapters_of(config.lora, compute_dtype(config)))
    candidates = list(_candidates(decoder, on.number))
    seconds = {each: _token_seconds(each, decoder, on.chip, longest) for each in candidates}
    memory = {each: _memory(each, decoder, longest) for each in candidates}
    fitting = [each for each in candidates if memory[each] <= MARGIN * on.chip.memory]
    fastest = sorted(fitting, key=seconds.__getitem__)
    # A guess may be wrong, so the last tries are for the candidates that take least memory.
    smallest = sorted(candidates, key=memory.__getitem__)[:TRIES]
    return fastest[: TRIES - 1] + [each for each in smallest if each not in fastest[:TRIES]]


def _candidates(decoder: DecoderConfig, number: int) -> Iterator[Candidate]:
    """List all ways to run on `number` chips with a mesh that divides the decoder's dimensions."""

    def shards(axis: str, most: int) -> list[int]:
        sizes = [most, *(decoder.size(dim) for dim in DIVIDED if PARAMETERS[dim] == axis)]
        return [n for n in range(1, most + 1) if not any(size % n for size in sizes)]

    tensors = [n for n in shards("tensor", number) if n in TENSOR]
    for tensor, tokens, remat in itertools.product(tensors, TOKENS, REMAT):
        for fsdp in shards("fsdp", number // tensor):
            yield Candidate(number // tensor // fsdp, fsdp, tensor, tokens, remat)


def _memory(candidate: Candidate, decoder: DecoderConfig, longest: int) -> float:
    """Guess the bytes that a step takes on a device."""
    _, fsdp, tensor, tokens, remat = candidate
    c, adapters = decoder, decoder.adapters
    number = jnp.dtype(adapters.base).itemsize if adapters else TRAINED  # adapters weigh nothing
    state = number * flops.parameters(c) / (fsdp * tensor)
    # Numbers that the backward pass needs of a token in a layer: all that is computed, the outputs
    # of the projections, or the input of the layer.
    heads = 2 * (c.num_heads + c.num_kv_heads) * c.head_dim
    saved = {
        "none": 6 * c.embed_dim + 2 * heads + 4 * c.mlp_dim,
        "attention": 2 * c.embed_dim + heads + 2 * c.mlp_dim,
        "full": c.embed_dim,
    }[remat]
    activations = BFLOAT16 * max(tokens, longest) * c.num_layers * saved / tensor
    # One layer and the head are gathered at a time, with their gradients.
    gathered = 2 * BFLOAT16 * (flops.layer_parameters(c) + flops.head_parameters(c)) / tensor
    return state + activations + gathered


def _token_seconds(candidate: Candidate, decoder: DecoderConfig, chip: Chip, longest: int) -> float:
    """Guess the seconds of a token: of computing or of sending, whichever takes longer.

    Rows are taken to be full of tokens that are all predicted, and attention to cost nothing.
    """
    data, fsdp, tensor, tokens, remat = candidate
    tokens = max(tokens, longest)
    row = Shape(1, 1, tokens, num_entries=tokens, num_key_blocks=0, num_prefix_blocks=0)
    computing = flops.forward_backward(decoder, row, remat) / tensor / chip.flops
    weights_of_shard = flops.parameters(decoder) / tensor
    sent = 0.0  # bytes of a micro-batch, in and out
    if tensor > 1:
        # Each layer sums the outputs of attention and of the feed-forward layer over the shards,
        # forward and backward; a sum sends its numbers twice.
        sent += 4 * 2 * BFLOAT16 * tokens * decoder.embed_dim * decoder.num_layers
    if fsdp > 1:
        # The weights are gathered twice; the gradients of what is trained are scattered.
        sent += (2 if decoder.adapters else 3) * BFLOAT16 * weights_of_shard
    if data > 1 and not decoder.adapters:
        sent += 2 * FLOAT32 * weights_of_shard / fsdp
    return max(computing, sent / chip.link_bandwidth) / tokens / (data * fsdp)
