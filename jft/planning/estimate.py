"""A training on a slice: the memory of its compiled step, and the time of the run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft import config as config_lib
from jft.batch import Shape
from jft.checkpoints import weights
from jft.data import prefix_tree
from jft.data import train_batches as batches_lib
from jft.data.prompting.prompter import PromptEncoder
from jft.errors import UserError
from jft.model import decoder as decoder_lib
from jft.model import flops
from jft.model import mesh as mesh_lib
from jft.model.decoder import DecoderConfig
from jft.planning import hlo
from jft.planning.chips import Slice
from jft.planning.hlo import Traffic
from jft.training import step as step_lib

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# A micro-batch reads all weights three times, in the type to compute in: in the forward pass, and
# in the backward pass for the gradients of its input and of the weights.
WEIGHT_PASSES = 3
# The optimizer reads the gradient, both moments and the weight, and writes all but the first, each
# a float32.
OPTIMIZER_BYTES = 28


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a step takes on a device.

    Attributes:
      parameters: trained and frozen weights.
      optimizer: moments and counters.
      gradients: gradients of what is trained.
      batch: tokens and what belongs to them.
      temporary: all else that the compiler asks for: saved activations, gathered weights, and
        working memory of the kernels.
    """

    parameters: float
    optimizer: float
    gradients: float
    batch: float
    temporary: float

    @property
    def peak(self) -> float:
        """Bytes in all."""
        return self.parameters + self.optimizer + self.gradients + self.batch + self.temporary


@dataclass(frozen=True, slots=True)
class TrainingEstimate:
    """The memory and time of a training on a slice.

    Attributes:
      sizes: size of each axis of the mesh.
      shape: shape of the largest micro-batch, which decides the memory.
      memory: bytes of a device.
      fits: whether the compiler has found room for the step.
      flops: FLOPs of a mean step on all devices, those computed again by `remat` left out.
      traffic: collectives of one micro-batch on one device, by kind.
      compute: seconds of a mean step, if computing were its only limit.
      memory_time: seconds of a mean step, if the bandwidth of the memory were.
      link_time: seconds of a mean step, if the links between devices were.
      steps: steps of the run.
      tokens: tokens in the rows of the run, padding left out.
      filled: share of the rows that these tokens fill.
    """

    sizes: dict[str, int]
    shape: Shape
    memory: Memory
    fits: bool
    flops: float
    traffic: dict[str, Traffic]
    compute: float
    memory_time: float
    link_time: float
    steps: int
    tokens: int
    filled: float

    @property
    def step_time(self) -> float:
        """Seconds of a step at the least: of the slowest of the three, if they overlap fully."""
        return max(self.compute, self.memory_time, self.link_time)


def estimate_training(
    config: config_lib.Config,
    decoder: DecoderConfig,
    tokenizer: PromptEncoder,
    on: Slice,
    devices: list,
) -> TrainingEstimate:
    """Plan the data, compile the largest step, and read off what it takes.

    Raises:
      UserError: data or mesh that do not fit.
    """
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    mesh_lib.check_model(mesh, decoder)
    batches = batches_lib.plan_run(
        config, tokenizer, mesh_lib.row_shards(mesh), flops.packing_rules(decoder, "tpu")
    )
    dtype = compute_dtype(config)
    decoder = replace(decoder, adapters=weights.adapters_of(config.lora, dtype))
    shape = max(batches.shapes, key=lambda each: each.rows * each.row_length)
    batch = _structs(batches.batch(batches.shapes.index(shape)))
    optimizer = step_lib.adamw(config.optim, batches.steps)
    memory, traffic = _compile(config, decoder, optimizer, dtype, mesh, batch)
    counts = batches.micro_batches
    micro_batches = sum(counts.values()) / batches.steps
    tokens = sum(prefix_tree.count(step.sequences).row_tokens for step in batches.packed)
    moved = _memory_traffic(decoder, mesh, dtype, memory, micro_batches)
    sent = micro_batches * sum(each.bytes for each in (traffic or {}).values())
    computed = _mean_flops(decoder, counts, batches.steps, config.train.remat)
    return TrainingEstimate(
        sizes=dict(mesh.shape),
        shape=shape,
        memory=memory,
        fits=traffic is not None and memory.peak <= on.chip.memory,
        flops=_mean_flops(decoder, counts, batches.steps),
        traffic=traffic or {},
        compute=computed / (on.number * on.chip.flops),
        memory_time=moved / on.chip.memory_bandwidth,
        link_time=sent / on.chip.link_bandwidth,
        steps=batches.steps,
        tokens=tokens,
        filled=tokens / sum(each.rows * each.row_length * n for each, n in counts.items()),
    )


