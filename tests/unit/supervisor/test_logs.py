"""The daemon's log lines."""

from __future__ import annotations

import logging

from orchestrator.supervisor.logs import KeyValueFormatter


def test_an_entry_is_one_line_of_keys_and_values() -> None:
    record = logging.LogRecord("x.y", logging.WARNING, "f", 1, 'lost "%s"\n', ("c1",), None)
    record.created, record.msecs = 0.25, 250.0
    assert KeyValueFormatter().format(record) == (
        'time=1970-01-01T00:00:00.250Z level=warning logger=x.y message="lost \\"c1\\"\\n"'
    )
