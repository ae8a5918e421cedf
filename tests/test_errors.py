"""Bad input is refused before anything is compiled, by a message that says what came and what to do."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq import errors


def decay(t, y, args):
    return jax.tree.map(lambda x: -x, y)


def attempt(f=decay, y0=1.0, tspan=(0.0, 1.0), method=None, **options):
    return jde.solve(jde.ODEProblem(f, y0, tspan), jde.Tsit5() if method is None else method, **options)


TREE = {"a": jnp.ones((2, 3)), "b": [jnp.ones(4), 1.0]}

REFUSED = {
    # f
    "f is no function": ({"f": 3.0}, TypeError, r"`f` must be a function f\(t, y, args\), but is float: 3.0"),
    "f takes two": ({"f": lambda t, y: y}, TypeError, r"`f` must take 3 arguments.*its signature is \(t, y\)"),
    "f takes four": ({"f": lambda t, y, args, more: y}, TypeError, r"missing a required argument: 'more'"),
    "shape": (
        {"f": lambda t, y, args: {"a": y["a"], "b": [y["b"][0][:2], y["b"][1]]}, "y0": TREE},
        ValueError,
        r"for `y0\['b'\]\[0\]` of shape \(4,\) it returned \(2,\)",
    ),
    "shape that broadcasts": ({"f": lambda t, y, args: y[:1], "y0": jnp.ones(3)}, ValueError, r"`y0` of shape \(3,\)"),
    "structure": ({"f": lambda t, y, args: (y,)}, TypeError, r"f must return the same pytree as `y0`, but returned"),
    "no return": ({"f": lambda t, y, args: None}, TypeError, r"returned PyTreeDef\(None\)"),
    "list for array": (
        {"f": lambda t, y, args: [y[0], y[1]], "y0": jnp.ones(2)},
        TypeError,
        r"the same pytree as `y0`",
    ),
    "complex slope": (
        {"f": lambda t, y, args: {"u": y["u"].astype(complex)}, "y0": {"u": 1.0}},
        TypeError,
        r"complex numbers for `y0\['u'\]`, which is float64. Give a complex `y0`",
    ),
    # y0
    "NaN": ({"y0": {"a": [1.0, np.nan]}}, ValueError, r"`y0\['a'\]\[1\]` must be finite, but is nan"),
    "infinite": ({"y0": jnp.array([1.0, np.inf])}, ValueError, r"`y0` must be finite"),
    "empty": ({"y0": {}}, ValueError, r"`y0` holds no numbers"),
    "none": ({"y0": None}, ValueError, r"`y0` holds no numbers"),
    "text": ({"y0": {"a": "one"}}, TypeError, r"`y0\['a'\]` must be numeric, but is str"),
    "objects": ({"y0": np.array([None, 1.0])}, TypeError, r"`y0` must be numeric"),
    # tspan
    "one number": ({"tspan": 1.0}, TypeError, r"`tspan` must be a pair \(t0, t1\), but is 1.0"),
    "three": ({"tspan": (0.0, 1.0, 2.0)}, TypeError, r"must be a pair"),
    "to infinity": ({"tspan": (0.0, np.inf)}, ValueError, r"`tspan` must be finite, but t1 = inf. Give a finite end"),
    "from NaN": ({"tspan": (np.nan, 1.0)}, ValueError, r"t0 = nan"),
    "vector span": ({"tspan": (0.0, np.ones(2))}, TypeError, r"two numbers, but t1 has shape \(2,\)"),
    "complex span": ({"tspan": (0.0, 1j)}, TypeError, r"two real numbers, but t1 = 1j"),
    "text span": ({"tspan": (0.0, "1")}, TypeError, r"two real numbers, but t1 = '1'"),
    "half a span": ({"tspan": (0.0, None)}, TypeError, r"two real numbers, but t1 = None"),
    # tolerances
    "negative rtol": (
        {"rtol": -1e-3},
        ValueError,
        r"`rtol` must be a finite number that is not negative, but is -0.001",
    ),
    "NaN atol": ({"atol": np.nan}, ValueError, r"`atol` must be a finite number"),
    "infinite rtol": ({"rtol": np.inf}, ValueError, r"`rtol` must be a finite number"),
    "both zero": ({"rtol": 0.0, "atol": 0.0}, ValueError, r"`rtol` and `atol` are both zero.*say rtol=1e-6"),
    "no tolerance": ({"rtol": None}, TypeError, r"`rtol` must be a number, but is None"),
    "text tolerance": ({"atol": "1e-6"}, TypeError, r"`atol` must be a number, but is '1e-6'"),
    "negative entry": (
        {"y0": jnp.ones(2), "atol": np.array([1.0, -1.0])},
        ValueError,
        r"`atol` must be a finite number",
    ),
    "tolerance shape": (
        {"y0": TREE, "atol": {"a": np.ones((3, 2)), "b": [1.0, 1.0]}},
        ValueError,
        r"`atol` of shape \(3, 2\) does not fit `y0\['a'\]` of shape \(2, 3\)",
    ),
    "tolerance structure": (
        {"y0": TREE, "rtol": {"a": 1.0}},
        ValueError,
        r"`rtol` must be a number or a pytree like `y0`",
    ),
    "tolerance too long": (
        {"y0": jnp.ones(2), "atol": np.ones(3)},
        ValueError,
        r"`atol` of shape \(3,\) does not fit `y0`",
    ),
    # method and controller
    "class": ({"method": jde.Tsit5}, TypeError, r"`method` must be a method.*Call it: `Tsit5\(\)`"),
    "name": ({"method": "Tsit5"}, TypeError, r"`method` must be a method such as Tsit5\(\), but is 'Tsit5'"),
    "no estimate": ({"method": jde.RK4()}, ValueError, r"RK4 has no error estimate.*FixedSteps\(100\)"),
    "no estimate but a step": ({"method": jde.Euler(), "first_step": 0.1}, ValueError, r"Euler has no error estimate"),
    # numbers
    "no step": ({"first_step": 0.0}, ValueError, r"`first_step` must be a positive number, but is 0.0"),
    "step back": ({"first_step": -0.1}, ValueError, r"`first_step` must be a positive number"),
    "infinite step": ({"first_step": np.inf}, ValueError, r"`first_step` must be a positive number"),
    "text step": ({"first_step": "auto"}, ValueError, r"`first_step` must be a positive number, but is 'auto'"),
    "no steps": ({"max_steps": 0}, ValueError, r"`max_steps` must be a positive integer, but is 0"),
    "half a step": ({"max_steps": 1.5}, ValueError, r"`max_steps` must be a positive integer, but is 1.5"),
    "true": ({"max_steps": True}, ValueError, r"`max_steps` must be a positive integer, but is True"),
    "too many steps": ({"max_steps": 2**31}, ValueError, r"`max_steps` must be less than 2³¹"),
    # times
    "late": (
        {"saveat": [0.0, 0.5, 1.5]},
        ValueError,
        r"`saveat` must lie between t0 = 0.0 and t1 = 1.0, but .*\[2\] = 1.5",
    ),
    "early": ({"saveat": [-0.5]}, ValueError, r"saveat\[0\] = -0.5"),
    "NaN time": ({"saveat": [0.5, np.nan]}, ValueError, r"saveat\[1\] = nan"),
    "matrix": ({"saveat": np.ones((2, 2))}, ValueError, r"`saveat` must be a list of times, but has shape \(2, 2\)"),
    "backwards": ({"tspan": (1.0, 0.0), "saveat": [1.5]}, ValueError, r"between t0 = 1.0 and t1 = 0.0"),
    "spacing": ({"saveat": -0.1}, ValueError, r"`saveat` must be a positive number, but is -0.1"),
    "no spacing": ({"saveat": 0.0}, ValueError, r"`saveat` must be a positive number"),
    "fine spacing": ({"saveat": 1e-12}, ValueError, r"asks for 10+1000 times. Give a larger one"),
    "text spacing": ({"saveat": "all"}, ValueError, r"`saveat` must be a positive number, but is 'all'"),
    "NaN stop": ({"stops": [0.5, np.nan]}, ValueError, r"`stops` must be numbers, but .* has NaN"),
    "matrix of stops": ({"stops": np.ones((2, 2))}, ValueError, r"`stops` must be a list of times"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_compiled(case):
    options, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        attempt(**options)


@pytest.mark.parametrize("case", ["shape", "NaN", "to infinity", "negative rtol", "late", "no steps", "no estimate"])
def test_refused_while_tracing(case):
    options, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        jax.eval_shape(lambda a: attempt(**options).y_end, 1.0)


BY_ITSELF = {
    "nothing": (
        partial(jde.SaveAt),
        ValueError,
        r"`SaveAt\(\)` saves nothing. Give ts=, every=, steps=, events=True, t0=True",
    ),
    "fn": (partial(jde.SaveAt, t1=True, fn=lambda y: y), TypeError, r"`fn` must take 3 arguments, fn\(t, y, args\)"),
    "steps": (partial(jde.SaveAt, steps=-1), ValueError, r"`SaveAt\(steps=\)` must be a positive integer, but is -1"),
    "part of a step": (partial(jde.SaveAt, None, None, *[2.5]), ValueError, r"must be a positive integer, but is 2.5"),
    "zero steps": (partial(jde.SaveAt, steps=0), ValueError, r"must be a positive integer, but is 0"),
    "n and dt": (partial(jde.FixedSteps, 3, dt=0.1), ValueError, r"FixedSteps takes a number of steps or dt="),
    "neither": (partial(jde.FixedSteps), ValueError, r"FixedSteps takes a number of steps or dt="),
    "n": (partial(jde.FixedSteps, 0), ValueError, r"`FixedSteps\(n\)` must be a positive integer"),
    "dt": (
        partial(attempt, controller=jde.FixedSteps(dt=-0.1)),
        ValueError,
        r"`FixedSteps\(dt\)` must be a positive",
    ),
    "problem": (
        partial(jde.solve, *[decay]),
        TypeError,
        r"`solve` takes a problem, such as ODEProblem\(f, y0, tspan\)",
    ),
    "instead": (partial(jde.solve, *[decay], args=1.0), TypeError, r"`solve` takes a problem"),
}


@pytest.mark.parametrize("case", BY_ITSELF)
def test_refused_by_itself(case):
    call, kind, message = BY_ITSELF[case]
    with pytest.raises(kind, match=message):
        call()


def test_a_misspelt_field_is_named_with_the_right_ones():
    problem = jde.ODEProblem(decay, 1.0, (0.0, 1.0))
    message = r"ODEProblem has no field 'arg'. Its fields are f, y0, tspan, args"
    with pytest.raises(TypeError, match=message):
        problem.replace(arg=1.0)
    with pytest.raises(TypeError, match=message):
        jde.solve(problem, arg=1.0)


def test_saving_every_step_inside_jit_needs_room():
    y0 = jnp.ones(20_000)
    with pytest.raises(ValueError, match=r"room for max_steps = 100000 rows, 14.9 GiB here. Give `saveat` the times"):
        jax.eval_shape(lambda y: attempt(y0=y).ys, y0)
    jax.eval_shape(lambda y: attempt(y0=y, max_steps=1000).ys, y0)
    jax.eval_shape(lambda y: attempt(y0=y, saveat=jde.SaveAt(t1=True)).ys, y0)


def test_a_spacing_needs_a_known_span():
    with pytest.raises(ValueError, match=r"the time span or the spacing is traced.*jnp.linspace\(t0, t1, 101\)"):
        jax.eval_shape(lambda t1: attempt(tspan=(0.0, t1), saveat=0.1).ys, 1.0)


def test_dense_output_has_to_be_asked_for():
    sol = jax.eval_shape(lambda y: attempt(y0=y, saveat=[1.0]), 1.0)
    with pytest.raises(ValueError, match=r"no dense output. Solve with `dense=True`"):
        sol(0.5)
    with pytest.raises(ValueError, match=r"no dense output"):
        sol.derivative(0.5)


def test_many_solutions_are_evaluated_in_a_vmap():
    sol = jax.eval_shape(jax.vmap(lambda y: attempt(y0=y, dense=True, max_steps=20)), jnp.ones(3))
    with pytest.raises(ValueError, match=r"these are \(3,\) solutions, from a `vmap`.*jax.vmap\(lambda s: s\(t\)\)"):
        sol(0.5)


@pytest.mark.parametrize("rtol", [1e-20, np.array([1e-3, 1e-20])])
def test_a_tolerance_below_the_precision_warns_at_the_caller(rtol):
    with pytest.warns(
        UserWarning, match=r"rtol = 1.0e-20 is below what float64 can resolve; 2.2e-15 is used\.$"
    ) as seen:
        jax.eval_shape(lambda y: attempt(y0=y, rtol=rtol, saveat=[1.0]).ys, jnp.ones(2))
    assert len(seen) == 1


def test_the_warning_points_at_the_user_and_comes_once():
    problem = jde.ODEProblem(decay, jnp.ones(2, jnp.float32), (0.0, 1.0))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            jde.solve(problem, jde.Tsit5(), rtol=1e-10, saveat=jde.SaveAt(t1=True))
    assert [w.filename for w in seen] == [__file__]
    assert "jax_enable_x64" in str(seen[0].message)


def test_what_is_traced_is_not_checked():
    def traced(values):
        rtol, first, t1, at, stop = values
        return attempt(tspan=(0.0, t1), rtol=rtol, first_step=first, saveat=[at], stops=[stop]).ys

    jax.eval_shape(traced, (1e-3, 0.1, 1.0, 0.5, 0.3))


def test_real_numbers():
    assert all(map(errors.real_number, [1, 1.0, True, np.float32(1), np.arange(2), jnp.ones(2), [1, 2.0]]))
    assert not any(map(errors.real_number, [1j, "1", None, np.ones(2, complex), [None]]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jde.Integrator(PLAIN, reltol=1e-6), r"Integrator has no option 'reltol'.*`rtol=` here"),
        (lambda: jde.Integrator(PLAIN, rtoll=1e-6), r"Did you mean `rtol=`\?"),
        (lambda: jde.Integrator(PLAIN, saveat=0.1), r"'saveat'\. Its options are .*belongs to `solve`"),
        (lambda: jde.nn.NeuralODE(jnp.tanh, dt0=0.1), r"NeuralODE has no option 'dt0'.*`first_step=` here"),
        (lambda: jde.nn.AugmentedNeuralODE(jnp.tanh, 2, abstol=1), r"AugmentedNeuralODE has no option 'abstol'"),
        (lambda: jde.nn.SolveLayer(PLAIN, saveat=0.1, adjoint=1), r"SolveLayer has no option 'adjoint'.*`gradient=`"),
    ],
)
def test_options_of_other_libraries_where_solve_is_not_called(make, words):
    with pytest.raises(TypeError, match=words):
        make()


PLAIN = jde.ODEProblem(lambda t, y, args: -y, 1.0, (0.0, 1.0))
