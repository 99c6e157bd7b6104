"""The daemon's log: one line an entry, key=value, to the standard error that it was given."""

from __future__ import annotations

import json
import logging
import sys
import time

from orchestrator.printable import printable_line


class KeyValueFormatter(logging.Formatter):
    """`time=… level=info logger=… message="…"`; an exception's traceback follows on lines of its
    own."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        # Words of others are in it, and somebody reads it on a terminal.
        message = printable_line(json.dumps(record.getMessage(), ensure_ascii=False))
        line = (
            f"time={stamp}.{int(record.msecs):03d}Z level={record.levelname.lower()} "
            f"logger={record.name} message={message}"
        )
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def is_ours(record: logging.LogRecord) -> bool:
    """Whether aiohttp tells of a fault of ours, and not of bytes that are no request: of those a
    stranger could write as many into the log as he likes."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__module__ != "aiohttp.http_exceptions"


def configure(level: int = logging.INFO) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.getLogger("aiohttp.server").addFilter(is_ours)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
