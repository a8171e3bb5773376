"""How much memory there is: of the machine, of control groups, and what a process holds."""

import subprocess
import sys

import pytest
import torch

from mico_competition.support import cpus
from mico_competition.support import memory_limits as memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")

GIB = 2**30
MACHINE = f"MemTotal: {8 * GIB // 1024} kB\nMemAvailable: {4 * GIB // 1024} kB\nSwapFree: 1024 kB\n"


@pytest.mark.parametrize(
    ("groups", "files", "limit", "free"),
    [
        ("0::/\n", {}, None, 4 * GIB + 2**20),
        ("0::/job\n", {"job/memory.max": "max"}, None, 4 * GIB + 2**20),
        (
            "0::/job/step\n",
            {
                "job/memory.max": str(2 * GIB),
                "job/memory.current": str(GIB),
                "job/memory.stat": f"anon 7\ninactive_file {GIB // 2}\n",
            },
            2 * GIB,
            3 * GIB // 2,
        ),
        (
            "4:memory:/docker\n",
            {
                "memory/docker/memory.limit_in_bytes": str(GIB),
                "memory/docker/memory.usage_in_bytes": str(2 * GIB),
                "memory/memory.limit_in_bytes": str(2**63 - 4096),
                "memory/memory.usage_in_bytes": "1",
            },
            GIB,
            0,
        ),
    ],
)
def test_the_machine_and_control_groups_bound_it(tmp_path, monkeypatch, groups, files, limit, free):
    (tmp_path / "cgroup").write_text(groups)
    (tmp_path / "meminfo").write_text(MACHINE)
    for name, text in files.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(text)
    whole = memory.all_memory()
    monkeypatch.setattr(cpus, "_PROC", tmp_path / "cgroup")
    monkeypatch.setattr(cpus, "_CGROUPS", tmp_path / "sys")
    monkeypatch.setattr(memory, "_MACHINE", tmp_path / "meminfo")
    assert memory.free_memory() == free
    assert limit is None or memory.all_memory() == min(limit, whole)
    (tmp_path / "meminfo").unlink()
    assert memory.free_memory() == (None if limit is None else free)


def test_the_peak_is_of_what_happened_since():
    """In a process of its own: after a training run glibc keeps what is freed."""
    code = (
        "import torch; from mico_competition.support import memory_limits as memory;"
        "torch.ones(30_000_000).sum(); peak = memory.PeakMemory(); print(peak.growth());"
        "torch.ones(20_000_000).sum(); print(peak.growth());"
        "print(memory.own_memory(), peak.begun)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    before, growth, own, begun = map(int, finished.stdout.split())
    assert before < 10_000_000 and 70_000_000 < growth < 200_000_000, finished.stderr
    assert 10**7 < own < begun + 10**8


def test_errors_of_libraries_that_say_memory():
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried"))
    assert memory.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not memory.is_out_of_memory(ValueError("out of memory"))
