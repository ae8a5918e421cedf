"""Methods for equations with noise, dy = a(t, y) dt + b(t, y) dW: strong order one and a half, and weak order two.

W is the increment of the Brownian motion over a step, H its space-time Lévy area, and I₁₀ = dt·(H + W/2) the integral of
what W has done. I₁₁ = (W² − dt)/2 and I₁₁₁ = (W³ − 3·dt·W)/6. Rationals are written as such, everything else with the
digits that float64 holds; `digits` says where the source prints fewer.
"""

import functools
from dataclasses import dataclass, replace

from jaxdiffeq.tableaux.common import Tableau, check_sum

Row = tuple[float, ...]
Rows = tuple[Row, ...]


def short(row: Row) -> Row:
    """Without the zeros at its end."""
    return short(row[:-1]) if row and row[-1] == 0 else row


def alike(*columns: tuple) -> tuple[int, ...]:
    """Of each stage the first one with the same numbers, hence the same value."""
    seen: dict = {}
    keys = zip(*columns, strict=True)
    return tuple(
        seen.setdefault(tuple(short(x) if isinstance(x, tuple) else x for x in key), i) for i, key in enumerate(keys)
    )


def needed(count: int, *rows: Row) -> tuple[bool, ...]:
    """Which of so many stages have a weight in one of the rows."""
    return tuple(any(len(row) > i and row[i] != 0 for row in rows) for i in range(count))


def ulps(digits: int) -> float:
    """What printing so many may have cost, in units of rounding."""
    return 10.0 ** (16 - digits)


@dataclass(frozen=True, eq=False, repr=False)  # compared by identity: every method is one module constant
class SRATableau(Tableau):
    """Yᵢ = y + dt·Σⱼ aᵢⱼ a(t + c0ⱼ·dt, Yⱼ) + I₁₀/dt·Σⱼ bᵢⱼ b(t + c1ⱼ·dt),   for b that does not depend on y.

    y₁ = y + dt·Σᵢ αᵢ a(Yᵢ) + Σᵢ (β1ᵢ W + β2ᵢ I₁₀/dt) b(t + c1ᵢ·dt)
    """

    name: str
    c0: Row
    c1: Row
    a: Rows  # row i has i entries, or one more if the stages are implicit
    b: Rows
    alpha: Row
    beta1: Row
    beta2: Row
    source: str
    e: Row | None = None  # α − α̂ of the drift's own pair; None: α̂ is Euler's method
    digits: int = 16

    stages = property(lambda self: len(self.alpha))

    @property
    def error_weights(self) -> Row:
        return self.e or (self.alpha[0] - 1, *self.alpha[1:])

    @functools.cached_property
    def times(self) -> tuple[int, ...]:
        """Of each stage the first one where b is the same, −1 where it is not needed."""
        wanted = needed(self.stages, *self.b, self.beta1, self.beta2)
        same = alike(tuple(c if x else None for c, x in zip(self.c1, wanted, strict=True)))
        return tuple(i if x else -1 for i, x in zip(same, wanted, strict=True))

    def __post_init__(self):  # the redundancy of the paper is our checksum
        slack = ulps(self.digits)
        for row, c in zip(self.a, self.c0, strict=True):
            check_sum(row, c, self.source, slack)
        for row, total in ((self.alpha, 1.0), (self.beta1, 1.0), (self.beta2, 0.0), (self.error_weights, 0.0)):
            assert len(row) == self.stages, self.source
            check_sum(row, total, self.source, slack)
        assert len(self.a[-1]) < self.stages or self.a[-1] == self.alpha, self.source  # y₁ is made of the last stage


@dataclass(frozen=True, eq=False, repr=False)
class SRITableau(Tableau):
    """Yᵢ = y + dt·Σⱼ a0ᵢⱼ a(t + c0ⱼ·dt, Yⱼ) + I₁₀/dt·Σⱼ b0ᵢⱼ b(t + c1ⱼ·dt, Zⱼ)

    Zᵢ = y + dt·Σⱼ a1ᵢⱼ a(Yⱼ) + √dt·Σⱼ b1ᵢⱼ b(Zⱼ)
    y₁ = y + dt·Σᵢ αᵢ a(Yᵢ) + Σᵢ (β1ᵢ W + β2ᵢ I₁₁/√dt + β3ᵢ I₁₀/dt + β4ᵢ I₁₁₁/dt) b(Zᵢ)

    Without β3 and β4, and with Euler's method for the drift, the order is one.
    """

    name: str
    c0: Row
    c1: Row
    a0: Rows  # row i has i entries, as of the others
    a1: Rows
    b0: Rows
    b1: Rows
    alpha: Row
    beta1: Row
    beta2: Row
    beta3: Row
    beta4: Row
    source: str
    digits: int = 16

    stages = property(lambda self: len(self.alpha))

    @property
    def error_weights(self) -> Row:
        return (self.alpha[0] - 1, *self.alpha[1:])

    @functools.cached_property
    def same_drift(self) -> tuple[int, ...]:
        return alike(self.c0, self.a0, self.b0)

    @functools.cached_property
    def same_diffusion(self) -> tuple[int, ...]:
        return alike(self.c1, self.a1, self.b1)

    def __post_init__(self):
        slack = ulps(self.digits)
        for rows, cs in ((self.a0, self.c0), (self.a1, self.c1)):
            for row, c in zip(rows, cs, strict=True):
                check_sum(row, c, self.source, slack)
        totals = (self.alpha, 1.0), (self.beta1, 1.0), (self.beta2, 0.0), (self.beta3, 0.0), (self.beta4, 0.0)
        for row, total in totals:
            assert len(row) == self.stages, self.source
            check_sum(row, total, self.source, slack)


