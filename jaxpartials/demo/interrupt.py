"""Ctrl-C as a wish to stop: noted at once, granted where stopping leaves something to show."""

import os
import signal
from typing import Any


class Interrupt:
    """Inside `with Interrupt() as stop:` the first Ctrl-C makes `stop.requested` true; the second interrupts.

    A `KeyboardInterrupt` is not enough: raised while the garbage collector runs a callback of JAX's, it is
    printed and lost.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Interrupt":
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: Any) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # print() may be what was interrupted, and must not be entered twice.
        os.write(2, b"\nstopping as soon as possible; Ctrl-C again stops at once\n")
