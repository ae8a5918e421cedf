"""The demonstration runs, says the numbers it should, and leaves its pictures."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxdiffeq import __main__ as demo

PICTURES = ["lotka_volterra.png", "lotka_volterra_phase.png", "spiral.gif", "spiral.png"]


@pytest.mark.slow
def test_the_quick_demonstration(tmp_path, capsys, monkeypatch, loose_dtypes):
    monkeypatch.setattr(demo, "STRATEGIES", ("ReverseAD", "ForwardAD"))  # the others have their own tests
    demo.main(["--quick", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == PICTURES
    for name in PICTURES:
        with Image.open(tmp_path / name) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 5  # not blank
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(("ReverseAD", "ForwardAD"))]
    assert [row[1] for row in rows] == ["4324.598", "4324.598"]
    assert all(float(row[6]) < 1e-7 for row in rows)
    assert "NOT below 1e-06" in text  # so few steps do not suffice, and it says so


def test_the_spiral_is_the_spiral():
    (u,) = demo.spirals(demo.truth, [demo.START], demo.POINTS)
    np.testing.assert_allclose(u[1], [1.9465030227663, 0.7988308300774], rtol=1e-7)
    np.testing.assert_allclose(u[-1], [1.2919915629768, 0.9725860744344], rtol=1e-7)


def test_the_network_has_252_parameters():
    net = demo.Cubic(jax.random.PRNGKey(0))
    assert sum(x.size for x in jax.tree.leaves(net) if hasattr(x, "size")) == 252
    assert net(np.array([1.0, -1.0])).shape == (2,)
