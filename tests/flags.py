"""How the tests' programs are compiled: it takes most of the tests' time, and they are tiny."""

from importlib import metadata

QUICKLY = (
    "--xla_backend_optimization_level=0"
    " --xla_cpu_parallel_codegen_split_count=1 --xla_llvm_disable_expensive_passes=true"
)
# XLA ends a process that names a flag which it does not have (any more).
if tuple(map(int, metadata.version("jax").split(".")[:2])) < (0, 12):
    QUICKLY += " --xla_cpu_use_fusion_emitters=false"


def devices(number: int) -> str:
    """Flags for so many CPU devices."""
    return f"--xla_force_host_platform_device_count={number} {QUICKLY}"
