"""An evaluation on a slice: the memory that its largest batches take on a device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Wrapped

from jft import config as config_lib
from jft.batch import Shape
from jft.data import eval_batches, eval_cells
from jft.data.eval_batches import PackedCells, SlotSizes
from jft.data.eval_grid import all_cells
from jft.data.prompting.prompter import PromptEncoder
from jft.evaluation import compiled, generation
from jft.model import decoder as decoder_lib
from jft.model import flops
from jft.model import mesh as mesh_lib
from jft.model.decode import Stops
from jft.model.decoder import DecoderConfig
from jft.planning import estimate
from jft.planning.chips import Slice


@dataclass(frozen=True, slots=True)
class EvaluationMemory:
    """Bytes that the largest cell of an evaluation takes on a device, and whether they fit.

    Attributes:
      dataset, shots: dataset and number of shots of the cell.
      generates: whether texts are generated; labels are scored otherwise.
      shape: shape of a batch.
      weights: bytes of the parameters.
      cache: bytes of the KV cache of generations; 0 where the compiler refuses it alone.
      peak: bytes of all, at the worst moment.
      fits: whether the device has that many.
      split: devices that the weights are split over.
    """

    dataset: str
    shots: int
    generates: bool
    shape: Shape
    weights: float
    cache: float
    peak: float
    fits: bool
    split: int

    @property
    def working(self) -> float:
        """Bytes of what programs work in and return at the worst moment."""
        return self.peak - self.weights - self.cache


def evaluation_memory(
    config: config_lib.Config,
    decoder: DecoderConfig,
    tokenizer: PromptEncoder,
    on: Slice,
    devices: list,
) -> list[EvaluationMemory]:
    """Plan the cells of an evaluation, and compile the largest of each kind.

    Returns:
      The memory for the largest cell whose labels are scored, then for the largest for which texts
      are generated, as far as there are such cells.

    Raises:
      UserError: data or mesh that do not fit.
    """
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    mesh_lib.check_model(mesh, decoder)
    on_devices = mesh_lib.row_shards(mesh), flops.packing_rules(decoder, "tpu")
    cells = [eval_cells.encode_cell(cell, tokenizer, config) for cell in all_cells(config)]
    packed = eval_batches.pack_cells(cells, config, *on_devices)
    kinds = ([each for each in packed if bool(each.slots) is wanted] for wanted in (False, True))
    return [_largest(config, decoder, on, mesh, kind) for kind in kinds if kind]


def _largest(
    config: config_lib.Config,
    decoder: DecoderConfig,
    on: Slice,
    mesh: Mesh,
    packed: list[PackedCells],
) -> EvaluationMemory:
    largest = max(packed, key=_tokens)
    dtype, layout = estimate.compute_dtype(config), mesh_lib.param_shardings(mesh, decoder)
    shapes = jax.tree.map(lambda x: x.update(dtype=dtype), decoder_lib.shapes(decoder))
    weights = estimate.held_bytes(shapes, layout)
    params = jax.tree.map(_shape, shapes, layout)
    rows = mesh_lib.row_sharding(mesh, leading=0)
    batch = jax.tree.map(lambda x: _shape(x, rows), next(largest.batches())[0])
    programs = compiled.programs(decoder, mesh, dtype, config.eval.max_new_tokens)
    device, cache, refused = _Device(weights), 0.0, False
    try:
        with jax.set_mesh(mesh):
            if slots := largest.slots:
                try:
                    state = device.run(programs["init_slots"], slots.num_slots, slots.slot_tokens)
                finally:
                    cache = device.peak - weights
                stops = Stops._make((_numbers(1), _numbers(decoder.vocab_size, dtype=jnp.uint8)))
                _generate(device, programs, slots, params, batch, state, stops)
            else:
                device.run(programs["token_logprobs"], params, batch)
    except _RefusedError:
        refused = True
    return EvaluationMemory(
        dataset=largest.cells[0].cell.dataset.name,
        shots=largest.cells[0].cell.shots,
        generates=bool(largest.slots),
        shape=largest.shape,
        weights=weights,
        cache=cache,
        peak=device.peak,
        fits=not refused and device.peak <= on.chip.memory,
        split=mesh.shape["fsdp"] * mesh.shape["tensor"],
    )


def _tokens(packed: PackedCells) -> int:
    """Count the tokens of a batch and of the slots of the KV cache."""
    slots = packed.slots.num_slots * packed.slots.slot_tokens if packed.slots else 0
    return packed.shape.rows * packed.shape.row_length + slots


class _Device:
    """The bytes that a device holds while programs run on it, one after the other.

    Attributes:
      held: bytes of parameters and of what programs have returned.
      peak: the most bytes at any moment, with what programs work in.
    """

    def __init__(self, held: float):
        self.held = self.peak = held

    def run(self, program, *args):
        """Compile a program, and count what it returns as held by the device.

        Returns:
          The shapes and layouts of what the program would return.

        Raises:
          _RefusedError: the compiler finds no room for the program.
        """
        lowered = program.lower(*args)
        try:
            executable = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            beside = self.held - sum(map(_bytes, jax.tree.leaves(args)))
            self.peak = max(self.peak, beside + estimate.refused_bytes(error))
            raise _RefusedError from None
        stats = executable.memory_analysis()
        assert stats
        self.held += stats.output_size_in_bytes - stats.alias_size_in_bytes
        self.peak = max(self.peak, self.held + stats.temp_size_in_bytes)
        return jax.tree.map(_shape, lowered.out_info, executable.output_shardings)


class _RefusedError(Exception):
    """A program for which the compiler finds no room."""


def _generate(
    device: _Device,
    programs: dict[str, Wrapped],
    sizes: SlotSizes,
    params,
    batch,
    state,
    stops: Stops,
) -> None:
    """Run all programs of `generation.generate_tokens` after that which creates its slots."""
    before = device.held
    prefilled = device.run(programs["prefill"], params, batch)
    batch_bytes = device.held - before
    prefix = device.run(programs["prefix_cache"], sizes.prefix_size, prefilled, _numbers())
    prompts = jax.tree.map(lambda x: _numbers(*x.shape), generation.no_prompts(sizes))
    device.run(programs["insert"], state, prefilled, prompts, stops)
    device.run(programs["decode"], params, state, prefix, stops, _numbers(sizes.shards))
    device.held -= batch_bytes  # slots are compacted when the last prompts are inserted
    device.run(programs["compact"], state, prompts.slot_I)


def _bytes(x) -> float:
    """Count the bytes of an argument on a device; 0 of what is no array."""
    if not isinstance(x, jax.ShapeDtypeStruct):
        return 0.0
    shape = x.sharding.shard_shape(x.shape) if x.sharding else x.shape
    return float(math.prod(shape) * x.dtype.itemsize)


def _shape(x, layout) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)


def _numbers(*shape: int, dtype=jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