@dataclass(frozen=True, eq=False, repr=False)
class AdditiveTableau(Tableau):
    """Yᵢ = y + dt·Σⱼ aᵢⱼ a(t + cⱼ·dt, Yⱼ) + (wᵢ W + hᵢ H) b,   y₁ = y + dt·Σᵢ bᵢ a(Yᵢ) + W b,   err = dt·Σᵢ eᵢ a(Yᵢ)"""

    name: str
    c: Row
    a: Rows
    b: Row
    w: Row
    h: Row
    strong_order: float
    source: str
    e: Row | None = None

    stages = property(lambda self: len(self.b))

    def __post_init__(self):
        for row, c in zip(self.a, self.c, strict=True):
            check_sum(row, c, self.source)
        check_sum(self.b, 1.0, self.source)
        # I₁₀ = dt·(H + W/2) comes out right
        check_sum([b * w for b, w in zip(self.b, self.w, strict=True)], 0.5, self.source)
        check_sum([b * h for b, h in zip(self.b, self.h, strict=True)], 1.0, self.source)
        if self.e:
            check_sum(self.e, 0.0, self.source)


@dataclass(frozen=True, eq=False, repr=False)
class FosterTableau(Tableau):
    """Yᵢ = y + Σⱼ (dt·aᵢⱼ a(t + cⱼ·dt, Yⱼ) + (wᵢⱼ W + hᵢⱼ H) b(t + cⱼ·dt, Yⱼ))

    y₁ = y + Σᵢ (dt·bᵢ a(Yᵢ) + (b_wᵢ W + b_hᵢ H) b(Yᵢ)),   err likewise of e, e_w, e_h
    """

    name: str
    c: Row
    a: Rows  # row i has i entries, as of the others
    w: Rows
    h: Rows
    b: Row
    b_w: Row
    b_h: Row
    commutative_order: float  # strong, where the noise commutes
    source: str
    e: Row | None = None
    e_w: Row | None = None
    e_h: Row | None = None

    stages = property(lambda self: len(self.b))

    @functools.cached_property
    def drifts(self) -> tuple[bool, ...]:
        """Which are needed."""
        return needed(self.stages, *self.a, self.b, self.e or ())

    @functools.cached_property
    def diffusions(self) -> tuple[bool, ...]:
        """Which are needed."""
        return needed(self.stages, *self.w, *self.h, self.b_w, self.b_h, self.e_w or (), self.e_h or ())

    def __post_init__(self):
        for row, c in zip(self.a, self.c, strict=True):
            check_sum(row, c, self.source)
        for row, total in ((self.b, 1.0), (self.b_w, 1.0), (self.b_h, 0.0)):
            assert len(row) == self.stages, self.source
            check_sum(row, total, self.source)
        for row in filter(None, (self.e, self.e_w, self.e_h)):
            check_sum(row, 0.0, self.source)


@dataclass(frozen=True, eq=False, repr=False)
class WeakItoTableau(Tableau):
    """Yᵢ = y + dt·Σⱼ a0ᵢⱼ a(t + c0ⱼ·dt, Yⱼ) + Σⱼ Σₗ b0ᵢⱼ bˡ(t + c1ⱼ·dt, Zˡⱼ) Iₗ

    Zᵏᵢ = y + dt·Σⱼ a1ᵢⱼ a(Yⱼ) + √dt·Σⱼ b1ᵢⱼ bᵏ(Zᵏⱼ),   Vˡᵢ = y + √dt·Σⱼ b2ᵢⱼ bˡ(Zˡⱼ)
    y₁ = y + dt·Σᵢ αᵢ a(Yᵢ) + Σᵢ Σₖ bᵏ(Zᵏᵢ) (β1ᵢ Iₖ + β2ᵢ Iₖₖ/√dt) + Σᵢ Σₖ Σₗ≠ₖ bᵏ(t, Vˡᵢ) (β3ᵢ Iₖ + β4ᵢ Iₖₗ/√dt)

    with random numbers I of few values; the first stage is at y.
    """

    name: str
    c0: Row
    c1: Row
    a0: Rows
    a1: Rows
    b0: Rows
    b1: Rows
    b2: Rows  # square
    alpha: Row
    beta1: Row
    beta2: Row
    beta3: Row
    beta4: Row
    source: str
    weak_order: int = 2

    stages = property(lambda self: len(self.alpha))

    @functools.cached_property
    def same_drift(self) -> tuple[int, ...]:
        """Of each stage the first one where a is the same, −1 where it is not needed."""
        wanted = needed(self.stages, *self.a0, *self.a1, self.alpha)
        same = alike(self.c0, self.a0, self.b0)
        return tuple(i if x else -1 for i, x in zip(same, wanted, strict=True))

    def __post_init__(self):
        for rows, cs in ((self.a0, self.c0), (self.a1, self.c1)):
            for row, c in zip(rows, cs, strict=True):
                check_sum(row, c, self.source)
        sign = 1.0 if sum(self.beta1) > 0 else -1.0  # W and −W are alike
        totals = (self.alpha, 1.0), (self.beta1, sign), (self.beta2, 0.0), (self.beta3, 0.0), (self.beta4, 0.0)
        for row, total in totals:
            assert len(row) == self.stages, self.source
            check_sum(row, total, self.source)


