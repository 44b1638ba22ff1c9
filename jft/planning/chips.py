"""Accelerators that a run can be planned for, and slices of them.

Figures are those of the makers' data sheets; usable memory is what XLA reports as available.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from importlib.util import find_spec

import jax

from jft.errors import UserError
from jft.runtime import libtpu

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Chip:
    """One accelerator.

    Attributes:
      flops: bfloat16 operations per second, at most.
      memory: usable bytes.
      memory_bandwidth: bytes per second of its own memory.
      link_bandwidth: bytes per second to its neighbours, in and out together.
      slices: topologies of TPUs, the smallest first; none for other accelerators.
      cores: cores of a chip, which are what names of accelerator types count: v5p-16 has 8 chips.
      config: name by which libtpu shows a chip as one device.
    """

    flops: float
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    slices: tuple[str, ...] = ()
    cores: int = 1
    config: str = "default"


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
CHIPS = {
    "v4": Chip(275e12, 30.75 * GIB, 1228e9, 300e9, CUBES, cores=2, config="megacore"),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 200e9, FLAT),
    "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 600e9, CUBES, cores=2),
    "v6e": Chip(918e12, 31.25 * GIB, 1640e9, 448e9, FLAT),
    "a100": Chip(312e12, 79.1 * GIB, 2039e9, 600e9),
    "h100": Chip(989e12, 79.1 * GIB, 3350e9, 900e9),
    "h200": Chip(989e12, 139.8 * GIB, 4800e9, 900e9),
    # A machine of no particular kind, to look at a layout.
    "cpu": Chip(1e12, 64 * GIB, 50e9, 10e9),
}
# Other names of kinds, as accelerator types have them.
ALIASES = {"v5litepod": "v5e", "v5lite": "v5e"}
# TPUs that a run on GPUs is compiled for where there are no GPUs.
STAND_IN = "v5p"
# The most chips of a kind without topologies: a device of this process stands for each.
MOST = 512
USAGE = "v5e:4x4, v5p:2x2x4, an accelerator type such as v5litepod-16, or h100:8"


@dataclass(frozen=True, slots=True)
class Slice:
    """Chips that work together.

    Attributes:
      name: the slice as the user names it.
      kind: key of `CHIPS`.
      number: number of chips.
      topology: how TPUs are connected, such as 4x4; empty for other chips.
    """

    name: str
    kind: str
    number: int
    topology: str = ""

    @property
    def chip(self) -> Chip:
        """One of the chips."""
        return CHIPS[self.kind]

    def devices(self) -> list[jax.Device]:
        """Return devices to compile for, those of `stand_in` where the slice's are not here."""
        if self.topology:
            return _tpus(self)
        if jax.default_backend() == "gpu" and len(jax.devices()) >= self.number:
            return jax.devices()[: self.number]
        if stand_in := self.stand_in:
            return _tpus(stand_in)
        return jax.devices("cpu")[: self.number]

    @property
    def stand_in(self) -> Slice | None:
        """The slice of as many TPUs, whose compiler is nearer to that of GPUs than the CPUs' is.

        XLA:CPU computes in float32 what is bfloat16, on copies of the weights. None where TPUs have
        no slice of this number, or without libtpu.
        """
        shapes = {_chips(shape): shape for shape in ("1x1x1", *CUBES)}
        if self.kind == "cpu" or self.number not in shapes or not find_spec("libtpu"):
            return None
        return Slice(self.name, STAND_IN, self.number, shapes[self.number])


def parse_slice(topology: str) -> Slice:
    """Parse `--topology`, which `USAGE` shows in all its notations.

    Raises:
      UserError: an unknown kind of chip, or a slice that this kind does not have.
    """
    match = re.fullmatch(r"([a-z0-9]+)[:-]([0-9]+(?:x[0-9]+)*)", topology.lower())
    kind = ALIASES.get(match[1], match[1]) if match else ""
    if not match or kind not in CHIPS:
        raise UserError(f"--topology={topology}: is written {USAGE}; chips: {', '.join(CHIPS)}")
    chip, shape = CHIPS[kind], match[2]
    if not chip.slices:
        if not shape.isdecimal() or not int(shape):
            raise UserError(f"--topology={topology}: how many? such as {kind}:8")
        if int(shape) > MOST:
            raise UserError(f"--topology={topology}: {MOST} are the most that can be planned for")
        return Slice(topology, kind, int(shape))
    if shape.isdecimal():
        number = int(shape) // chip.cores
        fitting = [each for each in chip.slices if _chips(each) == number]
        if not fitting:
            types = ", ".join(f"{kind}-{_chips(each) * chip.cores}" for each in chip.slices)
            raise UserError(f"--topology={topology}: there are {types}")
        return Slice(topology, kind, number, fitting[0])
    if shape.count("x") != chip.slices[0].count("x"):
        raise UserError(f"--topology={topology}: is written {kind}:{chip.slices[2]}")
    return Slice(topology, kind, _chips(shape), shape)


def _chips(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))


def _tpus(of: Slice) -> list[jax.Device]:
    libtpu.only_compile()
    from jax.experimental import topologies

    hosts = [2, 2, 1] if of.number > 1 else [1, 1, 1]
    try:
        found = topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{of.kind}:{of.topology}",
            chips_per_host_bounds=hosts,
            num_slices=1,
            chip_config_name=of.chip.config,
        )
    except (ImportError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"--topology={of.name}: cannot be compiled for: {first}; give another shape"
            + ", or install libtpu by jft's extra `plan`" * isinstance(error, ImportError)
        ) from None
    return list(found.devices)
