"""Rosenbrock methods, for stiff problems and DAEs: no iteration, one Jacobian and one factorisation a step.

Those that are good for DAEs are stiffly accurate. Where any Jacobian will do, the order holds with any matrix as J.
"""

from jaxdiffeq.steppers.rosenbrock import Rosenbrock
from jaxdiffeq.tableaux import rosenbrock

__all__ = [  # noqa: RUF022  by order, as below
    "Rosenbrock23",
    "ROS2",
    "ROS2PR",
    "ROS2S",
    "Rosenbrock32",
    "ROS3P",
    "Rodas3",
    "Rodas3P",
    "ROS3",
    "ROS3PR",
    "ROS34PW1a",
    "ROS34PW1b",
    "ROS34PW2",
    "ROS34PRw",
    "ROS3PRL",
    "ROS3PRL2",
    "ROS34PW3",
    "Rodas4",
    "Rodas42",
    "Rodas4P",
    "Rodas4P2",
    "RosShamp4",
    "Veldd4",
    "Velds4",
    "GRK4T",
    "GRK4A",
    "Ros4LStab",
    "ROK4a",
    "Rodas5",
    "Rodas5P",
    "Rodas6P",
]


def Rosenbrock23() -> Rosenbrock:
    """Order 2(3), 3 stages, dense 2. L-stable, any Jacobian; rtol ≥ 1e-2, `ode23s`. Shampine & Reichelt 1997."""
    return Rosenbrock(rosenbrock.ROSENBROCK23)


def ROS2() -> Rosenbrock:
    """Order 2(1), 2 stages. L-stable, any Jacobian will do; atmospheric chemistry and transport. Verwer et al. 1999."""
    return Rosenbrock(rosenbrock.ROS2)


def ROS2PR() -> Rosenbrock:
    """Order 2(1), 3 stages. L-stable; less order reduction, crude tolerances. Rang 2014."""
    return Rosenbrock(rosenbrock.ROS2PR)


def ROS2S() -> Rosenbrock:
    """Order 2(1), 3 stages. L-stable, any Jacobian will do; crude tolerances. Hamkar, Hartmann & Rang 2012."""
    return Rosenbrock(rosenbrock.ROS2S)


def Rosenbrock32() -> Rosenbrock:
    """Order 3(2), 3 stages. For comparison with Rosenbrock23: unstable at infinity. Shampine & Reichelt 1997."""
    return Rosenbrock(rosenbrock.ROSENBROCK32)


def ROS3P() -> Rosenbrock:
    """Order 3(2), 3 stages. A-stable; parabolic PDEs; its estimate also looks at y₁. Lang & Verwer 2001."""
    return Rosenbrock(rosenbrock.ROS3P)


def Rodas3() -> Rosenbrock:
    """Order 3(2), 4 stages. L-stable; atmospheric chemistry, crude tolerances. Sandu et al. 1997."""
    return Rosenbrock(rosenbrock.RODAS3)


def Rodas3P() -> Rosenbrock:
    """Order 3(2), 5 stages, dense 3. L-stable; DAEs and parabolic PDEs, rtol 1e-2 to 1e-4. Steinebach 2024."""
    return Rosenbrock(rosenbrock.RODAS3P)


def ROS3() -> Rosenbrock:
    """Order 3(2), 3 stages. L-stable; atmospheric chemistry, crude tolerances. Sandu et al. 1997."""
    return Rosenbrock(rosenbrock.ROS3)


def ROS3PR() -> Rosenbrock:
    """Order 3(2), 3 stages. A-stable; less order reduction; its estimate also looks at y₁. Rang 2014."""
    return Rosenbrock(rosenbrock.ROS3PR)


def ROS34PW1a() -> Rosenbrock:
    """Order 3(2), 4 stages. L-stable, any Jacobian; its estimate also looks at y₁. Rang & Angermann 2005."""
    return Rosenbrock(rosenbrock.ROS34PW1A)


def ROS34PW1b() -> Rosenbrock:
    """Order 3(2), 4 stages. L-stable, any Jacobian; its estimate also looks at y₁. Rang & Angermann 2005."""
    return Rosenbrock(rosenbrock.ROS34PW1B)


def ROS34PW2() -> Rosenbrock:
    """Order 3(2), 4 stages. L-stable, any Jacobian will do; parabolic PDEs and DAEs. Rang & Angermann 2005."""
    return Rosenbrock(rosenbrock.ROS34PW2)