def compute_dtype(config: config_lib.Config) -> jnp.dtype:
    """Return the type that accelerators compute in."""
    return jnp.dtype("bfloat16" if config.model.dtype == "auto" else config.model.dtype)


def held_bytes(tree, layout, itemsize: int | None = None) -> float:
    """Count the bytes that a device holds of arrays with these shardings.

    Args:
      tree: the arrays, or `jax.ShapeDtypeStruct`s.
      layout: their shardings, in the same structure.
      itemsize: bytes of a number; None: those of each array's own type.
    """
    sizes = jax.tree.map(
        lambda x, sharding: (
            math.prod(sharding.shard_shape(x.shape)) * (itemsize or x.dtype.itemsize)
        ),
        tree,
        layout,
    )
    return float(sum(jax.tree.leaves(sizes)))


def refused_bytes(error: Exception) -> float:
    """Read from a compiler's refusal how many bytes a program would need, with its arguments.

    Raises:
      UserError: it has refused for another reason than lack of memory.
    """
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
        first = text.splitlines()[0]
        raise UserError(f"the step cannot be compiled for these devices: {first}") from None
    # On TPUs "Ran out of memory on HBM, the total memory required for HLO temporaries (16.52G)",
    # or "in memory space hbm. Used 16.52G of 15.75G hbm.". Both count arguments: where another kind
    # of chip has room for the same program, its arguments and temporaries are as much together.
    match = re.search(r"(?:\(|Used )([\d.]+)([KMG])", text)
    return float(match[1]) * UNITS[match[2]] if match else math.inf


def _compile(
    config: config_lib.Config,
    decoder: DecoderConfig,
    optimizer,
    dtype: jnp.dtype,
    mesh: Mesh,
    batch,
) -> tuple[Memory, dict[str, Traffic] | None]:
    """Compile a step: its memory, and its collectives, or None where the compiler refuses it."""
    program = step_lib.CompiledStep(decoder, config.train.remat, dtype, optimizer, mesh)
    try:
        compiled = program.compile(batch)
    except jax.errors.JaxRuntimeError as error:
        memory = step_memory(decoder, optimizer, mesh, batch)
        return replace(memory, temporary=max(0.0, refused_bytes(error) - memory.peak)), None
    memory = step_memory(decoder, optimizer, mesh, batch, compiled)
    return memory, hlo.collectives(compiled.as_text() or "")


def step_memory(
    decoder: DecoderConfig,
    optimizer,
    mesh: Mesh,
    batch,
    compiled: jax.stages.Compiled | None = None,
) -> Memory:
    """Forecast what a step takes on a device.

    Args:
      decoder: of the model, with its adapters.
      optimizer: of the run.
      mesh: the devices.
      batch: of the step, or its shapes.
      compiled: the step; None: what is temporary is left out.
    """
    shapes = step_lib.shapes(decoder, optimizer)
    layout = step_lib.shardings(decoder, optimizer, mesh)
    memory = Memory(
        parameters=held_bytes(decoder_lib.shapes(decoder), mesh_lib.param_shardings(mesh, decoder)),
        optimizer=held_bytes(shapes.opt_state, layout.opt_state),
        gradients=held_bytes(shapes.params, layout.params),  # they are sharded as parameters are
        batch=_nbytes(batch) / mesh_lib.row_shards(mesh),
        temporary=0.0,
    )
    if compiled is None:
        return memory
    stats = compiled.memory_analysis()
    assert stats
    # The compiler counts gradients among what is temporary.
    temporary = stats.temp_size_in_bytes + stats.generated_code_size_in_bytes - memory.gradients
    return replace(memory, temporary=max(0.0, temporary))


def _structs(batch):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


def _nbytes(batch) -> float:
    return float(sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(batch)))


def _mean_flops(
    decoder: DecoderConfig, counts: Mapping[Shape, int], steps: int, remat: str = "none"
) -> float:
    """Count the FLOPs of a mean step from the number of micro-batches of each shape."""
    each = (flops.forward_backward(decoder, shape, remat) * n for shape, n in counts.items())
    return sum(each) / steps


def _memory_traffic(
    decoder: DecoderConfig, mesh: Mesh, dtype: jnp.dtype, memory: Memory, micro_batches: float
) -> float:
    """Count the bytes that the memory of a device moves in a mean step, at the least."""
    layout = mesh_lib.param_shardings(mesh, decoder)
    own = held_bytes(decoder_lib.shapes(decoder), layout, dtype.itemsize)
    gathered = own * mesh.shape["fsdp"]
    saved = 2 * memory.temporary  # what is saved is written once and read once
    optimizer = OPTIMIZER_BYTES * memory.gradients / 4  # a float32 for each number that is trained
    return micro_batches * (WEIGHT_PASSES * gathered + saved) + optimizer
