"""The best mesh, micro-batch and rematerialization that fit: guessed for all, tried for a few."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jft import config as config_lib
from jft.model.decoder import DecoderConfig
from jft.model.sharding import DIVIDED, PARAMETERS
from jft.planning.chips import Slice
from jft.planning.estimate import Estimate

TENSOR = (1, 2, 4, 8)
TOKENS = (1024, 2048, 4096, 8192, 16384)
REMAT = ("none", "attention", "full")
# Bytes of a parameter that is trained: float32 weight, gradient and moments, and a copy to compute
# with; and of one that is frozen beside adapters, by how it is held.
TRAINED, FROZEN = 18, {"auto": 2, "bfloat16": 2, "int8": 1}
# How far a guess of the memory may be off, and how many candidates are compiled at most.
MARGIN, TRIES = 1.15, 6


class Candidate(NamedTuple):
    """A way to run, with the guesses by which it is tried sooner or later."""

    seconds: float
    memory: float
    config: config_lib.Config


def best(
    config: config_lib.Config,
    decoder: DecoderConfig,
    on: Slice,
    longest: int,
    compiled: Callable[[config_lib.Config], Estimate],
) -> tuple[config_lib.Config, Estimate] | None:
    """The first that fits of those that ought to, the fastest first; None where none does.

    Args:
      config: of the run.
      decoder: its model's shape.
      on: the chips.
      longest: tokens of its longest sequence, of which a row must have room for one.
      compiled: gives the estimate of a config.
    """
    candidates = sorted(_candidates(config, decoder, on, longest), key=lambda each: each.seconds)
    fitting = [each for each in candidates if each.memory <= MARGIN * on.chip.memory]
    # Where none of them does, the smallest may: guesses are guesses.
    smallest = sorted(candidates, key=lambda each: each.memory)
    tried = fitting[: TRIES - 1] + [
        each for each in smallest[:TRIES] if each not in fitting[:TRIES]
    ]
    for each in tried[:TRIES]:
        estimate = compiled(each.config)
        if estimate.fits:
            return each.config, estimate
    return None


def _candidates(
    config: config_lib.Config, decoder: DecoderConfig, on: Slice, longest: int
) -> Iterator[Candidate]:
    axes = {PARAMETERS[dim]: decoder.size(dim) for dim in DIVIDED}
    for tensor, tokens, remat in itertools.product(TENSOR, TOKENS, REMAT):
        rest = on.number // tensor
        if on.number % tensor or decoder.num_heads % tensor or axes["tensor"] % tensor:
            continue
        for fsdp in (size for size in range(1, rest + 1) if rest % size == 0):
            if axes["fsdp"] % fsdp:
                continue
            changed = copy.deepcopy(config)
            sizes = changed.mesh
            sizes.data, sizes.fsdp, sizes.tensor = rest // fsdp, fsdp, tensor
            changed.train.micro_batch_tokens, changed.train.remat = tokens, remat
            yield _guess(changed, decoder, on, max(tokens, longest))


def _guess(config: config_lib.Config, decoder: DecoderConfig, on: Slice, tokens: int) -> Candidate:
    c, sizes, remat = decoder, config.mesh, config.train.remat
    heads = (2 * c.num_heads + 2 * c.num_kv_heads) * c.head_dim
    layer = c.embed_dim * heads + 3 * c.embed_dim * c.mlp_dim
    parameters = c.num_layers * layer + (1 if c.tied_head else 2) * c.vocab_size * c.embed_dim
    kept = {
        "none": 6 * c.embed_dim + 2 * heads + 4 * c.mlp_dim,
        "attention": 2 * c.embed_dim + heads + 2 * c.mlp_dim,
        "full": c.embed_dim,
    }[remat]
    shards = sizes.fsdp * sizes.tensor
    # Passes of a product over what it multiplies, forward and backward; adapters are next to none.
    held, passes = (FROZEN[config.lora.base], 4) if config.lora.rank else (TRAINED, 6)
    memory = (
        held * parameters / shards
        + 2 * tokens * c.num_layers * kept / sizes.tensor
        + 4 * (layer + c.vocab_size * c.embed_dim) / sizes.tensor
    )
    chip, split = on.chip, sizes.tensor > 1
    # Of a token and device, as if rows were full: computing, and what tensor shards exchange.
    compute = (passes + 2 * (remat == "full")) * parameters / sizes.tensor / chip.flops
    exchanged = 8 * 2 * c.embed_dim * c.num_layers / chip.link_bandwidth if split else 0.0
    # Of a micro-batch: the weights are gathered twice, and their slopes scattered and summed.
    gathered = passes * parameters / sizes.tensor / chip.link_bandwidth if sizes.fsdp > 1 else 0.0
    slopes = 0 if config.lora.rank else 8 * parameters
    summed = slopes / shards / chip.link_bandwidth if sizes.data > 1 else 0.0
    seconds = max(compute * tokens, exchanged * tokens + gathered + summed)
    return Candidate(seconds / tokens / (sizes.data * sizes.fsdp), memory, config)
