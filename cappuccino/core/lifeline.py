"""A process that must not outlive the one that started it.

The runner gives a child the read end of a pipe as stdin and keeps the only write end. One byte says go: it comes after
the runner has written down which process this is. End of file says that the runner is gone, in whatever way it went: then
the child's whole process group is killed at once, as a crash would; what matters is in the record already.
"""

from __future__ import annotations

import os
import signal
import threading

from cappuccino.core.errors import PREEMPTED_EXIT_CODE

VARIABLE = "CAPPUCCINO_PARENT_PIPE"
GO = b"g"


def watch() -> bool:
    """Every entry point calls this first. Whether somebody supervises this process: False at once; True after the go, with
    stdin replaced by /dev/null so that no child of this process takes part."""
    if os.environ.pop(VARIABLE, None) != "stdin":
        return False
    pipe = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if os.read(pipe, 1) != GO:
        os._exit(PREEMPTED_EXIT_CODE)  # nobody knows of this process: it must not begin
    threading.Thread(target=_until_end_of_file, args=(pipe,), name="lifeline", daemon=True).start()
    return True


def _until_end_of_file(pipe: int) -> None:
    while os.read(pipe, 64):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
