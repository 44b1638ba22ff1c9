"""How the tests' programs are compiled: it takes most of the tests' time, and they are tiny."""

QUICKLY = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1 --xla_llvm_disable_expensive_passes=true"
)


def devices(number: int) -> str:
    """Flags for so many CPU devices."""
    return f"--xla_force_host_platform_device_count={number} {QUICKLY}"
