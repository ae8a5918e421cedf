"""Of the wall the quick part runs by default; its sweeps by `pytest -m sweep`, and in the scheduled workflow."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("smoke") is None:
            item.add_marker("sweep")
