"""libtpu on a machine without a TPU, where it only compiles for others: kept from asking for one.

JAX loads it wherever it is installed, and it complains to standard error of what it does not find.
"""

from __future__ import annotations

import os
from pathlib import Path

# What libtpu would ask a metadata server, complain of, or lock.
NOWHERE = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
# Google's, among the vendors of what is on the PCI bus.
VENDOR = "0x1ae0"
NODES = "accel*", "vfio/[0-9]*"


def prepare() -> None:
    """As `only_compile`, unless this machine may have a TPU."""
    if not _may_have_tpu(Path("/dev"), Path("/sys/bus/pci/devices")):
        only_compile()


def only_compile() -> None:
    """Say in the environment that there is none; before JAX is first used."""
    for name, value in NOWHERE.items():
        os.environ.setdefault(name, value)


def _may_have_tpu(dev: Path, pci: Path) -> bool:
    return any(node for pattern in NODES for node in dev.glob(pattern)) or any(
        vendor.read_text().strip() == VENDOR for vendor in pci.glob("*/vendor")
    )