@dataclass(frozen=True, eq=False, repr=False)
class WeakStratonovichTableau(Tableau):
    """Yᵢ = y + dt·Σⱼ a0ᵢⱼ a(t + c0ⱼ·dt, Yⱼ) + Σⱼ Σₗ b0ᵢⱼ bˡ(t + c1ⱼ·dt, Zˡⱼ) Jₗ

    Zᵏᵢ = y + dt·Σⱼ a1ᵢⱼ a(Yⱼ) + Σⱼ b1ᵢⱼ bᵏ(Zᵏⱼ) Jₖ + Σⱼ Σₗ≠ₖ b3ᵢⱼ bˡ(Zˡⱼ) Jₗ,   Vᵏᵢ = y + Σⱼ Σₗ≠ₖ b2ᵢⱼ bˡ(Zˡⱼ) Jₖₗ/√dt
    y₁ = y + dt·Σᵢ αᵢ a(Yᵢ) + Σᵢ Σₖ β1ᵢ bᵏ(Zᵏᵢ) Jₖ + √dt·Σᵢ Σₖ β2ᵢ bᵏ(t, Vᵏᵢ)

    with random numbers J of few values.
    """

    name: str
    c0: Row
    c1: Row
    a0: Rows
    a1: Rows
    b0: Rows
    b1: Rows
    b2: Rows
    b3: Rows
    alpha: Row
    beta1: Row
    beta2: Row
    source: str
    weak_order: int = 2

    stages = property(lambda self: len(self.alpha))

    @functools.cached_property
    def same_drift(self) -> tuple[int, ...]:
        """Of each stage the first one where a is the same, −1 where it is not needed."""
        wanted = needed(self.stages, *self.a0, *self.a1, self.alpha)
        same = alike(self.c0, self.a0, self.b0)
        return tuple(i if x else -1 for i, x in zip(same, wanted, strict=True))

    def __post_init__(self):
        for rows, cs in ((self.a0, self.c0), (self.a1, self.c1)):
            for row, c in zip(rows, cs, strict=True):
                check_sum(row, c, self.source)
        for row, total in ((self.alpha, 1.0), (self.beta1, 1.0), (self.beta2, 0.0)):
            assert len(row) == self.stages, self.source
            check_sum(row, total, self.source)


# One row of a table stays one row here, however many stages it has.
# fmt: off


# -------------------- strong order 3/2, additive noise -----------------------------------------------------------------

SRA1 = SRATableau(
    name="SRA1",
    c0=(0.0, 3 / 4),
    c1=(1.0, 0.0),
    a=(
        (),
        (3 / 4,),
    ),
    b=(
        (),
        (3 / 2,),
    ),
    alpha=(1 / 3, 2 / 3),
    beta1=(1.0, 0.0),
    beta2=(-1.0, 1.0),
    source="Rößler 2010, doi:10.1137/09076636X",
)

SRA2 = SRATableau(
    name="SRA2",
    c0=(0.0, 3 / 4),
    c1=(1 / 3, 1.0),
    a=(
        (),
        (3 / 4,),
    ),
    b=(
        (),
        (3 / 2,),
    ),
    alpha=(1 / 3, 2 / 3),
    beta1=(0.0, 1.0),
    beta2=(3 / 2, -3 / 2),
    source="Rößler 2010, doi:10.1137/09076636X",
)

SRA3 = SRATableau(
    name="SRA3",
    c0=(0.0, 1.0, 1 / 2),
    c1=(1.0, 0.0, 0.0),
    a=(
        (),
        (1.0,),
        (1 / 4, 1 / 4),
    ),
    b=(
        (),
        (0.0,),
        (1.0, 1 / 2),
    ),
    alpha=(1 / 6, 1 / 6, 2 / 3),
    beta1=(1.0, 0.0, 0.0),
    beta2=(-1.0, 1.0, 0.0),
    source="Rößler 2010, doi:10.1137/09076636X",
)

