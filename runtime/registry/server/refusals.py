"""Refusals: the error codes of the distribution specification, as exceptions.

Source: OCI distribution-spec 1.1 "Error Codes".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum

from aiohttp import web


class Code(StrEnum):
    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"


class Refusal(Exception):
    """A request that is not served: code, HTTP status, what is wrong, further headers."""

    def __init__(
        self,
        code: Code,
        status: int,
        message: str,
        *,
        detail: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        error: dict[str, object] = {"code": self.code.value, "message": self.message}
        if self.detail is not None:
            error["detail"] = self.detail
        return web.Response(
            status=self.status,
            body=json.dumps({"errors": [error]}).encode(),
            content_type="application/json",
            headers=self.headers,
        )


def blob_unknown(digest: str) -> Refusal:
    return Refusal(
        Code.BLOB_UNKNOWN, 404, "blob unknown to the repository", detail={"digest": digest}
    )


def manifest_unknown(reference: str) -> Refusal:
    return Refusal(
        Code.MANIFEST_UNKNOWN,
        404,
        "manifest unknown to the repository",
        detail={"reference": reference},
    )


def upload_unknown() -> Refusal:
    return Refusal(Code.BLOB_UPLOAD_UNKNOWN, 404, "no such upload in the repository")


def unsupported(message: str, status: int = 405) -> Refusal:
    return Refusal(Code.UNSUPPORTED, status, message)
