"""What a transfer tells about itself while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal[
    "resolved",
    "waiting",
    "exists",
    "downloading",
    "unpacking",
    "uploading",
    "mounted",
    "retrying",
    "warning",
    "done",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferEvent:
    """One step of a pull, push or copy.

    `digest` is the blob or manifest that it is about; `current` and `total` are bytes;
    `detail` is text for a person (a reason, a warning).
    """

    stage: Stage
    reference: str
    digest: str = ""
    current: int = 0
    total: int = 0
    detail: str = ""


Progress = Callable[[TransferEvent], None]


def silent(_event: TransferEvent) -> None:
    """For callers that show nothing."""


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells of one transfer under the name that the person gave it."""

    name: str
    progress: Progress

    def tell(
        self, stage: Stage, digest: str, current: int = 0, total: int = 0, detail: str = ""
    ) -> None:
        self.progress(
            TransferEvent(
                stage=stage,
                reference=self.name,
                digest=digest,
                current=current,
                total=total,
                detail=detail,
            )
        )