SOSRA = SRATableau(
    name="SOSRA",
    c0=(0.0, 0.6923962376159507, 1.0),
    c1=(0.0, 0.041248171110700504, 1.0),
    a=(
        (),
        (0.6923962376159507,),
        (-3.1609142252828395, 4.1609142252828395),
    ),
    b=(
        (),
        (1.3371632704399763,),
        (1.442371048468624, 1.8632741501139225),
    ),
    alpha=(0.2889874966892885, 0.6859880440839937, 0.025024459226717772),
    beta1=(-16.792534242221663, 17.514995785380226, 0.27753845684143835),
    beta2=(0.4237535769069274, 0.6010381474428539, -1.0247917243497813),
    digits=14,
    source="Rackauckas, Nie 2020, arXiv:1804.04344",
)

SOSRA2 = SRATableau(
    name="SOSRA2",
    c0=(0.0, 1.0, 1.0),
    c1=(0.0, 1.0, 1.0),
    a=(
        (),
        (1.0,),
        (0.9511849235504364, 0.04881507644956362),
    ),
    b=(
        (),
        (0.7686101171003622,),
        (0.43886792994934987, 0.7490415909204886),
    ),
    alpha=(0.4999999999999998, -0.9683897375354181, 1.4683897375354185),
    beta1=(0.0, 0.92438032145683, 0.07561967854316998),
    beta2=(1.0, -0.8169981105823436, -0.18300188941765633),
    digits=14,
    source="Rackauckas, Nie 2020, arXiv:1804.04344",
)

SKENCARP = SRATableau(
    name="SKenCarp",
    c0=(0.0, 1767732205903 / 2027836641118, 3 / 5, 1.0),
    c1=(0.0, 0.0, 0.0, 1.0),
    a=(
        (0.0,),
        (1767732205903 / 4055673282236, 1767732205903 / 4055673282236),
        (2746238789719 / 10658868560708, -640167445237 / 6845629431997, 1767732205903 / 4055673282236),
        (1471266399579 / 7840856788654, -4482444167858 / 7529755066697, 11266239266428 / 11593286722821, 1767732205903 / 4055673282236),
    ),
    b=(
        (),
        (-12.246764387585056,),
        (0.0, 0.0),
        (0.0, 0.0, -14.432096958608753),
    ),
    alpha=(1471266399579 / 7840856788654, -4482444167858 / 7529755066697, 11266239266428 / 11593286722821, 1767732205903 / 4055673282236),
    beta1=(0.0, 0.0, 0.0, 1.0),
    beta2=(1.0, 0.0, 0.0, -1.0),
    e=(-0.027099261876665316, -0.11013520969201586, 0.10306492520138458, 0.0341695463672966),
    source="Rackauckas, Nie 2020, arXiv:1804.04344",
)

# -------------------- strong order 3/2, diagonal noise -----------------------------------------------------------------

SRIW1 = SRITableau(
    name="SRIW1",
    c0=(0.0, 3 / 4, 0.0, 0.0),
    c1=(0.0, 1 / 4, 1.0, 1 / 4),
    a0=(
        (),
        (3 / 4,),
        (0.0, 0.0),
        (0.0, 0.0, 0.0),
    ),
    a1=(
        (),
        (1 / 4,),
        (1.0, 0.0),
        (0.0, 0.0, 1 / 4),
    ),
    b0=(
        (),
        (3 / 2,),
        (0.0, 0.0),
        (0.0, 0.0, 0.0),
    ),
    b1=(
        (),
        (1 / 2,),
        (-1.0, 0.0),
        (-5.0, 3.0, 1 / 2),
    ),
    alpha=(1 / 3, 2 / 3, 0.0, 0.0),
    beta1=(-1.0, 4 / 3, 2 / 3, 0.0),
    beta2=(-1.0, 4 / 3, -1 / 3, 0.0),
    beta3=(2.0, -4 / 3, -2 / 3, 0.0),
    beta4=(-2.0, 5 / 3, -2 / 3, 1.0),
    source="Rößler 2010, doi:10.1137/09076636X",
)

SRIW2 = SRITableau(
    name="SRIW2",
    c0=(0.0, 1.0, 1 / 2, 0.0),
    c1=(0.0, 1 / 4, 1.0, 1 / 4),
    a0=(
        (),
        (1.0,),
        (1 / 4, 1 / 4),
        (0.0, 0.0, 0.0),
    ),
    a1=(
        (),
        (1 / 4,),
        (1.0, 0.0),
        (0.0, 0.0, 1 / 4),
    ),
    b0=(
        (),
        (0.0,),
        (1.0, 1 / 2),
        (0.0, 0.0, 0.0),
    ),
    b1=(
        (),
        (-1 / 2,),
        (1.0, 0.0),
        (2.0, -1.0, 1 / 2),
    ),
    alpha=(1 / 6, 1 / 6, 2 / 3, 0.0),
    beta1=(-1.0, 4 / 3, 2 / 3, 0.0),
    beta2=(1.0, -4 / 3, 1 / 3, 0.0),
    beta3=(2.0, -4 / 3, -2 / 3, 0.0),
    beta4=(-2.0, 5 / 3, -2 / 3, 1.0),
    source="Rößler 2010, doi:10.1137/09076636X",
)

