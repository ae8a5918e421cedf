"""What users of other libraries write is answered with what it is called here."""

import functools
import inspect
import types
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import jaxdiffeq as jde
from jaxdiffeq import habits

END: Any = {"saveat": jde.SaveAt(t1=True)}


def decay(t, y, args):
    return jax.tree.map(lambda x: -x, y)


PROBLEM = jde.ODEProblem(decay, jnp.ones(2), (0.0, 1.0))


def foreign(name, library="diffrax", **members):
    """An object of a class that another library has under this name."""
    kind = type(name, (), {"__module__": f"{library}._inner", "__repr__": lambda self: f"{name}()", **members})
    return kind()


METHOD_OF_OTHERS: Any = {"step": None, "init": None}

OPTIONS = {
    "reltol": r"`solve` has no option 'reltol', which another library has: it is `rtol=` here",
    "abstol": r"it is `atol=` here",
    "t_eval": r"the times to save at are `saveat=` here",
    "dt": r"is `first_step=` here; for steps of one size give controller=FixedSteps\(dt=...\)",
    "dt0": r"is `first_step=` here",
    "dtmax": r"the largest step is controller=PIDController\(max_step=...\)",
    "max_step": r"the largest step is controller=PIDController\(max_step=...\)",
    "t_span": r"the span is `tspan=\(t0, t1\)` here",
    "u0": r"the initial state is `y0=` here",
    "p": r"the parameters are `args=` here",
    "alg": r"the method is `method=` here",
    "stepsize_controller": r"it is `controller=` here",
    "tstops": r"times to land on are `stops=` here",
    "maxiters": r"the most steps to try is `max_steps=` here",
    "sensealg": r"the gradient strategy is `gradient=` here",
    "jac_sparsity": r"the pattern of the Jacobian is `jac_structure=` of the problem",
    "dense_output": r"it is `dense=True` here",
    "save_everystep": r"what is saved is `saveat=` here",
    "gradeint": r"ODEProblem has no field 'gradeint'.*options of `solve` are method.*Did you mean `gradient=`\?",
    "savat": r"Did you mean `saveat=`\?",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_another_library(name):
    with pytest.raises(TypeError, match=OPTIONS[name]):
        given: Any = {name: 1.0}
        jde.solve(PROBLEM, **given)


def test_no_option_of_ours_is_one_of_another_library():
    signature = inspect.signature(jde.solve)
    ours = [p.name for p in signature.parameters.values() if p.name != "problem" and p.kind is not p.VAR_KEYWORD]
    assert set(ours) == set(habits.OURS)
    fields = {n for kind in (jde.ODEProblem, jde.DAEProblem) for n in kind.__dataclass_fields__}
    assert not habits.OPTIONS.keys() & {*ours, *fields}


@pytest.mark.parametrize("kind", [jde.ODEProblem, jde.DAEProblem, jde.SplitODEProblem, jde.SteadyStateProblem])
def test_a_field_of_another_library(kind):
    with pytest.raises(
        TypeError, match=f"{kind.__name__} has no option 'u0', which .* has: the initial state is `y0=`"
    ):
        kind(decay, u0=1.0)


METHODS = {
    "RK45": r"`method` must be a method such as Tsit5\(\), but is 'RK45'. Take DP5\(\) or Tsit5\(\)",
    "Radau": r"Take RadauIIA5\(\)",
    "LSODA": r"Take none: `solve` switches by itself",
    "bdf": r"Take BDF\(\)",
    "tsit5": r"Take Tsit5\(\)",
    "dopri5": r"Take DP5\(\) or Tsit5\(\)",
    "rodas5p": r"Take Rodas5P\(\)",
    "KenCarp": r"Take perhaps KenCarp\d+\(\)",
    "unheard of": r"but is 'unheard of'\.$",
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_by_a_name(name):
    with pytest.raises(TypeError, match=METHODS[name]):
        jde.solve(PROBLEM, name)


def test_every_method_that_is_named_exists():
    for text in habits.METHODS.values():
        for part in text.split(":")[0].replace(" with controller=FixedSteps(n)", "").split(" or "):
            assert part == "none" or hasattr(jde, part.removesuffix("()"))
    for table in (habits.CONTROLLERS, habits.GRADIENTS):
        for text in table.values():
            assert all(hasattr(jde, part.split("(")[0]) for part in text.split(",")[0].split(" or "))


OBJECTS = {
    "method": (
        {"method": foreign("Kvaerno5", **METHOD_OF_OTHERS)},
        r"but is Kvaerno5\(\). It is Kvaerno5 of diffrax; take Kvaerno5\(\) here",
    ),
    "other name": ({"method": foreign("Dopri5", **METHOD_OF_OTHERS)}, r"Dopri5 of diffrax; take DP5\(\) or Tsit5\(\)"),
    "class": ({"method": type(foreign("Tsit5"))}, r"It is Tsit5 of diffrax; take Tsit5\(\) here"),
    "scipy": ({"method": type(foreign("DOP853", "scipy"))}, r"It is DOP853 of scipy; take DP8\(\) or Vern8\(\)"),
    "controller": (
        {"controller": foreign("PIDController")},
        r"It is PIDController of diffrax; take PIDController\(\) here. Tolerances are options of `solve`: rtol=, atol=",
    ),
    "constant": ({"controller": foreign("ConstantStepSize")}, r"take FixedSteps\(dt=...\) here"),
    "text": ({"controller": "PI"}, r"`controller` must be a controller.*but is 'PI'. Take PIController\(\)"),
    "class of ours": ({"controller": jde.PIDController}, r"Call it: `PIDController\(\)`"),
    "function of ours": ({"controller": jde.PIController}, r"Call it: `PIController\(\)`"),
    "size": ({"controller": 0.1}, r"For steps of one size give FixedSteps\(dt=0.1\)"),
    "saveat": (
        {"saveat": foreign("SaveAt")},
        r"`saveat` must be .* but is a SaveAt of diffrax. Give saveat=SaveAt\(ts=",
    ),
    "saveat class": ({"saveat": jde.SaveAt}, r"`saveat` must be times, a spacing or a SaveAt.*Call it: `SaveAt\(\)`"),
    "gradient": (
        {"gradient": foreign("RecursiveCheckpointAdjoint", bind=None)},
        r"`gradient` must be one of .* of diffrax; take ReverseAD\(\) here",
    ),
    "gradient text": ({"gradient": "adjoint"}, r"Take InterpolatingAdjoint\(\) or BacksolveAdjoint\(\)"),
    "gradient class": ({"gradient": jde.ForwardAD}, r"Call it: `ForwardAD\(\)`"),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_an_object_of_another_library(case):
    options, message = OBJECTS[case]
    with pytest.raises(TypeError, match=message):
        jde.solve(PROBLEM, **options)


def test_what_is_no_problem():
    with pytest.raises(TypeError, match=r"but got function. Write solve\(ODEProblem\(f, y0, \(t0, t1\), args\)\)"):
        jde.solve(decay)
    with pytest.raises(TypeError, match=r"but got ODETerm of diffrax. Write solve"):
        jde.solve(foreign("ODETerm"))
    with pytest.raises(TypeError, match=r"ODEProblem is a class: give it f, y0 and tspan"):
        jde.solve(jde.ODEProblem)
    with pytest.raises(ValueError, match=r"t1 = inf.*settles to rest is found without time: SteadyStateProblem\(f, y0"):
        jde.solve(PROBLEM, tspan=(0.0, np.inf))


# ---- orders of arguments

ODE, DAE, REST = ("t", "y", "args"), ("t", "y", "dy", "args"), ("y", "args")
ORDERS = {
    "y t args": (ODE, "lambda t, y, args: f(y, t, args)"),
    "u p t": (ODE, "lambda t, y, args: f(y, args, t)"),
    "x t params": (ODE, "lambda t, y, args: f(y, t, args)"),
    "t p u": (ODE, "lambda t, y, args: f(t, args, y)"),
    "T t p": (ODE, "lambda t, y, args: f(y, t, args)"),
    "state time rate": (ODE, "lambda t, y, args: f(y, t, args)"),
    "_ y t": (ODE, "lambda t, y, args: f(args, y, t)"),
    "du u p t": (DAE, "lambda t, y, dy, args: f(dy, y, args, t)"),
    "t dy y args": (DAE, "lambda t, y, dy, args: f(t, dy, y, args)"),
    "p u": (REST, "lambda y, args: f(args, y)"),
    "t y": (REST, "lambda y, args: f(0.0, y)"),
    **dict.fromkeys(("t y args", "t x p", "time state params", "_ y _", "a b c", "z y args", "t T k"), (ODE, None)),
    **dict.fromkeys(("t theta omega", "s u v", "t h x", "x y p", "t _ _"), (ODE, None)),
    **dict.fromkeys(("t y yp args", "t u du p", "a b c d"), (DAE, None)),
    **dict.fromkeys(("y args", "x y", "u _"), (REST, None)),
}


def named(names):
    return eval(f"lambda {', '.join(names.split())}: None")


@pytest.mark.parametrize("names", ORDERS)
def test_names_say_an_order(names):
    wanted, cure = ORDERS[names]
    assert habits.misplaced(names.split(), wanted) == (cure is not None)
    if cure is not None:
        assert habits.reordered(names.split(), wanted, "f") == cure


class Field:
    def of(self, u, p, t):
        return u

    def __call__(self, y, t, args):
        return y


FUNCTIONS = {
    "lambda": lambda y, t, args: y,
    "default": lambda y, t, args=None: y,
    "partial": functools.partial(lambda k, y, t, args: y, 1.0),
    "method": Field().of,
    "object": Field(),
    "jit": jax.jit(lambda y, t, args: y),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_another_order_is_refused_unless_the_names_mean_something_else(kind):
    f = FUNCTIONS[kind]
    message = (
        r"`f` must take its arguments in the order f\(t, y, args\), .*: \([uy], [tp].*Write `lambda.*check_names=False"
    )
    with pytest.raises(TypeError, match=message):
        jde.ODEProblem(f, 1.0, (0.0, 1.0))
    with pytest.raises(TypeError, match=message):
        PROBLEM.replace(f=f)
    jde.ODEProblem(f, 1.0, (0.0, 1.0), check_names=False).replace(y0=2.0)


def test_every_function_of_a_problem_is_asked():
    late, early = named("u p t"), named("t y args")
    for name in ("jac", "mass_matrix"):
        with pytest.raises(TypeError, match=f"`{name}` must take its arguments in the order"):
            jde.ODEProblem(early, 1.0, (0.0, 1.0), **{name: late})
    for pair in ((late, early), (early, late)):
        with pytest.raises(TypeError, match=r"`f_\w+` must take its arguments in the order"):
            jde.SplitODEProblem(*pair, 1.0, (0.0, 1.0))
    with pytest.raises(TypeError, match=r"lambda t, y, dy, args: residual\(dy, y, args, t\)"):
        jde.DAEProblem(named("du u p t"), 1.0, 1.0, (0.0, 1.0))
    with pytest.raises(TypeError, match=r"`f` must take its arguments in the order f\(y, args\)"):
        jde.SteadyStateProblem(named("t y"), 1.0)
    with pytest.raises(TypeError, match=r"another order: \(u, p, t\).*write `lambda \*given: fn\(\*given\)`"):
        jde.SaveAt(t1=True, fn=late)


NUMBER = {
    "y t": r"its signature is \(y, t\).*Write `lambda t, y, args: f\(y, t\)`",
    "t y": r"Write `lambda t, y, args: f\(t, y\)`",
    "t y a b": r"Write `lambda t, y, args: f\(t, y, \*args\)`",
    "y t a b": r"Write `lambda t, y, args: f\(y, t, \*args\)`",
    "du u p t": r"Return the derivative in place of writing into `du`",
}


@pytest.mark.parametrize("names", NUMBER)
def test_another_number_of_arguments(names):
    with pytest.raises(TypeError, match=NUMBER[names]):
        jde.ODEProblem(named(names), 1.0, (0.0, 1.0))


# ---- lists and arrays


def turned(t, y, args):
    return [y[1], -y[0]]


def test_a_list_where_an_array_came():
    with pytest.raises(TypeError, match=r"f returned a list: write `return jnp.stack\(\[d0, d1\]\)` in f"):
        jde.solve(PROBLEM, f=turned)
    with pytest.raises(TypeError, match=r"f returned a tuple: write `return jnp.stack\(\[d0, d1\]\)` in f"):
        jde.solve(PROBLEM, f=lambda t, y, args: tuple(turned(t, y, args)))
    with pytest.raises(TypeError, match=r"`y0` is a list of 2 and f returned an array: give y0=jnp.array\(\[...\]\)"):
        jde.solve(PROBLEM, f=lambda t, y, args: jnp.stack(turned(t, y, args)), y0=[1.0, 0.0])
    with pytest.raises(TypeError, match=r"Does f end with a `return`\?"):
        jde.solve(PROBLEM, f=lambda t, y, args: None)


# ---- args that are no pytree


@dataclass
class Plain:
    k: float


class Anything:
    __hash__: Any = None

    def __init__(self, k):
        self.k = k


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (Plain(2.0), r"`args` is a Plain, which is no pytree.*write `@jax.tree_util.register_dataclass` above"),
        ({"a": [Plain(2.0)]}, r"`args\['a'\]\[0\]` is a Plain, which is no pytree"),
        (types.SimpleNamespace(k=2.0), r"`args` is a SimpleNamespace, .*give vars\(...\) of it, which is a dict"),
        (Anything(2.0), r"`args` is a Anything, which is no pytree.*a NamedTuple or an equinox.Module"),
    ],
)
def test_args_that_are_no_pytree(args, message):
    with pytest.raises(TypeError, match=message):
        jde.solve(PROBLEM, f=lambda t, y, p: -p.k * y, args=args)
    with pytest.raises(TypeError, match=message):
        jax.jit(lambda y0: jde.solve(PROBLEM, y0=y0, args=args, **END).ys)(jnp.ones(2))


# ---- what is accepted in more than one form


class Pair(NamedTuple):
    x: Any
    v: Any


def test_tolerances_like_the_state_without_a_method():
    y0 = Pair(jnp.ones(2), jnp.zeros(2))
    problem = jde.ODEProblem(lambda t, y, args: Pair(y.v, -y.x), y0, (0.0, 1.0))
    sol = jde.solve(problem, rtol=Pair(1e-7, 1e-9), atol=Pair(1e-9, np.full(2, 1e-10)), **END)
    assert sol.account.plan.stepper == jde.recommend(problem, 1e-9).method
    np.testing.assert_allclose(sol.ys.x[0], np.cos(1.0) * np.ones(2), rtol=1e-6)
    listed = jde.solve(PROBLEM, rtol=[1e-8, 1e-8], atol=[1e-9, 1e-10], **END)
    np.testing.assert_allclose(listed.ys[0], np.exp(-1.0) * np.ones(2), rtol=1e-6)


MATRIX = np.array([[-2.0, 1.0, 0.0], [1.0, -2.0, 1.0], [0.0, 0.0, -1.0]])


def test_a_pattern_may_be_a_matrix():
    wanted = jde.Sparse.of(MATRIX)
    doubled = scipy.sparse.coo_matrix(([1.0, 1.0], ([0, 0], [1, 1])), (3, 3))
    assert jde.Sparse.of(doubled) == jde.Sparse((0,), (1,))
    for form in (np.array, scipy.sparse.csr_matrix, scipy.sparse.coo_array, scipy.sparse.dia_matrix, np.ndarray.tolist):
        assert jde.Sparse.of(form(MATRIX)) == wanted
        problem = jde.ODEProblem(lambda t, y, args: MATRIX @ y, jnp.ones(3), (0.0, 1.0), jac_structure=form(MATRIX))
        assert problem.jac_structure == wanted
    dense = jde.solve(problem.replace(jac_structure=None), jde.Rodas5P(), **END).ys
    np.testing.assert_allclose(jde.solve(problem, jde.Rodas5P(), **END).ys, dense, rtol=1e-10)
    with pytest.raises(TypeError, match=r"Call it: `Dense\(\)`"):
        problem.replace(jac_structure=jde.Dense)


def test_a_mass_matrix_may_be_lists():
    problem = jde.ODEProblem(lambda t, y, args: jnp.stack([-y[0], y[0] - y[1]]), jnp.ones(2), (0.0, 1.0))
    wanted = np.exp(-1.0) * np.ones(2)
    lists = [[1.0, 0.0], [0.0, 0.0]]
    for mass in (
        lists,
        tuple(map(tuple, lists)),
        [np.array([1, 0]), [0, 0]],
        scipy.sparse.csr_matrix(lists),
        [1.0, 0.0],
    ):
        found = jde.solve(problem, mass_matrix=mass, rtol=1e-7, atol=1e-9, **END).ys[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    slope = jax.grad(lambda m: jde.solve(problem, mass_matrix=[[m, 0.0], [0.0, 0.0]], rtol=1e-7, **END).ys[0, 1])(1.0)
    np.testing.assert_allclose(slope, np.exp(-1.0), rtol=1e-4)
    with pytest.raises(
        ValueError, match=r"`mass_matrix` must be a matrix of shape \(2, 2\).*but has shape \[\(1, 2\)\]"
    ):
        jde.solve(problem, mass_matrix=[[1.0, 0.0]])
    with pytest.raises(ValueError, match=r"`mass_matrix` must be a matrix of shape \(2, 2\)"):
        jde.solve(problem, mass_matrix=[[1.0, 0.0], [0.0]])


# ---- half precision, and states without numbers


def test_half_precision_where_a_method_cannot():
    y0 = jnp.ones(2, jnp.float16)
    message = r"`y0` has dtype float16, but {} linear algebra that needs float32.*y0.astype\(jnp.float32\)"
    with pytest.raises(TypeError, match=message.format("RadauIIA5 takes")):
        jde.solve(PROBLEM, jde.RadauIIA5(), y0=y0)
    with pytest.raises(TypeError, match=message.format("a mass matrix or a DAE takes")):
        jde.solve(PROBLEM, y0=y0, mass_matrix=jnp.array([1.0, 0.0]))
    with pytest.raises(TypeError, match=message.format("a mass matrix or a DAE takes")):
        jde.solve(jde.DAEProblem(lambda t, y, dy, args: dy + y, y0, y0, (0.0, 1.0)))
    with pytest.warns(UserWarning, match="rtol"):
        found = jde.solve(PROBLEM, jde.Rodas5P(), y0=y0, **END).ys[0]
    np.testing.assert_allclose(found, np.exp(-1.0) * np.ones(2), rtol=1e-2)


def test_a_state_of_size_zero():
    y0 = jnp.zeros((3, 0))
    assert jde.solve(PROBLEM, jde.BDF(), y0=y0, **END).ys.shape == (1, 3, 0)
    gradient = jax.grad(lambda y: jde.solve(PROBLEM, y0=y, gradient=jde.BacksolveAdjoint(), **END).ys.sum())(y0)
    assert gradient.shape == y0.shape
    assert "none" in str(jde.trace(PROBLEM.replace(y0=y0)))
    message = r"`y0` holds no numbers: its arrays are of size zero"
    with pytest.raises(ValueError, match=message):
        jde.solve(jde.DAEProblem(lambda t, y, dy, args: dy + y, y0, y0, (0.0, 1.0)))
    with pytest.raises(ValueError, match=message):
        jde.solve(jde.SteadyStateProblem(lambda y, args: -y, y0))
    with pytest.raises(ValueError, match=message):
        jde.solve(PROBLEM, y0=jnp.zeros(0), mass_matrix=jnp.zeros((0, 0)))


# ---- a network as a state

X = jnp.linspace(-1.0, 1.0, 8)[:, None]


def fit(model):
    return jnp.mean((jax.vmap(model)(X) - X**2) ** 2)


def downhill(t, model, args):
    return jax.tree.map(lambda g: -g, eqx.filter_grad(fit)(model))


@pytest.mark.parametrize("network", [eqx.nn.Linear, functools.partial(eqx.nn.MLP, width_size=4, depth=1)])
def test_a_network_is_a_state(network):
    """dθ/dt = −∂L/∂θ, along which L falls by ∫ |dθ/dt|² dt: as gradient descent with small steps does."""
    model = network(1, 1, key=jax.random.key(0))
    loss_at = lambda t, model, args: fit(model)
    saveat = jde.SaveAt(t0=True, t1=True, fn=loss_at)
    problem = jde.ODEProblem(downhill, model, (0.0, 0.5))
    losses = jde.solve(problem, jde.BS3(), saveat=saveat, rtol=1e-5, atol=1e-7).ys
    numbers, rest = eqx.partition(model, eqx.is_array)

    def step(numbers, _):
        slope = eqx.filter(downhill(0.0, eqx.combine(numbers, rest), None), eqx.is_array)
        return jax.tree.map(lambda a, b: a + 1e-3 * b, numbers, slope), None

    numbers, _ = jax.lax.scan(step, numbers, length=500)
    np.testing.assert_allclose(losses, [fit(model), fit(eqx.combine(numbers, rest))], rtol=1e-3)
    end = jax.tree.map(lambda x: x[-1], jax.jit(lambda: jde.solve(problem, jde.BS3(), **END).ys)())
    np.testing.assert_allclose(fit(eqx.combine(end, rest)), losses[1], rtol=1e-2)


def test_a_function_as_state_is_called():
    start = lambda args, t0: args * jnp.ones(2)
    for f in (start, functools.partial(start), jax.tree_util.Partial(start), jax.jit(start), eqx.filter_jit(start)):
        np.testing.assert_allclose(jde.solve(PROBLEM, y0=f, args=3.0, saveat=jde.SaveAt(t0=True)).ys[0], [3.0, 3.0])


# ---- check_gradients


@pytest.mark.parametrize("loss", [lambda x: x, lambda gradient: gradient, lambda x, more, gradient: x])
def test_check_gradients_says_what_a_loss_is(loss: Any):
    message = r"`loss` must be a function \(x, gradient\) ↦ number.* `def loss\(x, gradient\):.*signature"
    with pytest.raises(TypeError, match=message):
        jde.check_gradients(loss, 1.0)
    loss = 3.0, 1.0
    with pytest.raises(TypeError, match=r"`loss` must be a function.*but is float: 3.0"):
        jde.check_gradients(*loss)
