"""Right-hand sides that nobody would write: each is solved on both paths, in a process that an abort may cost."""

from pathlib import Path

import pytest
from helpers.cases import failures, report

SCRIPT = Path(__file__).with_name("random_programs.py")


def test_some():
    found = failures(SCRIPT, "8")
    assert not found, report(found)


@pytest.mark.slow
def test_more():
    found = failures(SCRIPT, "40")
    assert not found, report(found)
