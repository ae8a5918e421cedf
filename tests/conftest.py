"""Settings of every test run; the environment must be set before JAX looks at it."""

import gc
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # JAX_PLATFORMS=cuda pytest: on a GPU
# Two devices, so that `shard_map` has something to shard over: compile and run times of a test stay the same.
# One thread a matrix product: a worker is meant to use one core, and sums are in the same order on every machine.
# Level 0: nearly all time of the suite is compilation, a fifth of it LLVM's polish of machine code. What XLA's passes
# make of a program, which is what tests of compiled programs read, is the same at every level; so is the arithmetic,
# but for the order of sums in some loops.
_FLAGS = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"
_FLAGS += " --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{_FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "agg"

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")  # a dtype that widens by itself is a slip
jax.config.update("jax_numpy_rank_promotion", "raise")  # so is [3] + [3, 3]
jax.config.update("jax_enable_compilation_cache", False)  # a cached program is a test that did not compile

# Programs and what JAX remembers of them are millions of objects; to look through them again and again took a twentieth
# of the suite.
gc.set_threshold(100_000, 50, 50)

# The same examples every time, few of them, and no deadline: the first one compiles.
hypothesis.settings.register_profile("jaxdiffeq", deadline=None, derandomize=True, max_examples=10, database=None)
hypothesis.settings.load_profile("jaxdiffeq")


@pytest.fixture
def loose_dtypes():
    """For what is not ours: optax raises a float to the power of its int32 count of steps."""
    with jax.numpy_dtype_promotion("standard"):
        yield
