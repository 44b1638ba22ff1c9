"""The session of a program: its model, and the devices and precision that it computes with."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft import config as config_lib
from jft.batch import PackingRules
from jft.checkpoints import model_ref
from jft.checkpoints.model_ref import ModelRef
from jft.checkpoints.tokenizer import Tokenizer
from jft.errors import UserError, expand
from jft.model import flops
from jft.model import mesh as mesh_lib
from jft.runtime import file_cache


@dataclass(frozen=True)
class Session:
    """The set-up that training, evaluation, studies, exports and benchmarks share.

    Devices and tokenizer are set up when they are first asked for: a program that finds its work
    done needs neither.

    Attributes:
      config: of the program.
      model: the one that `model.path` names, not loaded.
      devices: those to lay out as a mesh; None: all.
    """

    config: config_lib.Config
    model: ModelRef
    devices: tuple[jax.Device, ...] | None = None

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices, as the config lays them out.

        Raises:
          UserError: sizes of the mesh that do not multiply to the number of devices, or 64 bits.
        """
        if jax.config.read("jax_enable_x64"):
            raise UserError("JAX_ENABLE_X64 is set, but jft computes in 32 bits or fewer; unset it")
        _keep_compiled()
        if self.dtype == jnp.float32 and jax.default_backend() != "cpu":
            # Accelerators would round the factors of float32 products to fewer bits.
            jax.config.update("jax_default_matmul_precision", "highest")
        devices = None if self.devices is None else list(self.devices)
        return mesh_lib.make_mesh(self.config.mesh, devices)

    @functools.cached_property
    def dtype(self) -> jnp.dtype:
        """The type to compute in."""
        on_cpu = self.devices is None and jax.default_backend() == "cpu"
        automatic = "float32" if on_cpu else "bfloat16"
        wanted = self.config.model.dtype
        return jnp.dtype(automatic if wanted == "auto" else wanted)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, with the chat template of the config if it names one.

        Raises:
          UserError: no such file.
        """
        tokenizer, path = self.model.tokenizer(), self.config.data.chat_template
        if path:
            file = expand(path)
            try:
                tokenizer.use_chat_template(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"data.chat_template={path}: {error}; give a file") from None
        return tokenizer

    @property
    def packing(self) -> tuple[int, PackingRules]:
        """The devices that share the rows of a batch, and what packing goes by."""
        platform = self.mesh.devices.flat[0].platform
        rules = flops.packing_rules(self.model.decoder, platform)
        return mesh_lib.row_shards(self.mesh), rules


def open_session(
    config: config_lib.Config, devices: tuple[jax.Device, ...] | None = None
) -> Session:
    """Resolve the model of a config, for a program to compute with; see `Session`.

    Raises:
      UserError: no such model.
    """
    return Session(config, model_ref.resolve(config.model.path), devices)


def _keep_compiled() -> None:
    """Keep compiled programs in the user's cache folder, the small ones, too: they are many."""
    jax.config.update("jax_compilation_cache_dir", str(file_cache.folder("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
