"""Settings of libtpu for a machine without a TPU, where it only compiles for others.

JAX loads libtpu wherever it is installed. Without these settings it then looks for a TPU, waits for
Google's metadata server, and prints errors about what it does not find.
"""

from __future__ import annotations

import os
from pathlib import Path

# Answers to what libtpu would ask the metadata server; no lock on the machine's TPUs; no messages.
SETTINGS = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
# Google's id among the vendors of PCI devices.
VENDOR = "0x1ae0"
# Device files of TPUs.
NODES = "accel*", "vfio/[0-9]*"


def prepare() -> None:
    """Apply the settings, unless this machine may have a TPU."""
    if not _may_have_tpu(Path("/dev"), Path("/sys/bus/pci/devices")):
        only_compile()


def only_compile() -> None:
    """Apply the settings to the environment; to be called before JAX is first used."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def _may_have_tpu(dev: Path, pci: Path) -> bool:
    return any(node for pattern in NODES for node in dev.glob(pattern)) or any(
        vendor.read_text().strip() == VENDOR for vendor in pci.glob("*/vendor")
    )
