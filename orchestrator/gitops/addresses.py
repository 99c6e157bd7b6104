"""Addresses of repositories and of who is told: which are taken, and which protocol git may use.

Pure. What git could take for an option, an address with a password in it, and plain http to
another host are refused.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

_SCP = re.compile(r"(?P<user>[\w.-]+@)?(?P<host>[A-Za-z0-9][\w.-]*):(?P<path>(?!/{0,2}-)[^\s]+)")


def check_git(url: str) -> str:
    """`url`, when git may fetch from it. Raises ValueError."""
    protocol(url)
    return url


def protocol(url: str) -> str:
    """`https`, `http`, `ssh` or `file`: the one protocol that git needs for `url`.

    Raises ValueError.
    """
    # A path may have a space in it, an address may not.
    least = 32 if url.startswith("/") else 33
    if not url or url.startswith("-") or any(ord(c) < least or ord(c) == 127 for c in url):
        raise ValueError(f"{url!r} is not the address of a repository")
    if url.startswith("/"):
        return "file"
    if "://" not in url:
        if _SCP.fullmatch(url) and "::" not in url:
            return "ssh"
        raise ValueError(
            f"{url!r} is not an address that can be fetched: https://, ssh://, user@host:path, "
            "file:// or an absolute path"
        )
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError(f"{url!r} is not a file of this host")
        return "file"
    if parts.scheme not in ("https", "http", "ssh"):
        raise ValueError(f"protocol {parts.scheme!r} is not one of https, ssh, file")
    _check_host(url, parts)
    if parts.scheme == "ssh":
        if parts.path.lstrip("/").startswith("-"):
            raise ValueError(f"{url!r} is not the address of a repository")
        return "ssh"
    if parts.username is not None:
        raise ValueError("a name or password in the address would be seen: use credentials")
    return parts.scheme


def check_http(url: str) -> str:
    """`url`, when it is https, or http to this host. Raises ValueError."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "http"):
        raise ValueError(f"{url!r} is not an https address")
    _check_host(url, parts)
    if parts.username is not None:
        raise ValueError("a name or password in the address would be seen: use urlFile")
    return url


def _check_host(url: str, parts: urllib.parse.SplitResult) -> None:
    try:
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(f"{url!r} is not an address: {exc}") from exc
    if not host or host.startswith("-") or (parts.username or "").startswith("-"):
        raise ValueError(f"{url!r} names no host")
    if parts.password is not None:
        raise ValueError("a password in the address would be seen: use credentials")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError(f"http to {host} can be read and changed on the way: use https")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
