"""Named places where a test may kill the process, as SIGKILL does: no cleanup, no flush.

`CAPPUCCINO_FAILPOINT=name` dies at the first visit of that place, `name:3` at the third. Unset, a visit
costs one comparison. The names are part of the kill matrix in tests/unit/trading/test_kills.py.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("CAPPUCCINO_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def reach(name: str) -> None:
    """Say that execution is at `name`; does not return when this is the visit that kills."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
