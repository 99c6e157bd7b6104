"""Has the daemon started again when it is killed: it asks the launcher, which outlives it.

Light to import: `bay daemon stop` takes the wish back by `release`, too.
"""

from __future__ import annotations

import os

from runtime.linux import sockets

SOCKET = "launcher.sock"


def release(run: str) -> bool:
    """Have no daemon of the instance at `run` started again; whether a launcher was there.

    For the moment between the end of a daemon that was killed and the start of the next one;
    a daemon that is told to end says so itself.
    """
    try:
        with sockets.connect(os.path.join(run, SOCKET)) as connection:
            sockets.send(connection, {"op": "release"})
            sockets.receive(connection)
    except (OSError, EOFError):
        return False
    return True
