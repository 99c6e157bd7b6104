"""Where decrypted files stand: in memory, never on a disk.

A name derives from the encrypted content, so that a file which did not change has one path from
commit to commit. All of it is gone after a reboot, as is whatever was mounted in memory: the
render of the same commit puts it back under the same names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from orchestrator.engine import plaintext
from orchestrator.gitops.errors import GitOpsError


class Vault:
    """The decrypted files of one source, in `directory` (`<run>/decrypted/<source>`)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, content: bytes, key: str = "") -> Path:
        """Where the plaintext of an encrypted file, or of its part `key`, belongs."""
        name = hashlib.sha256(hashlib.sha256(content).digest() + key.encode()).hexdigest()
        return self.directory / name[:32]

    def put(self, path: Path, plain: bytes) -> None:
        """Keep `plain` at `path`, for the daemon's user alone. Raises GitOpsError."""
        try:
            plaintext.hold_in_memory(self.directory.parent)
        except OSError as exc:
            raise GitOpsError(
                f"{self.directory.parent} is not in memory, and decrypted files are never put "
                "on a disk"
            ) from exc
        self.directory.mkdir(mode=0o700, exist_ok=True)
        draft = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(plain)
        os.replace(draft, path)

    def sweep(self, keep: Iterable[str]) -> None:
        """Remove the files that no project refers to: all but the paths in `keep`."""
        kept = {os.path.basename(path) for path in keep}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.directory):
                if name not in kept:
                    (self.directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Forget everything of this source, and the memory when it was the last one."""
        self.sweep(())
        with contextlib.suppress(FileNotFoundError, OSError):
            self.directory.rmdir()
        plaintext.let_go(self.directory.parent)
