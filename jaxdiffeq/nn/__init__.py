"""Layers that solve differential equations: equinox modules that stand anywhere in an `eqx.nn.Sequential`."""

from jaxdiffeq.nn.classifiers import CNNClassifier as CNNClassifier
from jaxdiffeq.nn.classifiers import MLPClassifier as MLPClassifier
from jaxdiffeq.nn.data import digits as digits
from jaxdiffeq.nn.layers import AugmentedNeuralODE as AugmentedNeuralODE
from jaxdiffeq.nn.layers import NeuralODE as NeuralODE
from jaxdiffeq.nn.layers import SolveLayer as SolveLayer
