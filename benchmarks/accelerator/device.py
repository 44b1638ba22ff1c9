"""The device and the versions of a measurement, as a line of JSON.

    python -m benchmarks.accelerator.device

A process of its own, so that who asks leaves the device free.
"""

from __future__ import annotations

import json
import platform
from importlib import metadata

import jax

from jft.runtime import libtpu

PACKAGES = ("jax", "jaxlib", "flax", "optax", "tokamax", "libtpu", "jax-cuda13-plugin")


def versions() -> dict[str, str]:
    """Return the versions of Python and of what is installed of `PACKAGES`."""
    installed = {each.metadata["Name"] for each in metadata.distributions()}
    found = {name: metadata.version(name) for name in PACKAGES if name in installed}
    return {"python": platform.python_version(), **found}


if __name__ == "__main__":
    libtpu.prepare()
    devices = jax.devices()
    about = {"device": devices[0].device_kind, "number": len(devices), "versions": versions()}
    print(json.dumps(about))
