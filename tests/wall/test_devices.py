"""Many devices, donation, export, the cache on disk and fresh memory; each batch of cases in a process of its own."""

import os
from pathlib import Path

import jax
import pytest
from helpers.cases import failures, report

SCRIPT = Path(__file__).with_name("on_devices.py")
FOUR = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(jax.default_backend() != "cpu", reason="four devices made of one CPU"),
]


@pytest.mark.parametrize("batch", ["devices", "donation", "export"])
def test_batches(batch):
    found = failures(SCRIPT, batch, XLA_FLAGS=FOUR)
    assert not found, report(found)


def test_what_is_not_written_is_not_read():
    """The allocator fills what it hands out: zeros that nobody has written are gone."""
    found = failures(SCRIPT, "memory", XLA_FLAGS=FOUR, MALLOC_PERTURB_="85")
    assert not found, report(found)


def test_cache_on_disk(tmp_path):
    """The second process finds what the first has compiled."""
    for _ in range(2):
        found = failures(SCRIPT, "cache", str(tmp_path), XLA_FLAGS=FOUR)
        assert not found, report(found)
        assert os.listdir(tmp_path)