SOSRI = SRITableau(
    name="SOSRI",
    c0=(0.0, -0.04199224421316468, 0.7898405466170333, 3.7504010171562823),
    c1=(0.0, 0.26204282091330466, 0.05879875232001765, 0.758661169101175),
    a0=(
        (),
        (-0.04199224421316468,),
        (2.842612915017106, -2.0527723684000727),
        (4.338237071435815, -2.8895936137439793, 2.3017575594644466),
    ),
    a1=(
        (),
        (0.26204282091330466,),
        (0.20903646383505375, -0.1502377115150361),
        (0.05836595312746999, 0.6149440396332373, 0.08535117634046772),
    ),
    b0=(
        (),
        (-0.21641093549612528,),
        (1.5336352863679572, 0.26066223492647056),
        (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017),
    ),
    b1=(
        (),
        (-0.5119011827621657,),
        (2.67767339866713, -4.9395031322250995),
        (0.15580956238299215, 3.2361551006624674, -1.4223118283355949),
    ),
    alpha=(1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
    beta1=(-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
    beta2=(0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
    beta3=(2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
    beta4=(0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704),
    digits=13,
    source="Rackauckas, Nie 2020, arXiv:1804.04344",
)

SOSRI2 = SRITableau(
    name="SOSRI2",
    c0=(0.0, 0.13804532298278663, 0.9999999999999992, 0.9999999999999994),
    c1=(0.0, 0.45605532163856893, 0.999999999999996, 0.9999999999999962),
    a0=(
        (),
        (0.13804532298278663,),
        (0.5818361298250374, 0.4181638701749618),
        (0.4670018408674211, 0.8046204792187386, -0.27162232008616016),
    ),
    a1=(
        (),
        (0.45605532163856893,),
        (0.7555807846451692, 0.24441921535482677),
        (0.6981181143266059, 0.3453277086024727, -0.04344582292908241),
    ),
    b0=(
        (),
        (0.08852381537667678,),
        (1.0317752458971061, 0.4563552922077882),
        (1.73078280444124, -0.46089678470929774, -0.9637509618944188),
    ),
    b1=(
        (),
        (0.6753186815412179,),
        (-0.07452812525785148, -0.49783736486149366),
        (-0.5591906709928903, 0.022696571806569924, -0.8984927888368557),
    ),
    alpha=(-0.15036858140642623, 0.7545275856696072, 0.686995463807979, -0.2911544680711602),
    beta1=(-0.45315689727309133, 0.8330937231303951, 0.3792843195533544, 0.24077885458934192),
    beta2=(-0.4994383733810986, 0.9181786186154077, -0.25613778661003145, -0.16260245862427797),
    beta3=(1.4531568972730915, -0.8330937231303933, -0.3792843195533583, -0.24077885458934023),
    beta4=(-0.4976090683622265, 0.9148155835648892, -1.4102107084476505, 0.9930041932449877),
    digits=12,
    source="Rackauckas, Nie 2020, arXiv:1804.04344",
)

# -------------------- from W and its space-time Lévy area H, Stratonovich ----------------------------------------------

SEA = AdditiveTableau(
    name="SEA",
    c=(0.0,),
    a=(
        (),
    ),
    b=(1.0,),
    w=(1 / 2,),
    h=(1.0,),
    strong_order=1.0,
    source="Foster, dos Reis, Strange 2024, arXiv:2210.17543, eq. (5.8)",
)

SHARK = AdditiveTableau(
    name="ShARK",
    c=(0.0, 5 / 6),
    a=(
        (),
        (5 / 6,),
    ),
    b=(2 / 5, 3 / 5),
    w=(0.0, 5 / 6),
    h=(1.0, 1.0),
    strong_order=1.5,
    e=(-3 / 5, 3 / 5),
    source="Foster, dos Reis, Strange 2024, arXiv:2210.17543, eq. (6.1)",
)

GENERALSHARK = FosterTableau(
    name="GeneralShARK",
    c=(0.0, 0.0, 5 / 6),
    a=(
        (),
        (0.0,),
        (0.0, 5 / 6),
    ),
    w=(
        (),
        (0.0,),
        (0.0, 5 / 6),
    ),
    h=(
        (),
        (1.0,),
        (1.0, 0.0),
    ),
    b=(0.0, 2 / 5, 3 / 5),
    b_w=(0.0, 2 / 5, 3 / 5),
    b_h=(0.0, 6 / 5, -6 / 5),
    commutative_order=1.0,
    source="Foster, dos Reis, Strange 2024, arXiv:2210.17543",
)

SPARK = FosterTableau(
    name="SPaRK",
    c=(0.0, 1 / 2, 1.0),
    a=(
        (),
        (1 / 2,),
        (0.0, 1.0),
    ),
    w=(
        (),
        (1 / 2,),
        (0.0, 1.0),
    ),
    h=(
        (),
        (1.7320508075688772,),
        (0.0, 0.0),
    ),
    b=(0.2113248654051871, 0.5773502691896257, 0.2113248654051871),
    b_w=(0.2113248654051871, 0.5773502691896257, 0.2113248654051871),
    b_h=(1.0, 0.0, -1.0),
    commutative_order=1.0,
    e=(-0.28867513459481287, 0.5773502691896257, -0.28867513459481287),
    e_w=(-0.28867513459481287, 0.5773502691896257, -0.28867513459481287),
    e_h=(1.0, 0.0, -1.0),
    source="Foster 2023, arXiv:2311.14201",
)

SLOWRK = FosterTableau(
    name="SlowRK",
    c=(0.0, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 3 / 4, 1.0),
    a=(
        (),
        (1 / 2,),
        (1 / 2, 0.0),
        (1 / 2, 0.0, 0.0),
        (1 / 2, 0.0, 0.0, 0.0),
        (3 / 4, 0.0, 0.0, 0.0, 0.0),
        (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ),
    w=(
        (),
        (0.0,),
        (0.0, 1 / 2),
        (0.0, 0.0, 1 / 2),
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 0.0, 0.0, 3 / 4, 0.0),
        (0.0, 0.0, 1 / 2, 0.0, 0.0, 0.0),
    ),
    h=(
        (),
        (0.0,),
        (0.0, 0.0),
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 3 / 2, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ),
    b=(1 / 3, 0.0, 0.0, 0.0, 0.0, 2 / 3, 0.0),
    b_w=(0.0, 1 / 6, 1 / 3, 1 / 3, 1 / 6, 0.0, 0.0),
    b_h=(0.0, 0.0, 0.0, 2.0, 0.0, 0.0, -2.0),
    commutative_order=1.5,
    source="Foster, dos Reis, Strange 2024, arXiv:2210.17543, eq. (6.2)",
)

# -------------------- weak order 2, Itô --------------------------------------------------------------------------------

DRI1 = WeakItoTableau(
    name="DRI1",
    c0=(0.0, 1 / 2, 1.0),
    c1=(0.0, 342 / 491, 342 / 491),
    a0=(
        (),
        (1 / 2,),
        (-1.0, 2.0),
    ),
    a1=(
        (),
        (342 / 491,),
        (342 / 491, 0.0),
    ),
    b0=(
        (),
        (0.3550510257216822,),
        (1.5797958971132713, 0.0),
    ),
    b1=(
        (),
        (0.8345883285834635,),
        (-0.8345883285834635, 0.0),
    ),
    b2=(
        (0.0, 0.0, 0.0),
        (-0.4404947330910052, -0.20213356443708744, -0.20213356443708744),
        (0.4404947330910052, 0.20213356443708744, 0.20213356443708744),
    ),
    alpha=(1 / 6, 2 / 3, 1 / 6),
    beta1=(193 / 684, 491 / 1368, 491 / 1368),
    beta2=(0.0, 0.5990977621849132, -0.5990977621849132),
    beta3=(-4955 / 7072, 4955 / 14144, 4955 / 14144),
    beta4=(0.0, -0.5918827808310898, 0.5918827808310898),
    source="Debrabant, Rößler 2009, doi:10.1016/j.apnum.2008.03.012",
)

RI1 = WeakItoTableau(
    name="RI1",
    c0=(0.0, 2 / 3, 2 / 3),
    c1=(0.0, 1.0, 1.0),
    a0=(
        (),
        (2 / 3,),
        (-1 / 3, 1.0),
    ),
    a1=(
        (),
        (1.0,),
        (1.0, 0.0),
    ),
    b0=(
        (),
        (1.0,),
        (0.0, 0.0),
    ),
    b1=(
        (),
        (1.0,),
        (-1.0, 0.0),
    ),
    b2=(
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 0.0),
        (-1.0, 0.0, 0.0),
    ),
    alpha=(1 / 4, 1 / 2, 1 / 4),
    beta1=(1 / 2, 1 / 4, 1 / 4),
    beta2=(0.0, 1 / 2, -1 / 2),
    beta3=(-1 / 2, 1 / 4, 1 / 4),
    beta4=(0.0, 1 / 2, -1 / 2),
    source="Rößler 2009, doi:10.1137/060673308",
)

RI3 = WeakItoTableau(
    name="RI3",
    c0=(0.0, 1.0, 1 / 2),
    c1=(0.0, 1.0, 1.0),
    a0=(
        (),
        (1.0,),
        (1 / 4, 1 / 4),
    ),
    a1=(
        (),
        (1.0,),
        (1.0, 0.0),
    ),
    b0=(
        (),
        (-0.3797958971132712,),
        (0.8449489742783178, 0.0),
    ),
    b1=(
        (),
        (1.0,),
        (-1.0, 0.0),
    ),
    b2=(
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 0.0),
        (-1.0, 0.0, 0.0),
    ),
    alpha=(1 / 6, 1 / 6, 2 / 3),
    beta1=(1 / 2, 1 / 4, 1 / 4),
    beta2=(0.0, 1 / 2, -1 / 2),
    beta3=(-1 / 2, 1 / 4, 1 / 4),
    beta4=(0.0, 1 / 2, -1 / 2),
    source="Rößler 2009, doi:10.1137/060673308",
)

RI5 = WeakItoTableau(
    name="RI5",
    c0=(0.0, 1.0, 5 / 12),
    c1=(0.0, 1 / 4, 1 / 4),
    a0=(
        (),
        (1.0,),
        (25 / 144, 35 / 144),
    ),
    a1=(
        (),
        (1 / 4,),
        (1 / 4, 0.0),
    ),
    b0=(
        (),
        (1 / 3,),
        (-5 / 6, 0.0),
    ),
    b1=(
        (),
        (1 / 2,),
        (-1 / 2, 0.0),
    ),
    b2=(
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 0.0),
        (-1.0, 0.0, 0.0),
    ),
    alpha=(1 / 10, 3 / 14, 24 / 35),
    beta1=(1.0, -1.0, -1.0),
    beta2=(0.0, 1.0, -1.0),
    beta3=(1 / 2, -1 / 4, -1 / 4),
    beta4=(0.0, 1 / 2, -1 / 2),
    source="Rößler 2009, doi:10.1137/060673308",
)

RI6 = WeakItoTableau(
    name="RI6",
    c0=(0.0, 1.0, 0.0),
    c1=(0.0, 1.0, 1.0),
    a0=(
        (),
        (1.0,),
        (0.0, 0.0),
    ),
    a1=(
        (),
        (1.0,),
        (1.0, 0.0),
    ),
    b0=(
        (),
        (1.0,),
        (0.0, 0.0),
    ),
    b1=(
        (),
        (1.0,),
        (-1.0, 0.0),
    ),
    b2=(
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 0.0),
        (-1.0, 0.0, 0.0),
    ),
    alpha=(1 / 2, 1 / 2, 0.0),
    beta1=(1 / 2, 1 / 4, 1 / 4),
    beta2=(0.0, 1 / 2, -1 / 2),
    beta3=(-1 / 2, 1 / 4, 1 / 4),
    beta4=(0.0, 1 / 2, -1 / 2),
    source="Rößler 2009, doi:10.1137/060673308",
)

