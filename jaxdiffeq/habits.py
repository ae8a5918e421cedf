"""What users of other libraries write, and what it is called here: options, methods, objects, orders of arguments."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# ---- options

OURS = (
    *("method", "saveat", "dense", "rtol", "atol", "first_step", "controller", "max_steps", "stops", "events"),
    *("max_events", "history_steps", "regularisers", "gradient", "progress", "throw"),
)
"""the options of `solve`"""

_RTOL = "it is `rtol=` here, such as rtol=1e-6"
_ATOL = "it is `atol=` here, such as atol=1e-9"
_TIMES = "the times to save at are `saveat=` here, a list, or a spacing such as saveat=0.1"
_SPAN = "the span is `tspan=(t0, t1)` here, the third argument of the problem"
_METHOD = "the method is `method=` here, or the second argument: solve(problem, Tsit5())"
_CONTROLLER = "it is `controller=` here, such as controller=PIDController()"
_LARGEST = "the largest step is controller=PIDController(max_step=...) here"
_LEAST = "the smallest step is controller=PIDController(min_step=...) here"
_FIRST = "the first step size is `first_step=` here; for steps of one size give controller=FixedSteps(dt=...)"
_COUNT = "the most steps to try is `max_steps=` here"
_STOPS = "times to land on are `stops=` here"
_Y0 = "the initial state is `y0=` here, the second argument of the problem; `x0=` of a DiscreteProblem, its first"
_ARGS = "the parameters are `args=` here, the fourth argument of the problem"
_F = "the right-hand side is `f=` here, the first argument of the problem: ODEProblem(f, y0, tspan, args)"
_JAC = "the Jacobian is `jac=` of the problem, a function (t, y, args) ↦ ∂f/∂y; it is found by itself when left out"
_PATTERN = (
    "the pattern of the Jacobian is `jac_structure=` of the problem: Sparse.of(pattern), Banded(l, u), Detected()"
)
_MASS = "the mass matrix is `mass_matrix=` of the problem, and `inverse_mass=` of a LangevinProblem one over the mass"
_GRADIENT = "the gradient strategy is `gradient=` here, such as gradient=ReverseAD()"
_SAVE = "what is saved is `saveat=` here: saveat=SaveAt(steps=True, t0=True, t1=True), say"
_EVENTS = "events are `events=` here, such as events=[Event(condition, affect)]"
_PROGRESS = "a progress bar is progress=True here"
_THROW = "whether a failure raises is `throw=` here"
_ORDER = "the highest order belongs to the method: BDF(max_order=...) or Adams(max_order=...)"
_CONTROL = "gains and limits belong to the controller: PIDController(safety=, factor_min=, factor_max=)"
_HEAT = "a LangevinProblem has the force −∇U/kT and inverse_mass=kT/m, so that a temperature is in both"

_KEY = (
    "the key of what is random is `key=` here, in an SDEProblem or a JumpProblem, or in "
    "solve(problem, key=jax.random.key(0))"
)
_EQUAL = "so many steps of one size are controller=FixedSteps(n) here"
_ENSEMBLE = "an ensemble is a `vmap` over keys here: jax.vmap(lambda key: solve(problem, key=key).ys)(keys)"
_LEAP = "leaps are a method here: solve(problem, TauLeaping(epsilon=0.03)), which finds their sizes"
_AREA = "areas are drawn by themselves here; how well, where noise does not commute, Milstein(terms=...) says"
_KL = "make ∫½|u|² dt, with u the difference of both drifts over the diffusion, a number more of the state"
_NOISE = (
    'the kind of noise is `noise=` of an SDEProblem here: "diagonal", "scalar", "additive", "commutative", "general"'
)
_CALCULUS = 'the calculus is `interpretation=` of an SDEProblem here: "ito" or "stratonovich"'
_PATH = "a Brownian path is `brownian=` of an SDEProblem here, such as BrownianPath(function) or BrownianIncrements(w)"

OPTIONS = {
    **dict.fromkeys(("seed", "rng", "rng_key", "prng_key", "prng", "random_key"), _KEY),
    **dict.fromkeys(("noise_type", "noise_rate_prototype", "is_diagonal"), _NOISE),
    **dict.fromkeys(("sde_type", "calculus", "stratonovich", "ito"), _CALCULUS),
    **dict.fromkeys(("bm", "W", "brownian_motion", "control", "noise_process"), _PATH),
    **dict.fromkeys(("reltol", "rel_tol", "tol", "relative_tolerance"), _RTOL),
    **dict.fromkeys(("abstol", "abs_tol", "absolute_tolerance"), _ATOL),
    **dict.fromkeys(("t_eval", "teval", "ts", "times", "save_at", "t", "saveat_times"), _TIMES),
    **dict.fromkeys(("t_span", "t0", "t1", "tf", "tfinal", "time_span", "timespan"), _SPAN),
    **dict.fromkeys(("alg", "algorithm", "solver", "integrator", "stepper"), _METHOD),
    **dict.fromkeys(("stepsize_controller", "step_size_controller"), _CONTROLLER),
    **dict.fromkeys(("temperature", "kT", "kB", "kbT", "beta"), _HEAT),
    "gamma": f"it is `friction=` of a LangevinProblem here; {_CONTROL}",
    "damping": "it is `friction=` of a LangevinProblem here",
    "adaptive": "steps of one size are controller=FixedSteps(n) or FixedSteps(dt=...) here; else they are adaptive",
    **dict.fromkeys(("n_steps", "num_steps", "steps", "nt", "Nt", "N", "n"), _EQUAL),
    **dict.fromkeys(("trajectories", "number_of_trajectories", "n_paths", "num_paths", "n_samples"), _ENSEMBLE),
    **dict.fromkeys(("batch_size", "num_samples", "n_trajectories", "realizations", "ensemble"), _ENSEMBLE),
    **dict.fromkeys(("tau", "epsilon", "tau_tol", "leap"), _LEAP),
    **dict.fromkeys(("levy_area", "levy_area_approximation"), _AREA),
    **dict.fromkeys(("save_noise", "return_noise"), "the path is sol.brownian(t) here, after any solve"),
    **dict.fromkeys(("logqp", "kl"), _KL),
    "aggregator": "the algorithm is the method here: solve(problem, SSA()), NextReaction(), RSSA()",
    "entropy": _KEY,
    **dict.fromkeys(("dtmax", "max_step", "hmax", "max_dt", "dt_max", "max_step_size"), _LARGEST),
    **dict.fromkeys(("dtmin", "min_step", "hmin", "min_dt", "dt_min", "force_dtmin"), _LEAST),
    **dict.fromkeys(("dt", "dt0", "h0", "h", "step_size", "initial_step", "init_step", "first_dt"), _FIRST),
    **dict.fromkeys(("maxiters", "maxsteps", "max_num_steps", "mxstep", "nsteps", "max_iters"), _COUNT),
    **dict.fromkeys(("tstops", "d_discontinuities", "tcrit", "jump_ts", "step_ts", "jump_t"), _STOPS),
    **dict.fromkeys(("u0", "x0", "z0", "ic", "y_init", "initial_state", "init"), _Y0),
    **dict.fromkeys(("p", "params", "parameters", "theta"), _ARGS),
    **dict.fromkeys(("fun", "func", "rhs", "terms", "term", "vector_field", "ode", "odefun"), _F),
    **dict.fromkeys(("Dfun", "jacobian", "Jac", "autodiff"), _JAC),
    **dict.fromkeys(("jac_sparsity", "jac_prototype", "sparsity", "lband", "uband", "ml", "mu", "colorvec"), _PATTERN),
    **dict.fromkeys(("mass", "M", "massmatrix"), _MASS),
    **dict.fromkeys(("adjoint", "sensealg", "adjoint_method", "sensitivity", "adjoint_options"), _GRADIENT),
    **dict.fromkeys(
        ("save_everystep", "save_start", "save_end", "save_idxs", "saveat_fn", "save_on", "save_positions"), _SAVE
    ),
    **dict.fromkeys(("event", "event_fn", "callback", "callbacks", "discrete_terminating_event"), _EVENTS),
    **dict.fromkeys(("progress_meter", "progress_bar", "verbose", "printmessg"), _PROGRESS),
    **dict.fromkeys(("raise_on_failure", "full_output"), _THROW),
    **dict.fromkeys(("max_order", "mxordn", "mxords"), _ORDER),
    **dict.fromkeys(("safety", "qmin", "qmax", "pcoeff", "icoeff", "dcoeff", "beta1", "beta2", "ifactor"), _CONTROL),
    "dense_output": "it is `dense=True` here",
    "vectorized": "there is no such option: use jax.vmap over solve",
    "ensemblealg": "there is no such option: use jax.vmap over solve",
    "options": "there is no such option: give each of them by its own name",
}

_LAGS = "constant delays are `lags=` here, such as lags=[1.0]; those that depend on the state `dependent_lags=`"
_HISTORY = "the past is `history=` here, a state or a function (s, args); `h` is what f asks it by: f(t, y, h, args)"
_DRIFT = "the drift is `drift=` here, the first argument of the problem"
_DIFFUSION = "the diffusion is `diffusion=` here, the second argument of the problem"
_OF_DELAYS = {
    **dict.fromkeys(("tau", "taus", "lag", "delay", "delays", "constant_lags"), _LAGS),
    **dict.fromkeys(("h", "past", "phi"), _HISTORY),
}
_OF_NOISE = {"f": _DRIFT, **dict.fromkeys(("g", "sigma"), _DIFFUSION)}
FIELDS = {"DDEProblem": _OF_DELAYS, "SDEProblem": _OF_NOISE, "SDDEProblem": _OF_DELAYS | _OF_NOISE}
"""what a name means in one kind of problem"""


def option(name: str, known: Iterable[str]) -> str:
    """What to write in place of an unknown option; empty where nothing is near."""
    near = difflib.get_close_matches(name, [*known], 1, 0.7)
    return f" Did you mean `{near[0]}=`?" if near else ""


# ---- methods, and other objects

METHODS = {
    **dict.fromkeys(("rk45", "dopri5", "ode45", "dopri"), "DP5() or Tsit5()"),
    **dict.fromkeys(("rk23", "bosh3", "ode23", "bs32"), "BS3()"),
    **dict.fromkeys(("dop853", "dopri8", "ode78", "ode89"), "DP8() or Vern8()"),
    **dict.fromkeys(("radau", "radau5"), "RadauIIA5()"),
    **dict.fromkeys(
        ("lsoda", "ode", "odeint", "auto", "default", "autotsit5rosenbrock23"), "none: `solve` switches by itself"
    ),
    **dict.fromkeys(
        ("vode", "zvode", "lsode", "cvode", "cvode_bdf", "ode15s", "ode15i", "ida", "qndf", "fbdf"), "BDF()"
    ),
    **dict.fromkeys(("adams", "cvode_adams", "ode113", "vcabm", "explicit_adams", "implicit_adams"), "Adams()"),
    **dict.fromkeys(("rk", "runge_kutta", "classical_rk4", "fixed_rk4"), "RK4() with controller=FixedSteps(n)"),
    **dict.fromkeys(("ode23s", "rosenbrock"), "Rosenbrock23()"),
    **dict.fromkeys(("ode23t", "ode23tb"), "TRBDF2()"),
    **dict.fromkeys(("adaptive_heun", "fehlberg2"), "Heun()"),
    **dict.fromkeys(("leapfrogmidpoint",), "Midpoint()"),
    **dict.fromkeys(("implicit_euler", "backward_euler", "backwardeuler"), "ImplicitEuler()"),
    "crank_nicolson": "Trapezoid()",
    **dict.fromkeys(("em", "euler_maruyama", "lambaem", "eulermaruyama"), "EulerMaruyama()"),
    **dict.fromkeys(("srk", "sri"), "SOSRI() or SOSRA()"),
    "euler": "EulerMaruyama()",
    "heun": "StochasticHeun()",
    "midpoint": "StochasticMidpoint()",
    **dict.fromkeys(("itomilstein", "stratonovichmilstein", "rkmilcommute", "rkmilgeneral"), "Milstein()"),
    **dict.fromkeys(("gillespie", "direct"), "SSA()"),
}
CONTROLLERS = {
    "constantstepsize": "FixedSteps(dt=...)",
    "stepto": "FixedSteps(n), with `stops=` for times to land on",
    "constant": "FixedSteps(n)",
    "fixed": "FixedSteps(n)",
    "p": "IController()",
    "i": "IController()",
    "pi": "PIController()",
    "pid": "PIDController()",
}
GRADIENTS = {
    "recursivecheckpointadjoint": "ReverseAD()",
    "directadjoint": "ReverseAD() or ForwardAD()",
    "forwardmode": "ForwardAD()",
    "implicitadjoint": "SteadyStateAdjoint()",
    "adjoint": "InterpolatingAdjoint() or BacksolveAdjoint()",
}
LIBRARIES = ("diffrax", "torchdiffeq", "torchode", "probdiffeq", "scipy", "assimulo", "sunode", "optax", "lineax")


def written(thing: Any) -> tuple[str, str]:
    """The library that a name, a class or an object of another library is from, and the name; empty for our own."""
    if isinstance(thing, str):
        return "", thing
    kind = thing if isinstance(thing, type) or inspect.isfunction(thing) else type(thing)
    library = str(getattr(kind, "__module__", "")).split(".")[0]
    return (library, kind.__name__) if library in LIBRARIES else ("", "")


def replacement(thing: Any, table: dict[str, str], names: Sequence[str]) -> str:
    """A sentence that says what to give in place of a string or an object from elsewhere; empty for other things."""
    library, name = written(thing)
    if not name:
        return ""
    ours = {n.lower(): f"{n}()" for n in names}
    plain = name.lower().replace("-", "_").strip()
    bare = plain.replace("_", "")
    instead = next((found for t in (ours, table) for key in (plain, bare) if (found := t.get(key))), None)
    if instead is None:
        near = difflib.get_close_matches(bare, [*ours], 1, 0.7)
        instead = f"perhaps {ours[near[0]]}" if near else "one of this library" if library else None
    if instead is None:
        return ""
    return f" It is {name} of {library}; take {instead} here." if library else f" Take {instead}."


# ---- orders of arguments

TIMES = ("t", "time", "tau", "τ", "t_", "ti", "tt")
STATES = ("y", "u", "x", "z", "state", "states", "y_", "q")
PARAMETERS = ("p", "args", "params", "par", "pars", "parameters", "theta", "θ", "arg", "ps", "constants")
SLOPES = ("dy", "du", "dx", "dz", "ydot", "yp", "yprime", "dydt", "dudt", "udot", "up", "xdot", "dxdt", "dq")
ROLES = {"t": TIMES, "y": STATES, "dy": SLOPES, "args": PARAMETERS}


def names_of(f: Callable) -> list[str] | None:
    """The names of the parameters that may be given by position; None where they are not known."""
    try:
        given = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in given):
        return None
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [p.name for p in given if p.kind in kinds]


def roles(names: Sequence[str]) -> list[str | None]:
    """Which argument each name stands for; None: it does not say, or says what another says too."""
    alike = [name if name in TIMES else "" if name.lower() in TIMES else name.lower() for name in names]
    own = [next((role for role, them in ROLES.items() if name in them), None) for name in alike]
    return [role if own.count(role) == 1 else None for role in own]


def _as_roles(wanted: Sequence[str]) -> list[str]:
    """What is wanted, a state being "y" whatever it is called."""
    return ["y" if name in STATES else name for name in wanted]


def misplaced(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the names say another order than `wanted`: time elsewhere, or two others that have changed places."""
    said, wanted = roles(names), _as_roles(wanted)
    if "t" in said and ("t" not in wanted or said[0] != "t"):
        return True
    places = [(i, wanted.index(role)) for i, role in enumerate(said) if role in wanted]
    return sum(i != place for i, place in places) > 1


def reordered(names: Sequence[str], wanted: Sequence[str], name: str) -> str:
    """The lambda that calls a function of such names with what stands for them."""
    more = len(names) > len(wanted)  # parameters one by one
    own = dict(zip(_as_roles(wanted), wanted, strict=True))
    head = [own.get(role or "", role) for role in roles(names[: len(wanted) - 1] if more else names)]
    free = [w for w in wanted if w not in head and not (more and w == "args")]
    given = ["0.0" if role == "t" and "t" not in wanted else role if role in wanted else "" for role in head]
    given = [text or (free.pop(0) if free else "None") for text in given]
    return f"lambda {', '.join(wanted)}: {name}({', '.join([*given, *['*args'] * more])})"
