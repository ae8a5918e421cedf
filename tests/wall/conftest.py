"""Of the wall the quick part runs by default; its sweeps by `pytest -m sweep`, and in the scheduled workflow."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
SHORT = {"test_failures_and_zeros.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        long = HERE in item.path.parents and item.path.name not in SHORT
        if long and item.get_closest_marker("smoke") is None:
            item.add_marker("sweep")
