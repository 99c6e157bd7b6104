"""The daemon's log lines."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import BadStatusLine

from orchestrator.supervisor.logs import KeyValueFormatter, is_ours


def test_an_entry_is_one_line_of_keys_and_values() -> None:
    record = logging.LogRecord("x.y", logging.WARNING, "f", 1, 'lost "%s"\n', ("c1",), None)
    record.created, record.msecs = 0.25, 250.0
    assert KeyValueFormatter().format(record) == (
        'time=1970-01-01T00:00:00.250Z level=warning logger=x.y message="lost \\"c1\\"\\n"'
    )


def test_bytes_that_are_no_request_are_not_written_down() -> None:
    def record(error: Exception) -> logging.LogRecord:
        about = (type(error), error, None)
        return logging.LogRecord("aiohttp.server", logging.ERROR, "f", 1, "x", (), about)

    assert not is_ours(record(BadStatusLine("\x1b[2J")))
    assert is_ours(record(ValueError()))
    assert is_ours(logging.LogRecord("aiohttp.server", logging.ERROR, "f", 1, "x", (), None))


def test_words_of_others_cannot_steer_who_reads_the_log() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "größer \x9b2J\x1b[2J \udcff", (), None)
    assert KeyValueFormatter().format(record).endswith('message="größer \\x9b2J\\u001b[2J \\xff"')
