"""Waking up when files in a directory change, for whoever follows logs.

Nothing heavier than inotify is imported here: `bay logs` pays for it at every start.
"""

from __future__ import annotations

from runtime.linux import inotify

_INTERESTING = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_MOVED_FROM


class FileChanges:
    """A descriptor that is readable after a change below one of the watched directories."""

    def __init__(self) -> None:
        self._inotify = inotify.Inotify()

    def watch(self, directory: str) -> None:
        """Watch the files of `directory`; raises OSError when it is not there."""
        self._inotify.add(directory, _INTERESTING)

    def fileno(self) -> int:
        return self._inotify.fileno()

    def clear(self) -> None:
        """Forget the changes so far; whoever calls this reads the files afterwards."""
        while self._inotify.read():
            pass

    def close(self) -> None:
        self._inotify.close()