PL1WM = replace(RI6, name="PL1WM", source="Kloeden, Platen, Numerical Solution of SDEs, 15.1, eq. (1.3)")

RDI1WM = WeakItoTableau(
    name="RDI1WM",
    c0=(0.0, 2 / 3),
    c1=(0.0, 0.0),
    a0=(
        (),
        (2 / 3,),
    ),
    a1=(
        (),
        (0.0,),
    ),
    b0=(
        (),
        (2 / 3,),
    ),
    b1=(
        (),
        (0.0,),
    ),
    b2=(
        (0.0, 0.0),
        (0.0, 0.0),
    ),
    alpha=(1 / 4, 3 / 4),
    beta1=(1.0, 0.0),
    beta2=(0.0, 0.0),
    beta3=(0.0, 0.0),
    beta4=(0.0, 0.0),
    weak_order=1,
    source="Debrabant, Rößler 2009, doi:10.1016/j.apnum.2008.03.012",
)

RDI2WM = WeakItoTableau(
    name="RDI2WM",
    c0=(0.0, 1.0, 0.0),
    c1=(0.0, 2 / 3, 2 / 3),
    a0=(
        (),
        (1.0,),
        (0.0, 0.0),
    ),
    a1=(
        (),
        (2 / 3,),
        (2 / 3, 0.0),
    ),
    b0=(
        (),
        (1.0,),
        (0.0, 0.0),
    ),
    b1=(
        (),
        (0.816496580927726,),
        (-0.816496580927726, 0.0),
    ),
    b2=(
        (0.0, 0.0, 0.0),
        (1.4142135623730951, 0.0, 0.0),
        (-1.4142135623730951, 0.0, 0.0),
    ),
    alpha=(1 / 2, 1 / 2, 0.0),
    beta1=(1 / 4, 3 / 8, 3 / 8),
    beta2=(0.0, 0.6123724356957945, -0.6123724356957945),
    beta3=(-1 / 4, 1 / 8, 1 / 8),
    beta4=(0.0, 0.3535533905932738, -0.3535533905932738),
    source="Debrabant, Rößler 2009, doi:10.1016/j.apnum.2008.03.012",
)

