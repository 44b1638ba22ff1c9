"""What training and evaluation set up alike: devices, precision, compilation cache."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft import config as config_lib
from jft.training import mesh as mesh_lib

CACHE_SWITCH = "jax_enable_compilation_cache"


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compile what is compiled in here anew."""
    before = getattr(jax.config, CACHE_SWITCH)
    jax.config.update(CACHE_SWITCH, False)
    try:
        yield
    finally:
        jax.config.update(CACHE_SWITCH, before)


def devices(config: config_lib.Config) -> tuple[Mesh, jnp.dtype]:
    """The mesh, and the type to compute in."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(cache) / "jft" / "xla"))
    on_cpu = jax.default_backend() == "cpu"
    automatic = "float32" if on_cpu else "bfloat16"
    dtype = jnp.dtype(automatic if config.model.dtype == "auto" else config.model.dtype)
    if dtype == jnp.float32 and not on_cpu:
        # Accelerators would round the factors of float32 products to fewer bits.
        jax.config.update("jax_default_matmul_precision", "highest")
    return mesh_lib.create(config.mesh), dtype
