"""What every child process of the stack has in common."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(how: signal.Signals) -> Callable[[], None] | None:
    """Have the kernel send this signal to the child when the thread that started it ends, however it ends (Linux only).

    For `preexec_fn`: it runs between fork and exec and after a change of user, which would undo it; the library is
    loaded before.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, how, 0, 0, 0)

    return ask
