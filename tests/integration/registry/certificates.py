"""An authority of a test's own, and certificates that it signs (openssl)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.integration.registry.peers import required


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """PEM files; `certificate` is valid for 127.0.0.1."""

    authority: Path
    certificate: Path
    key: Path


async def made(directory: Path) -> Certificates:
    directory.mkdir(parents=True, exist_ok=True)
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    authority, key = directory / "ca.crt", directory / "server.key"
    await _openssl(
        *("req", "-x509", *new, "-keyout", str(directory / "ca.key"), "-out", str(authority)),
        *("-subj", "/CN=test authority", "-days", "2"),
    )
    request, certificate = directory / "server.csr", directory / "server.crt"
    await _openssl(
        *("req", *new, "-keyout", str(key), "-out", str(request), "-subj", "/CN=registry"),
    )
    await _openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(authority), "-days", "2"),
        *("-CAkey", str(directory / "ca.key"), "-CAcreateserial"),
        *("-extfile", str(extensions), "-out", str(certificate)),
    )
    return Certificates(authority=authority, certificate=certificate, key=key)


async def _openssl(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        required("openssl"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