RDI3WM = WeakItoTableau(
    name="RDI3WM",
    c0=(0.0, 1 / 2, 3 / 4),
    c1=(0.0, 2 / 3, 2 / 3),
    a0=(
        (),
        (1 / 2,),
        (0.0, 3 / 4),
    ),
    a1=(
        (),
        (2 / 3,),
        (2 / 3, 0.0),
    ),
    b0=(
        (),
        (0.08957380768465473,),
        (1.0578196442365089, 0.0),
    ),
    b1=(
        (),
        (0.816496580927726,),
        (-0.816496580927726, 0.0),
    ),
    b2=(
        (0.0, 0.0, 0.0),
        (1.4142135623730951, 0.0, 0.0),
        (-1.4142135623730951, 0.0, 0.0),
    ),
    alpha=(2 / 9, 1 / 3, 4 / 9),
    beta1=(1 / 4, 3 / 8, 3 / 8),
    beta2=(0.0, 0.6123724356957945, -0.6123724356957945),
    beta3=(-1 / 4, 1 / 8, 1 / 8),
    beta4=(0.0, 0.3535533905932738, -0.3535533905932738),
    source="Debrabant, Rößler 2009, doi:10.1016/j.apnum.2008.03.012",
)

RDI4WM = WeakItoTableau(
    name="RDI4WM",
    c0=(0.0, 1 / 2, 1.0),
    c1=(0.0, 2 / 3, 2 / 3),
    a0=(
        (),
        (1 / 2,),
        (-1.0, 2.0),
    ),
    a1=(
        (),
        (2 / 3,),
        (2 / 3, 0.0),
    ),
    b0=(
        (),
        (0.3550510257216822,),
        (1.5797958971132713, 0.0),
    ),
    b1=(
        (),
        (0.816496580927726,),
        (-0.816496580927726, 0.0),
    ),
    b2=(
        (0.0, 0.0, 0.0),
        (1.4142135623730951, 0.0, 0.0),
        (-1.4142135623730951, 0.0, 0.0),
    ),
    alpha=(1 / 6, 2 / 3, 1 / 6),
    beta1=(1 / 4, 3 / 8, 3 / 8),
    beta2=(0.0, 0.6123724356957945, -0.6123724356957945),
    beta3=(-1 / 4, 1 / 8, 1 / 8),
    beta4=(0.0, 0.3535533905932738, -0.3535533905932738),
    source="Debrabant, Rößler 2009, doi:10.1016/j.apnum.2008.03.012",
)

