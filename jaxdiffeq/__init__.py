"""Differential equations in JAX, where any solve is a layer of a neural network."""

from jaxdiffeq import nn as nn
from jaxdiffeq.algebra.detect import Detected as Detected
from jaxdiffeq.algebra.krylov import MatrixFree as MatrixFree
from jaxdiffeq.algebra.newton import Newton as Newton
from jaxdiffeq.algebra.structure import Banded as Banded
from jaxdiffeq.algebra.structure import BlockDiagonal as BlockDiagonal
from jaxdiffeq.algebra.structure import Dense as Dense
from jaxdiffeq.algebra.structure import Diagonal as Diagonal
from jaxdiffeq.algebra.structure import Sparse as Sparse
from jaxdiffeq.control import FixedSteps as FixedSteps
from jaxdiffeq.control import IController as IController
from jaxdiffeq.control import PIController as PIController
from jaxdiffeq.control import PIDController as PIDController
from jaxdiffeq.diffeq import diffeq_adjoint as diffeq_adjoint
from jaxdiffeq.diffeq import diffeq_fd as diffeq_fd
from jaxdiffeq.diffeq import diffeq_rd as diffeq_rd
from jaxdiffeq.gradients.check import check_gradients as check_gradients
from jaxdiffeq.gradients.continuous import BacksolveAdjoint as BacksolveAdjoint
from jaxdiffeq.gradients.continuous import GaussAdjoint as GaussAdjoint
from jaxdiffeq.gradients.continuous import InterpolatingAdjoint as InterpolatingAdjoint
from jaxdiffeq.gradients.continuous import QuadratureAdjoint as QuadratureAdjoint
from jaxdiffeq.gradients.forward import ForwardAD as ForwardAD
from jaxdiffeq.gradients.reverse import ReverseAD as ReverseAD
from jaxdiffeq.integrator import Integrator as Integrator
from jaxdiffeq.methods import *  # noqa: F403  every method by the name it has in the literature
from jaxdiffeq.problems import ODEProblem as ODEProblem
from jaxdiffeq.problems import SplitODEProblem as SplitODEProblem
from jaxdiffeq.problems import SteadyStateProblem as SteadyStateProblem
from jaxdiffeq.save import SaveAt as SaveAt
from jaxdiffeq.solution import Solution as Solution
from jaxdiffeq.solution import SolveError as SolveError
from jaxdiffeq.solution import Stats as Stats
from jaxdiffeq.solve import recommend as recommend
from jaxdiffeq.solve import solve as solve
from jaxdiffeq.steady import SteadyStateAdjoint as SteadyStateAdjoint
from jaxdiffeq.types import Result as Result
