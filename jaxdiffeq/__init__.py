"""Differential equations in JAX, where any solve is a layer of a neural network."""

from jaxdiffeq.control import FixedSteps as FixedSteps
from jaxdiffeq.control import IController as IController
from jaxdiffeq.control import PIController as PIController
from jaxdiffeq.control import PIDController as PIDController
from jaxdiffeq.gradients.reverse import ReverseAD as ReverseAD
from jaxdiffeq.problems import ODEProblem as ODEProblem
from jaxdiffeq.save import SaveAt as SaveAt
from jaxdiffeq.solution import Solution as Solution
from jaxdiffeq.solution import SolveError as SolveError
from jaxdiffeq.solution import Stats as Stats
from jaxdiffeq.solve import solve as solve
from jaxdiffeq.types import Result as Result
from jaxdiffeq.methods import *
