"""Jump processes: a path by the molecule against loops of numba on one core, and leaps against exact paths.

Pin it to one core: numba's loops run on one, and so do lanes of jaxdiffeq on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import common
import jax
import jax.numpy as jnp
import numba
import numpy as np

import jaxdiffeq as jde

END = jde.SaveAt(t1=True)
PATHS, ROUNDS = 1000, 9
MICHAELIS = [("S + E -> C", 0.0017), ("C -> S + E", 1e-3), ("C -> P + E", 0.1)]


# ---- few reactions: the direct method


@numba.njit
def births_and_deaths(paths, seed):
    """X(10) of 0 → A at 50, A → 0 at 1, and the number of events."""
    np.random.seed(seed)
    out, events = np.zeros(paths), 0
    for j in range(paths):
        x, t = 0.0, 0.0
        while True:
            a, total = 50.0, 50.0 + x
            t += np.random.exponential() / total
            if t > 10.0:
                break
            x += 1.0 if np.random.random() * total < a else -1.0
            events += 1
        out[j] = x
    return out, events


@numba.njit
def michaelis_menten(paths, seed):
    """P(50) from 301 S and 120 E."""
    np.random.seed(seed)
    out, events = np.zeros(paths), 0
    for j in range(paths):
        s, e, c, p, t = 301.0, 120.0, 0.0, 0.0, 0.0
        while True:
            a, b = 0.0017 * s * e, 1e-3 * c
            total = a + b + 0.1 * c
            if total <= 0:
                break
            t += np.random.exponential() / total
            if t > 50.0:
                break
            u = np.random.random() * total
            if u < a:
                s, e, c = s - 1, e - 1, c + 1
            elif u < a + b:
                s, e, c = s + 1, e + 1, c - 1
            else:
                e, c, p = e + 1, c - 1, p + 1
            events += 1
        out[j] = p
    return out, events


def few() -> Iterator[dict]:
    births = jde.ReactionNetwork([("0 -> A", 50.0), ("A -> 0", 1.0)])
    michaelis = jde.ReactionNetwork(MICHAELIS)
    cases = {
        "births and deaths": (births.jumps({"A": 0}, (0.0, 10.0), key=jax.random.key(0)), births_and_deaths, 0),
        "Michaelis and Menten": (
            michaelis.jumps({"S": 301, "E": 120}, (0.0, 50.0), key=jax.random.key(0)),
            michaelis_menten,
            3,
        ),
    }
    for name, (problem, peer, species) in cases.items():
        run = ensemble(problem, jde.SSA(), PATHS)
        yield row(f"{name}, 1000 paths", "numba, direct method", run, lambda peer=peer: peer(PATHS, 1), species)


def ensemble(problem, method, paths):
    run = jax.jit(jax.vmap(lambda key: jde.solve(problem, method, key=key, saveat=END)))
    return lambda: run(jax.random.split(jax.random.key(1), paths))


def row(what, over, run, peer, species) -> dict:
    """Per event, with the mean of both, whose distance is in units of its standard error."""
    ours, (theirs, events) = run(), peer()
    seconds = common.interleaved({"ours": run, "theirs": peer}, ROUNDS)
    medians, n = common.medians(seconds), int(ours.stats.events.sum())
    x = np.asarray(ours.y_end)[:, species]
    error = math.sqrt(x.var() / len(x) + theirs.var() / len(theirs))
    return {
        "what": what,
        "ns an event": 1e9 * medians["ours"] / n,
        "over": over,
        "its ns": 1e9 * medians["theirs"] / events,
        "ratio": common.ratio(seconds, "ours", "theirs") * events / n,
        "means apart": abs(x.mean() - theirs.mean()) / error,
    }


# ---- many reactions: the next-reaction method


def ring(count):
    """A third of them collisions that pass molecules around a ring of species, the others walks to either side."""
    n, reactions = count // 3, []
    for i in range(n):
        ahead, before = (i + 1) % n, (i - 1) % n
        reactions += [(f"X{i} -> X{ahead}", 1.0), (f"X{i} -> X{before}", 0.5)]
    for i in range(n):
        reactions.append((f"X{i} + X{(i + 1) % n} -> X{i} + X{(i + 2) % n}", 0.005))
    return jde.ReactionNetwork(reactions, [f"X{i}" for i in range(n)])


@numba.njit
def sift(heap, place, times, i):
    """Put reaction `heap[i]` where it belongs."""
    n = len(heap)
    while i > 0 and times[heap[i]] < times[heap[(i - 1) // 2]]:
        up = (i - 1) // 2
        heap[i], heap[up] = heap[up], heap[i]
        place[heap[i]], place[heap[up]] = i, up
        i = up
    while True:
        low = 2 * i + 1
        if low >= n:
            return
        if low + 1 < n and times[heap[low + 1]] < times[heap[low]]:
            low += 1
        if times[heap[i]] <= times[heap[low]]:
            return
        heap[i], heap[low] = heap[low], heap[i]
        place[heap[i]], place[heap[low]] = i, low
        i = low


@numba.njit
def rate(r, x, k, reactants, slots):
    a = k[r]
    for j in range(slots[r]):
        a *= x[reactants[r, j]]
    return a


@numba.njit
def next_reaction(paths, seed, x0, k, reactants, slots, changed, by, begin, depends, t1):
    """Gibson and Bruck, with a heap and a graph of dependencies."""
    np.random.seed(seed)
    count = len(k)
    out, events = np.zeros(paths), 0
    a, times = np.zeros(count), np.zeros(count)
    heap, place = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for p in range(paths):
        x = x0.copy()
        for r in range(count):
            a[r] = rate(r, x, k, reactants, slots)
            times[r] = np.random.exponential() / a[r] if a[r] > 0 else np.inf
            heap[r], place[r] = r, r
        for i in range(count // 2, -1, -1):
            sift(heap, place, times, i)
        while True:
            r = heap[0]
            t = times[r]
            if t > t1:
                break
            for j in range(changed.shape[1]):
                x[changed[r, j]] += by[r, j]
            for q in range(begin[r], begin[r + 1]):
                d = depends[q]
                new = rate(d, x, k, reactants, slots)
                if d == r or a[d] <= 0 or new <= 0:
                    times[d] = t + np.random.exponential() / new if new > 0 else np.inf
                else:
                    times[d] = t + a[d] / new * (times[d] - t)
                a[d] = new
                sift(heap, place, times, place[d])
            events += 1
        out[p] = x[0]
    return out, events


def many() -> Iterator[dict]:
    for count, paths in ((30, 300), (300, 30), (3000, 3)):
        network = ring(count)
        n = len(network.species)
        problem = network.jumps(jnp.full(n, 20.0), (0.0, 1.0), key=jax.random.key(0))
        peer = peer_of(network, count, paths)
        for method in (jde.SSA(), jde.SortingDirect(), jde.NextReaction(), jde.RSSA()):
            run = ensemble(problem, method, paths)
            yield row(f"{count} reactions, {method.name}", "numba, next reaction", run, peer, 0)


def peer_of(network, count, paths):
    reactants = np.zeros((count, 2), np.int64)
    slots = np.zeros(count, np.int64)
    changed, by = np.zeros((count, 2), np.int64), np.zeros((count, 2))
    readers = {s: [] for s in range(len(network.species))}
    for r, (taken, change) in enumerate(zip(network.reactants.rows, network.change.rows, strict=True)):
        slots[r] = len(taken)
        for j, (s, _) in enumerate(taken):
            reactants[r, j] = s
            readers[s].append(r)
        for j, (s, m) in enumerate(change):
            changed[r, j], by[r, j] = s, m
    depends = [sorted({d for s, _ in change for d in readers[s]}) for change in network.change.rows]
    begin = np.concatenate([[0], np.cumsum([len(d) for d in depends])])
    flat, k = np.concatenate(depends).astype(np.int64), np.array(network.rates)
    x0 = np.full(len(network.species), 20.0)
    return lambda: next_reaction(paths, 1, x0, k, reactants, slots, changed, by, begin, flat, 1.0)


# ---- leaps


def leaps() -> Iterator[dict]:
    """Dimerisation of 1e5 molecules: the mean of A at the end, by each, and its bias against exact paths."""
    network = jde.ReactionNetwork([("2 A -> B", 1e-5), ("B -> 2 A", 1.0)])
    problem = network.jumps({"A": 1e5}, (0.0, 5.0), key=jax.random.key(0))
    exact = ensemble(problem, jde.SSA(), 64)
    mean = np.asarray(exact().y_end)[:, 0].mean()
    for method in (
        jde.TauLeaping(0.1),
        jde.MidpointTauLeaping(0.1),
        jde.ThetaTrapezoidalTauLeaping(0.3),
        jde.ImplicitTauLeaping(0.1),
    ):
        run = ensemble(problem, method, 64)
        seconds = common.interleaved({"leaps": run, "exact": exact}, ROUNDS)
        medians, sol = common.medians(seconds), run()
        yield {
            "what": f"2 A ⇌ B, {method!r}",
            "µs a path": 1e6 * medians["leaps"] / 64,
            "over": "SSA",
            "its µs": 1e6 * medians["exact"] / 64,
            "ratio": common.ratio(seconds, "leaps", "exact"),
            "bias": abs(np.asarray(sol.y_end)[:, 0].mean() / mean - 1),
            "steps": float(sol.stats.steps.mean()),
        }


if __name__ == "__main__":
    common.report("jumps", "Jump processes: an event, and a leap", common.gather([*few(), *many(), *leaps()]))
