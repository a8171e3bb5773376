"""Memory that a step frees is not given back to the system, which would clear it for the next."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from mico_competition.support.memory import keep_freed_memory
torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        kept = [torch.zeros(5_000_000) for _ in range(3)]  # 20 MB each
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.zeros(50_000_000)
first = faults()
taken = keep_freed_memory()
faults()
print(taken, first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_steps_that_free_and_take_memory_cause_no_page_faults():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120
    )
    taken, before, after = done.stdout.split()
    assert taken == "True" and int(before) > 10_000 and int(after) < 100
