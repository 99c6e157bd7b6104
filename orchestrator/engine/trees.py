"""Directories that are watched for whoever follows a tree of files: inotify(7).

It tells where something changed, never what: whoever asks looks at the files. A queue that
overflowed is told, too, since the changes that were lost may be anywhere.
"""

from __future__ import annotations

import errno
import os
import select

from runtime.linux import inotify

LIMITS = {
    errno.ENOSPC: "/proc/sys/fs/inotify/max_user_watches",
    errno.EMFILE: "/proc/sys/fs/inotify/max_user_instances",
}
_MASK = (
    inotify.IN_MODIFY
    | inotify.IN_ATTRIB
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
    | inotify.IN_ONLYDIR
    | inotify.IN_DONT_FOLLOW
    | inotify.IN_EXCL_UNLINK
)
_READS = 64  # buffers taken at once; whoever writes without end is not waited for


class WatchLimit(Exception):
    """No further directory can be watched; `setting` is the file that holds the limit."""

    def __init__(self, setting: str) -> None:
        super().__init__(f"the limit in {setting} is reached")
        self.setting = setting


class DirectoryWatches:
    """Watches on single directories; a directory that moves away takes its watch along.

    `wake` may be called from any thread and ends a `gather` that waits.
    """

    def __init__(self) -> None:
        try:
            self._inotify = inotify.Inotify()
        except OSError as exc:
            raise _limit(exc) from exc
        self._directories: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._inotify.fileno(), select.POLLIN)
        self._poll.register(self._alarm, select.POLLIN)

    def enter(self, directory: str) -> None:
        """Watch a directory (not what is below it), by this name alone. Raises OSError,
        WatchLimit."""
        try:
            number = self._inotify.add(directory, _MASK)
        except OSError as exc:
            raise _limit(exc) from exc
        known = self._directories.get(number)
        if known is not None and known != directory:
            # It has been renamed: the watch belongs to the directory, not to its name.
            self._numbers.pop(known, None)
        former = self._numbers.get(directory)
        if former is not None and former != number:
            # Another directory bears the name now.
            self._release(former)
        self._directories[number] = directory
        self._numbers[directory] = number

    def holds(self, directory: str) -> bool:
        """Whether what this name meant when it was entered is watched still."""
        return directory in self._numbers

    def leave(self, directory: str) -> None:
        """Watch it no more; one that is not watched is no error."""
        number = self._numbers.pop(directory, None)
        if number is not None:
            self._release(number)

    def gather(self, timeout: float | None) -> tuple[set[str], bool]:
        """Wait for up to `timeout` seconds; the paths where something changed, and whether
        changes were lost."""
        ready = {fd for fd, _ in self._poll.poll(None if timeout is None else timeout * 1000)}
        if self._alarm in ready:
            os.eventfd_read(self._alarm)
        if self._inotify.fileno() not in ready:
            return set(), False
        paths: set[str] = set()
        lost = False
        for _ in range(_READS):
            for event in self._inotify.read():
                if event.mask & inotify.IN_Q_OVERFLOW:
                    lost = True
                    continue
                directory = self._directories.get(event.watch)
                if directory is None:
                    continue
                paths.add(f"{directory.rstrip('/')}/{event.name}" if event.name else directory)
                if event.mask & inotify.IN_IGNORED:
                    del self._directories[event.watch]
                    if self._numbers.get(directory) == event.watch:
                        del self._numbers[directory]
        return paths, lost

    def wake(self) -> None:
        os.eventfd_write(self._alarm, 1)

    def release(self) -> None:
        """Watch nothing any more; only `wake` and `close` may be called then."""
        self._directories.clear()
        self._numbers.clear()
        self._inotify.close()

    def close(self) -> None:
        """After `release`."""
        os.close(self._alarm)

    def __len__(self) -> int:
        return len(self._directories)

    def _release(self, number: int) -> None:
        self._directories.pop(number, None)
        try:
            self._inotify.remove(number)
        except OSError as exc:
            if exc.errno != errno.EINVAL:  # gone with its directory
                raise


def _limit(error: OSError) -> Exception:
    setting = LIMITS.get(error.errno or 0)
    return error if setting is None else WatchLimit(setting)
