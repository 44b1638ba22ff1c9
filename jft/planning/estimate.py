"""A run on a slice: what the compiler says of its step, and what follows for time and money."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft import config as config_lib
from jft.batch import Shape
from jft.checkpoints import weights
from jft.data import prefix_tree
from jft.data import train_batches as batches_lib
from jft.data.prompts import Encoder
from jft.errors import UserError
from jft.model import decoder as decoder_lib
from jft.model import flops
from jft.model import mesh as mesh_lib
from jft.model.decoder import DecoderConfig
from jft.planning import hlo
from jft.planning.chips import Slice
from jft.planning.hlo import Traffic
from jft.training import optim
from jft.training import step as step_lib

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# Passes over the weights of a micro-batch, in the type to compute in; bytes that the optimizer
# reads and writes of each: gradient, two moments and the weight, and the last three again.
PASSES, OPTIMIZER_BYTES = 3, 28


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a device, of which a step needs the sum.

    `temporary` is what the compiler wants for all else: activations that are kept, gathered
    weights, and what the kernels work in. None where it refused before it had counted.
    """

    parameters: float
    optimizer: float
    gradients: float
    batch: float
    temporary: float

    @property
    def peak(self) -> float:
        """All of it."""
        return self.parameters + self.optimizer + self.gradients + self.batch + self.temporary


@dataclass(frozen=True, slots=True)
class Estimate:
    """What planning a run finds.

    Attributes:
      sizes: of the mesh.
      remat, micro_batch_tokens: as the config's.
      shape: of the largest micro-batch, which decides the memory.
      memory: of a device.
      fits: whether the compiler has found room for it.
      flops: of a mean step, over all devices.
      traffic: of one micro-batch and device, by kind of collective.
      compute, memory_time, link_time: seconds of a mean step, each if it were the only limit.
      steps: of the run.
      tokens: of the run's rows, padding aside.
      filled: which share of the rows they are.
    """

    sizes: dict[str, int]
    remat: str
    micro_batch_tokens: int
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
        """Seconds of a step at the least: the slowest of the three, if they overlap wholly."""
        return max(self.compute, self.memory_time, self.link_time)


def training(
    config: config_lib.Config, decoder: DecoderConfig, tokenizer: Encoder, on: Slice, devices: list
) -> Estimate:
    """Plan the data, compile the largest step, and read off what it takes.

    Raises:
      UserError: data or mesh that do not fit.
    """
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    mesh_lib.param_shardings(
        mesh, decoder
    )  # refuses what the mesh does not divide, before slow work
    batches = batches_lib.plan(config, tokenizer, mesh_lib.row_shards(mesh))
    shape = max(batches.shapes, key=lambda each: each.rows * each.row_length)
    optimizer = optim.create(config.optim, batches.steps)
    dtype = compute_type(config)
    decoder = replace(decoder, adapters=weights.adapters_of(config.lora, dtype))
    program = step_lib.Program(decoder, config.train.remat, dtype, optimizer, mesh)
    batch = _shapes(batches.batch(batches.shapes.index(shape)))
    parts = _state_bytes(decoder, optimizer, mesh)
    held = Memory(*parts, batch=_nbytes(batch) / mesh_lib.row_shards(mesh), temporary=0.0)
    traffic: dict[str, Traffic] = {}
    try:
        compiled = program.compile(batch)
    except jax.errors.JaxRuntimeError as error:
        held, fits = replace(held, temporary=refused(error) - held.gradients), False
    else:
        stats, traffic = compiled.memory_analysis(), hlo.collectives(compiled.as_text() or "")
        assert stats
        temporary = stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
        held = replace(held, temporary=max(0.0, temporary - held.gradients))
        fits = held.peak <= on.chip.memory
    counts = batches.micro_batches
    needed = sum(flops.training(decoder, each) * number for each, number in counts.items())
    done = needed
    if config.train.remat == "full":  # the forward pass once more
        done += sum(flops.forward(decoder, each) * number for each, number in counts.items())
    micro_batches = sum(counts.values()) / batches.steps
    filled = sum(
        prefix_tree.count(batches.packed(step)).row_tokens for step in range(batches.steps)
    )
    held_weights, chip = _own_weights(decoder, mesh), on.chip
    bandwidth = _weight_traffic(held_weights, held, micro_batches, dtype, mesh)
    return Estimate(
        sizes=dict(mesh.shape),
        remat=config.train.remat,
        micro_batch_tokens=config.train.micro_batch_tokens,
        shape=shape,
        memory=held,
        fits=fits,
        flops=needed / batches.steps,
        traffic=traffic,
        compute=done / batches.steps / (on.number * chip.flops),
        memory_time=bandwidth / chip.memory_bandwidth,
        link_time=micro_batches * sum(x.bytes for x in traffic.values()) / chip.link_bandwidth,
        steps=batches.steps,
        tokens=filled,
        filled=filled / sum(each.rows * each.row_length * n for each, n in counts.items()),
    )


def compute_type(config: config_lib.Config) -> jnp.dtype:
    """What a chip computes in."""
    return jnp.dtype("bfloat16" if config.model.dtype == "auto" else config.model.dtype)


def _shapes(batch):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


def held_bytes(tree, layout) -> float:
    """Bytes that a device has of arrays with these shardings."""
    sizes = jax.tree.map(
        lambda x, sharding: math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize,
        tree,
        layout,
    )
    return float(sum(jax.tree.leaves(sizes)))


def _own_weights(decoder: DecoderConfig, mesh: Mesh) -> float:
    """How many of the decoder's numbers a device holds."""
    sizes = jax.tree.map(
        lambda x, sharding: math.prod(sharding.shard_shape(x.shape)),
        decoder_lib.shapes(decoder),
        mesh_lib.param_shardings(mesh, decoder),
    )
    return float(sum(jax.tree.leaves(sizes)))


def _state_bytes(decoder: DecoderConfig, optimizer, mesh: Mesh) -> tuple[float, float, float]:
    """Of a device: parameters, optimizer, and gradients, which lie as the parameters do."""
    shapes = step_lib.shapes(decoder, optimizer)
    layout = step_lib.shardings(decoder, optimizer, mesh)
    parameters = held_bytes(decoder_lib.shapes(decoder), mesh_lib.param_shardings(mesh, decoder))
    gradients = held_bytes(shapes.params, layout.params)
    return parameters, held_bytes(shapes.opt_state, layout.opt_state), gradients


def _nbytes(batch) -> float:
    return float(sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(batch)))


def refused(error: Exception) -> float:
    """The bytes that the compiler says it would have needed beside its arguments."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
        first = text.splitlines()[0]
        raise UserError(f"the step cannot be compiled for these devices: {first}") from None
    match = re.search(r"(?:\(|Used )([\d.]+)([KMG])", text)
    return float(match[1]) * UNITS[match[2]] if match else math.inf


def _weight_traffic(
    weights: float, held: Memory, micro_batches: float, dtype: jnp.dtype, mesh: Mesh
) -> float:
    """Bytes that the memory of a device with so many weights moves in a step, at the least."""
    whole = weights * mesh.shape["fsdp"] * dtype.itemsize
    kept = 2 * held.temporary  # what is kept is written once and read once
    # Gradients are float32, one for each number that is trained.
    return micro_batches * (PASSES * whole + kept) + OPTIMIZER_BYTES * held.gradients / 4
