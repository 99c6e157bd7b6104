"""What can go wrong in the runtime, as types that carry what a person needs.

RuntimeFault
├── NotFound            a container, volume or file that is not there
│   └── ImageNotFound
├── AlreadyExists
├── InUse               cannot be removed while something uses it
├── InvalidState        the object is in a state that does not allow the request
│   └── Unreachable
├── ImageError          an image, layer or archive that is damaged or refused
├── BuildError          a Dockerfile that cannot be built
├── ContainerStartError the container's first process could not be started
├── LauncherError       the launcher or a monitor does not answer
├── FileRefused         one file of many cannot be brought to where it should be
└── Unsupported         the kernel or the host lacks something

Messages say what was attempted on what, in lower case and without a full stop;
causes are chained, never repeated.
"""

from __future__ import annotations

import os


class RuntimeFault(Exception):
    """Base of all errors of the runtime; `hint` says what a person can do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class NotFound(RuntimeFault):
    def __init__(self, kind: str, name: str, *, hint: str | None = None) -> None:
        super().__init__(f"no such {kind}: {name}", hint=hint)
        self.kind = kind
        self.name = name


class ImageNotFound(NotFound):
    def __init__(self, reference: str, *, hint: str | None = None) -> None:
        super().__init__("image", reference, hint=hint)
        self.reference = reference


class AlreadyExists(RuntimeFault):
    def __init__(self, kind: str, name: str, *, hint: str | None = None) -> None:
        super().__init__(f"{kind} already exists: {name}", hint=hint)
        self.kind = kind
        self.name = name


class InUse(RuntimeFault):
    def __init__(self, kind: str, name: str, users: tuple[str, ...]) -> None:
        super().__init__(f"{kind} {name} is in use by {', '.join(users)}")
        self.kind = kind
        self.name = name
        self.users = users


class InvalidState(RuntimeFault):
    def __init__(self, what: str, state: str, wanted: str) -> None:
        super().__init__(f"cannot {wanted} {what}: it is {state}")
        self.what = what
        self.state = state


class Unreachable(InvalidState):
    """Nobody listens where a container's monitor would."""

    def __init__(self, socket: str) -> None:
        RuntimeFault.__init__(
            self,
            f"cannot reach the container: nobody listens at {socket}",
            hint="it has ended; or, if it runs, somebody has removed the socket, and a restart "
            "makes another",
        )
        self.what = "the container"
        self.state = "not running"


class ImageError(RuntimeFault):
    """An image, layer or archive is damaged, hostile or of a kind that is not understood."""


class BuildError(RuntimeFault):
    """A Dockerfile cannot be parsed or one of its steps failed.

    `line` is 1-based; `output_tail` holds the last lines that the step printed;
    `exit_code` is the step's own, where it ran.
    """

    def __init__(
        self,
        message: str,
        *,
        dockerfile: str | None = None,
        line: int | None = None,
        hint: str | None = None,
        output_tail: str = "",
        exit_code: int | None = None,
    ) -> None:
        where = f"{dockerfile or 'Dockerfile'}:{line}: " if line is not None else ""
        super().__init__(where + message, hint=hint)
        self.dockerfile = dockerfile
        self.line = line
        self.output_tail = output_tail
        self.exit_code = exit_code


class ContainerStartError(RuntimeFault):
    """A step between fork and exec failed.

    `exit_code` follows Docker: 127 the command does not exist, 126 it cannot be
    executed, 125 everything else.
    """

    def __init__(
        self,
        message: str,
        *,
        step: str,
        path: str | None = None,
        errno: int = 0,
        exit_code: int = 125,
        hint: str | None = None,
    ) -> None:
        about = f" {path}" if path and path not in message else ""
        reason = f": {os.strerror(errno).lower()}" if errno else ""
        super().__init__(f"{message}{about}{reason}", hint=hint)
        self.step = step
        self.path = path
        self.errno = errno
        self.exit_code = exit_code


class LauncherError(RuntimeFault):
    """The launcher, or a container's monitor, cannot be reached or broke the protocol."""


class FileRefused(RuntimeFault):
    """One file of many cannot be brought to where it should be; the message is the reason alone."""


class Unsupported(RuntimeFault):
    """The kernel or the host lacks something that the request needs."""
