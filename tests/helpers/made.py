"""Every method of `jaxdiffeq.methods`, with its options left out, by name."""

import types
from typing import Any

from jaxdiffeq import methods

_ALL = {name: m() for name, m in vars(methods).items() if isinstance(m, types.FunctionType) and name[0].isupper()}
MADE: dict[str, Any] = {name: m for name, m in _ALL.items() if not m.takes_noise}
NOISY: dict[str, Any] = {name: m for name, m in _ALL.items() if m.takes_noise}
