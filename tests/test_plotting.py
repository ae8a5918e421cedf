"""Pictures: what is drawn is what was solved."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

import jaxdiffeq as jde
from jaxdiffeq import plotting


def field(t, y, args):
    return {"fox": -y["fox"], "hare": jnp.array([[0.0, 1.0], [-1.0, 0.0]]) @ y["hare"]}


PROBLEM = jde.ODEProblem(field, {"fox": jnp.array(1.0), "hare": jnp.array([0.0, 1.0])}, (0.0, 2.0))


@pytest.fixture(scope="module")
def smooth():
    return jde.solve(PROBLEM, jde.Tsit5(), dense=True, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def sampled():
    return jde.solve(PROBLEM, jde.Tsit5(), saveat=np.linspace(0.0, 2.0, 5), rtol=1e-6, atol=1e-8)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_all_components_against_time(smooth):
    ax = smooth.plot()
    assert [line.get_label() for line in ax.lines] == ["fox", "hare[0]", "hare[1]"]
    assert ax.get_xlabel() == "t"
    for line, exact in zip(ax.lines, (lambda t: np.exp(-t), np.sin, np.cos), strict=True):
        t, y = line.get_data()
        assert len(t) >= plotting.SMOOTH  # many more than steps
        np.testing.assert_allclose(y, exact(t), atol=1e-5)


def test_without_dense_output_what_was_saved_is_drawn(sampled):
    t, y = sampled.plot(vars="fox").lines[0].get_data()
    np.testing.assert_array_equal(t, sampled.ts)
    np.testing.assert_array_equal(y, sampled.ys["fox"])


@pytest.mark.parametrize(
    ("vars", "names"),
    [
        ([1], ["hare[0]"]),
        (-1, ["hare[1]"]),
        ("fox", ["fox"]),
        (["hare[1]", 0], ["hare[1]", "fox"]),
    ],
)
def test_components_by_number_and_path(sampled, vars, names):
    ax = sampled.plot(vars=vars)
    assert [line.get_label() for line in ax.lines] == names
    if len(names) == 1:
        assert ax.get_ylabel() == names[0]


def test_a_phase_portrait(smooth):
    ax = smooth.plot(vars=("hare[0]", 2), labels=("young", "old"))
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(x**2 + y**2, 1.0, atol=1e-5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("young", "old")
    assert ax.lines[1].get_data() == ([0.0], [1.0])  # where it starts


def test_a_phase_portrait_in_space(smooth):
    ax = smooth.plot(vars=("t", 0, 1))
    t, x, y = ax.lines[0].get_data_3d()
    np.testing.assert_allclose(x, np.exp(-t), atol=1e-5)
    np.testing.assert_allclose(y, np.sin(t), atol=1e-5)
    assert ax.get_zlabel() == "hare[0]"


def test_log_axes_and_given_axes(sampled):
    _, ax = plt.subplots()
    assert sampled.plot(vars=0, ax=ax, log="y", color="k") is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert ax.lines[0].get_color() == "k"


def test_saved_points_are_marked(sampled):
    ax = sampled.plot(vars=[0], mark_saved=True)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), sampled.ys["fox"])


@pytest.mark.parametrize("vars", [3, -4, "wolf", "hare", ["hare[2]"]])
def test_a_component_that_is_not_there(sampled, vars):
    with pytest.raises(ValueError, match=r"no component .* there are 3, among them 'fox'"):
        sampled.plot(vars=vars)


def test_too_many_dimensions(sampled):
    with pytest.raises(ValueError, match="two or three components"):
        sampled.plot(vars=(0, 1, 2, 0))


def test_a_batch_is_refused(sampled):
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], sampled)
    with pytest.raises(ValueError, match="a batch of solutions"):
        batch.plot()


def test_names_of_components():
    names = lambda y0: list(plotting.components(jax.tree.map(lambda x: np.asarray(x)[None], y0)))
    assert names(1.0) == [""]
    assert names(np.ones(2)) == ["[0]", "[1]"]
    assert names((1.0, {"a": np.ones((1, 2))})) == ["0", "1.a[0, 0]", "1.a[0, 1]"]


def test_work_and_precision():
    results = {"Tsit5": [(1e-3, 1.0), (1e-6, 4.0)], "Vern7": [(1e-4, 2.0), (1e-9, 5.0)]}
    ax = plotting.plot_work_precision(results, work="seconds")
    assert [line.get_label() for line in ax.lines] == ["Tsit5", "Vern7"]
    np.testing.assert_array_equal(ax.lines[0].get_data(), ([1e-6, 1e-3], [4.0, 1.0]))
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_ylabel()) == ("log", "log", "seconds")


def test_convergence_says_the_slope():
    dts = np.array([0.1, 0.05, 0.025])
    ax = plotting.plot_convergence({"RK4": (dts, 3.0 * dts**4)})
    assert ax.lines[0].get_label() == "RK4, slope 4.00"


def test_an_animation(tmp_path):
    def draw(ax, frame):
        ax.plot([0, 1], [0, frame])
        ax.set_ylim(0, 3)

    path = plotting.animate_training([1, 2, 3], draw, tmp_path / "learning.gif", seconds=0.2, hold=1.0)
    with Image.open(path) as gif:
        assert isinstance(gif, GifImageFile) and gif.n_frames == 3
        shown = []
        for i in range(3):
            gif.seek(i)
            shown.append(gif.info["duration"])
    assert shown == [200, 200, 1000]
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="`frames` is empty"):
        plotting.animate_training([], draw, tmp_path / "nothing.gif")


def test_matplotlib_is_loaded_when_it_is_needed_and_missed_by_name():
    """In a Python of its own, where it can't be imported."""
    script = """
import sys
sys.modules["matplotlib"] = None
import jaxdiffeq as jde
sol = jde.solve(jde.ODEProblem(lambda t, y, _: y, 1.0, (0.0, 1.0)), saveat=[1.0])
try:
    sol.plot()
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 'pip install "jaxdiffeq[plot]"' in done.stdout


def test_options_as_matplotlib_has_them():
    sol = jde.solve(jde.ODEProblem(lambda t, y, args: -y, jnp.ones(2), (0.0, 1.0)), jde.BS3())
    ax = sol.plot(0, label="first", title="decay", xlabel="time", ylim=(0.0, 2.0), figsize=(3.0, 2.0), lw=3)
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel(), ax.get_ylim()) == ("decay", "time", "y[0]", (0.0, 2.0))
    assert tuple(ax.figure.get_size_inches()) == (3.0, 2.0)
    assert sol.plot(0, ax=ax, label="second", linestyle="--", color="k") is ax
    legend = lambda ax: [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend(ax) == ["first", "second"]
    assert legend(sol.plot(label="both")) == ["both, y[0]", "both, y[1]"]
    assert legend(sol.plot(label=["a", "b"])) == ["a", "b"]
    assert legend(sol.plot((0, 1), label="orbit", title="plane")) == ["orbit"]
    with pytest.raises(ValueError, match="there are 2 curves, but 3 names for them"):
        sol.plot(label=["a", "b", "c"])