def ROS34PRw() -> Rosenbrock:
    """Order 3(2), 4 stages. L-stable, any Jacobian will do; less order reduction. Rang 2014."""
    return Rosenbrock(rosenbrock.ROS34PRW)


def ROS3PRL() -> Rosenbrock:
    """Order 3(2), 4 stages. L-stable; less order reduction. Rang 2014."""
    return Rosenbrock(rosenbrock.ROS3PRL)


def ROS3PRL2() -> Rosenbrock:
    """Order 3(2), 4 stages. L-stable; less order reduction. Rang 2014."""
    return Rosenbrock(rosenbrock.ROS3PRL2)


def ROS34PW3() -> Rosenbrock:
    """Order 4(2), 4 stages. A-stable, any Jacobian keeps order 3; parabolic PDEs. Rang & Angermann 2005."""
    return Rosenbrock(rosenbrock.ROS34PW3)


def Rodas4() -> Rosenbrock:
    """Order 4(3), 6 stages, dense 3. L-stable; stiff problems and DAEs, rtol 1e-3 to 1e-7. Hairer & Wanner 1996."""
    return Rosenbrock(rosenbrock.RODAS4)


def Rodas42() -> Rosenbrock:
    """Order 4(3), 6 stages, dense 3. L-stable; other coefficients for Rodas4. Hairer & Wanner 1996."""
    return Rosenbrock(rosenbrock.RODAS42)


def Rodas4P() -> Rosenbrock:
    """Order 4(3), 6 stages, dense 3. L-stable; parabolic PDEs and DAEs, no order reduction. Steinebach 1995."""
    return Rosenbrock(rosenbrock.RODAS4P)


def Rodas4P2() -> Rosenbrock:
    """Order 4(3), 6 stages, dense 3. L-stable; as Rodas4P, with order 2 left for any Jacobian. Steinebach 2020."""
    return Rosenbrock(rosenbrock.RODAS4P2)


def RosShamp4() -> Rosenbrock:
    """Order 4(3), 4 stages. A-stable; for comparison. Shampine 1982."""
    return Rosenbrock(rosenbrock.ROSSHAMP4)


def Veldd4() -> Rosenbrock:
    """Order 4(3), 4 stages. A(89.4°)-stable; D-stable, for comparison. van Veldhuizen 1984."""
    return Rosenbrock(rosenbrock.VELDD4)


def Velds4() -> Rosenbrock:
    """Order 4(3), 4 stages. A-stable; for comparison. van Veldhuizen 1984."""
    return Rosenbrock(rosenbrock.VELDS4)


def GRK4T() -> Rosenbrock:
    """Order 4(3), 4 stages. A(89.3°)-stable; small error constants, mildly stiff problems. Kaps & Rentrop 1979."""
    return Rosenbrock(rosenbrock.GRK4T)


def GRK4A() -> Rosenbrock:
    """Order 4(3), 4 stages. A-stable, hardly damps stiff components; for comparison. Kaps & Rentrop 1979."""
    return Rosenbrock(rosenbrock.GRK4A)


def Ros4LStab() -> Rosenbrock:
    """Order 4(3), 4 stages. A-stable, R(∞) = 1.5e-5; four stages only, for comparison. Hairer & Wanner 1996."""
    return Rosenbrock(rosenbrock.ROS4LSTAB)


def ROK4a() -> Rosenbrock:
    """Order 4(3), 4 stages. L-stable; made for Jacobians in a Krylov space. Tranquilli & Sandu 2014."""
    return Rosenbrock(rosenbrock.ROK4A)


def Rodas5() -> Rosenbrock:
    """Order 5(4), 8 stages, dense 4. L-stable; for comparison; three more f if it depends on t. Di Marzo 1993."""
    return Rosenbrock(rosenbrock.RODAS5)


def Rodas5P() -> Rosenbrock:
    """Order 5(4), 8 stages, dense 4. L-stable; stiff problems and DAEs, rtol 1e-4 to 1e-9. Steinebach 2023."""
    return Rosenbrock(rosenbrock.RODAS5P)


def Rodas6P() -> Rosenbrock:
    """Order 6(5), 19 stages, dense 5. L-stable; stiff problems and DAEs, rtol 1e-8 and tighter. Steinebach 2025."""
    return Rosenbrock(rosenbrock.RODAS6P)
