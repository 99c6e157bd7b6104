"""The keys that leave a container running: Docker's detach sequence."""

from __future__ import annotations

from orchestrator.cli.errors import UsageError

DEFAULT = "ctrl-p,ctrl-q"
_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


class DetachKeys:
    """Watches what is typed for the sequence, which itself is never passed on.

    `text` is as `docker attach --detach-keys` takes it: characters and ctrl-<letter or one of
    @ [ \\ ] ^ _>, separated by commas. Raises UsageError.
    """

    def __init__(self, text: str = DEFAULT) -> None:
        self._sequence = b"".join(_key(word, text) for word in text.split(","))
        self._matched = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What of `typed` is for the container, and whether the sequence is complete."""
        passed = bytearray()
        for byte in typed:
            if byte != self._sequence[self._matched] and self._matched:
                # What looked like the beginning was meant for the container.
                passed += self._sequence[: self._matched]
                self._matched = 0
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    self._matched = 0
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False


def _key(word: str, text: str) -> bytes:
    if len(word) == 1 and word.isascii():
        return word.encode()
    letter = word.removeprefix("ctrl-")
    if word.startswith("ctrl-") and len(letter) == 1 and letter in _CONTROL:
        return bytes([_CONTROL.index(letter)])
    raise UsageError(
        f"--detach-keys {text}: {word!r} is no key",
        hint="characters and ctrl-<letter>, separated by commas, such as ctrl-p,ctrl-q",
    )
