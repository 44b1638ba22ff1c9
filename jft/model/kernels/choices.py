"""The attention that a device computes with: candidates, and a table of what was chosen for which.

    xla      blocks of keys, for every device and every batch: `jft.model.attention`
    pallas   kernels along the lists of blocks, for GPUs and TPUs: `tree_attention`
    cudnn    the library of NVIDIA, with the whole mask: `library`
    tokamax  kernels by JAX's authors for Hopper and TPUs, with the whole mask: `library`

`python -m benchmarks.accelerator` measures them all, and an entry of the table says by which
measurement it stands. `JFT_ATTENTION=cudnn` and the like have a program try another one.
"""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import jax

from jft.batch import BLOCK, Batch
from jft.errors import UserError
from jft.model.kernels import library, tree_attention
from jft.model.kernels.blocks import Inputs
from jft.runtime import progress

VARIABLE = "JFT_ATTENTION"
CANDIDATES = ("xla", "pallas", *library.LIBRARIES)
# Batches of which a smaller share of the blocks before a query is seen count as trees.
DENSE = 0.75


class Choice(NamedTuple):
    """The candidates for one kind of device.

    Attributes:
      kind: beginning of the names of the kind, as JAX gives them.
      trees: the candidate for batches of which attention may skip blocks.
      rows: the candidate for batches of which nearly every block before a query is seen.
      measured: when, and with what; empty: it was not.
    """

    kind: str
    trees: str
    rows: str
    measured: str = ""


# The first whose name fits a GPU or TPU counts. On CPUs there are blocks of keys alone.
CHOICES = (
    # cuDNN was 2 to 4 times faster on rows of one sequence, with a causal mask. With the mask as a
    # whole, as it takes it here, it was not measured.
    Choice("NVIDIA H100", "pallas", "pallas", "2026-11, jax 0.11.2, at 8f7abd3"),
    Choice("", "pallas", "pallas"),
)


def choose(inputs: Inputs, batch: Batch) -> str:
    """Choose a candidate for the devices of the ambient mesh, and a batch.

    The mesh decides, not what this machine has: a program may be compiled for other devices.

    Raises:
      UserError: `JFT_ATTENTION` is none of the candidates.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None or device.platform not in tree_attention.MODULES:
        return "xla"
    choice = next(each for each in CHOICES if device.device_kind.startswith(each.kind))
    tabled = choice.rows if seen_share(batch) >= DENSE else choice.trees
    for name in dict.fromkeys((_asked_for() or tabled, "pallas")):
        why = why_not(name, device.platform, inputs)
        if not why:
            return name
        _say_once(f"attention goes without {name}: {why}")
    return "xla"


def why_not(name: str, platform: str, inputs: Inputs) -> str:
    """Say why a candidate cannot compute attention of these inputs; empty: it can."""
    if name in library.LIBRARIES:
        return library.refusal(name, platform, inputs)
    return tree_attention.refusal(platform, inputs) if name == "pallas" else ""


def seen_share(batch: Batch) -> float:
    """Bound the share of the blocks before a query that is seen, by the lists' room."""
    blocks = -(-batch.visible_until_BT.shape[1] // BLOCK)
    lists = [x for x in (batch.key_blocks_BQW, batch.prefix_blocks_BU) if x is not None]
    if not lists:
        return 1.0
    most = sum(x.shape[-1] for x in lists)
    return sum(min(q, most) for q in range(1, blocks + 1)) / (blocks * (blocks + 1) / 2)


def _asked_for() -> str:
    """Read the candidate that the user asks for; empty: none."""
    name = os.environ.get(VARIABLE, "")
    if name and name not in CANDIDATES:
        raise UserError(f"{VARIABLE}={name}: one of {', '.join(CANDIDATES)}, or unset it")
    return name


# Attention gets slower without kernels, so the user should know, and only here is it known. JAX
# traces the model for every program and shape: the line is printed the first time alone.
_say_once = functools.cache(progress.say)
