"""Two classifiers with an ODE in the middle, small enough to read and to train in a test."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn

from jaxdiffeq.nn.layers import NeuralODE


class MLPClassifier(eqx.Module):
    """x ↦ logits by Dense → tanh → ODE block → Dense.

    Shapes: x [in_size] ↦ [classes]; `jax.vmap` it over a batch. `options` are those of `NeuralODE`.
    """

    layers: nn.Sequential

    def __init__(self, in_size: int, classes: int, width: int = 32, *, key: jax.Array, **options: Any):
        keys = jax.random.split(key, 3)
        field = nn.MLP(width, width, width, depth=1, activation=jnp.tanh, key=keys[1])
        self.layers = nn.Sequential(
            [
                nn.Linear(in_size, width, key=keys[0]),
                nn.Lambda(jnp.tanh),
                NeuralODE(field, **options),
                nn.Linear(width, classes, key=keys[2]),
            ]
        )

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        return self.layers(x, key=key)


class CNNClassifier(eqx.Module):
    """An image ↦ logits by two convolutions with pooling, an ODE on the 288 features, and one dense layer.

    Shapes: [1, 28, 28] → conv 2×2 [16, 27, 27] → pool [16, 13, 13] → conv 2×2 [8, 12, 12] → pool [8, 6, 6] → [288]
    → ODE [288] → [classes]. The equation is y' = tanh(W y + b). `options` are those of `NeuralODE`.
    """

    layers: nn.Sequential

    def __init__(self, classes: int = 10, *, key: jax.Array, **options: Any):
        keys = jax.random.split(key, 4)
        features = 8 * 6 * 6
        field = nn.Sequential([nn.Linear(features, features, key=keys[2]), nn.Lambda(jnp.tanh)])
        self.layers = nn.Sequential(
            [
                nn.Conv2d(1, 16, 2, key=keys[0]),
                nn.Lambda(jax.nn.relu),
                nn.MaxPool2d(2, 2),
                nn.Conv2d(16, 8, 2, key=keys[1]),
                nn.Lambda(jax.nn.relu),
                nn.MaxPool2d(2, 2),
                nn.Lambda(jnp.ravel),
                NeuralODE(field, **options),
                nn.Linear(features, classes, key=keys[3]),
            ]
        )

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        return self.layers(x, key=key)