# -------------------- weak order 2, Stratonovich -----------------------------------------------------------------------

RS1 = WeakStratonovichTableau(
    name="RS1",
    c0=(0.0, 0.0, 1.0, 0.0),
    c1=(0.0, 0.0, 1.0, 1.0),
    a0=(
        (),
        (0.0,),
        (1.0, 0.0),
        (0.0, 0.0, 0.0),
    ),
    a1=(
        (),
        (0.0,),
        (1.0, 0.0),
        (1.0, 0.0, 0.0),
    ),
    b0=(
        (),
        (0.0,),
        (1 / 4, 3 / 4),
        (0.0, 0.0, 0.0),
    ),
    b1=(
        (),
        (2 / 3,),
        (1 / 12, 1 / 4),
        (-5 / 4, 1 / 4, 2.0),
    ),
    b2=(
        (),
        (1.0,),
        (-1.0, 0.0),
        (0.0, 0.0, 0.0),
    ),
    b3=(
        (),
        (0.0,),
        (1 / 4, 3 / 4),
        (1 / 4, 3 / 4, 0.0),
    ),
    alpha=(0.0, 0.0, 1 / 2, 1 / 2),
    beta1=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    beta2=(0.0, -1 / 4, 1 / 4, 0.0),
    source="Rößler 2007, doi:10.1007/s10543-007-0130-3",
)

RS2 = WeakStratonovichTableau(
    name="RS2",
    c0=(0.0, 2 / 3, 2 / 3, 0.0),
    c1=(0.0, 0.0, 1.0, 1.0),
    a0=(
        (),
        (2 / 3,),
        (1 / 6, 1 / 2),
        (0.0, 0.0, 0.0),
    ),
    a1=(
        (),
        (0.0,),
        (1.0, 0.0),
        (1.0, 0.0, 0.0),
    ),
    b0=(
        (),
        (0.0,),
        (1 / 4, 3 / 4),
        (0.0, 0.0, 0.0),
    ),
    b1=(
        (),
        (2 / 3,),
        (1 / 12, 1 / 4),
        (-5 / 4, 1 / 4, 2.0),
    ),
    b2=(
        (),
        (1.0,),
        (-1.0, 0.0),
        (0.0, 0.0, 0.0),
    ),
    b3=(
        (),
        (0.0,),
        (1 / 4, 3 / 4),
        (1 / 4, 3 / 4, 0.0),
    ),
    alpha=(1 / 4, 1 / 4, 1 / 2, 0.0),
    beta1=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    beta2=(0.0, -1 / 4, 1 / 4, 0.0),
    source="Rößler 2007, doi:10.1007/s10543-007-0130-3",
)
