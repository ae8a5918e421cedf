"""The stability function R(z) = 1 + z bᵀ (I − z A)⁻¹ 1 on the boundary of a sector."""

import numpy as np
from trees import ROUNDING

RADII = np.logspace(-3, 4, 400)  # beyond, R is its limit, which the tableaux give exactly


def exceeds_one(a: np.ndarray, b: np.ndarray, angle: float) -> bool:
    """Whether |R| > 1, by more than rounding explains, on the ray `angle` degrees away from the negative real axis."""
    z = RADII * np.exp(1j * np.deg2rad(180 - angle))
    matrix = np.eye(len(b)) - z[:, None, None] * a
    inverse = np.linalg.inv(matrix)
    slopes = inverse.sum(2)
    growth = abs(1 + z * (slopes @ b))
    amplified = (abs(inverse) @ abs(matrix) @ abs(slopes)[:, :, None])[:, :, 0]
    slack = 4 * (len(b) + 2) * ROUNDING * (1 + abs(z) * (amplified @ abs(b)))
    return bool(np.any(growth > 1 + slack))


def check_claim(stability: str, a: np.ndarray, b: np.ndarray, r_infinity: float) -> None:
    """ "L", "A", "A(89.3)" or "" is true, and not too modest by more than 0.1 degrees."""
    rounding = 1e-12  # R(∞) is made of some ten numbers of size 1 to 100, known to 15 digits
    if stability == "":
        assert abs(r_infinity) > 1
        return
    assert (stability == "L") == (abs(r_infinity) < rounding)
    assert abs(r_infinity) <= 1 + rounding
    assert np.all(np.real(np.linalg.eigvals(a)) > -rounding)  # the poles of R are their inverses
    angle = 90.0 if stability in ("A", "L") else float(stability.removeprefix("A(").removesuffix(")"))
    assert not exceeds_one(a, b, angle)
    assert angle == 90 or exceeds_one(a, b, angle + 0.1)
