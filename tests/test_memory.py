"""What is freed stays with the process, and comes back without page faults."""

import subprocess
import sys

import pytest

from jft.evaluation import memory

USE_TWICE = """
import ctypes, resource
from jft.evaluation import memory

if {keep}:
    memory.keep_freed()
libc, size = ctypes.CDLL(None), 64 << 20
libc.malloc.restype = ctypes.c_void_p
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    ctypes.memset(block, 1, size)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    code = USE_TWICE.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not memory.applies(), reason="the C library is not glibc")
def test_the_second_use_of_a_large_block_faults_no_pages(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert faults(keep=True) < 100 < 10_000 < faults(keep=False)
