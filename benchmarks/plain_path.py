"""What the plain path costs: `JAXDIFFEQ_PLAIN=1` over the fast path, in turns. No target: it is there to be right."""

from __future__ import annotations

import common
from before_after import HERE, Checkout, cases, contest


def main() -> None:
    fast, plain = Checkout(HERE, JAXDIFFEQ_PLAIN="0"), Checkout(HERE, JAXDIFFEQ_PLAIN="1")
    names = {"before µs": "fast µs", "after µs": "plain µs", "after / before": "plain / fast"}
    names |= {"compile before, CPU s": "compile fast, CPU s", "compile after / before": "compile plain / fast"}
    rows = ({names.get(k, k): v for k, v in contest(name, fast, plain).items()} for name in cases())
    common.report("plain_path", "The plain path over the fast one", common.gather(rows))


if __name__ == "__main__":
    main()
