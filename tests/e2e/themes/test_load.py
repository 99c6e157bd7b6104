"""Theme 1 under load: `wrk` asks without a pause while a service is updated, well and badly.

`BAYPLAN_REQUESTS` says how many requests are made at least.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.themes.test_converging import PORT, WEB, change

if TYPE_CHECKING:
    from tests.e2e.conftest import Bay

REQUESTS = int(os.environ.get("BAYPLAN_REQUESTS", "50000"))

# One thread, so that one count is all there is. It stops after so many answers, once the updates
# are through; the program itself would then sleep on until its time is over, or interrupted.
_SCRIPT = f"""
local count, seen, bad = 0, {{}}, {{}}
function response(status, headers, body)
  count = count + 1
  local text = body:gsub("%s+$", "")
  local tally = status == 200 and seen or bad
  local key = status == 200 and text or tostring(status)
  tally[key] = (tally[key] or 0) + 1
  if count >= {REQUESTS} and count % 100 == 0 then
    local updated = io.open("updated")
    if updated then
      updated:close()
      local report = io.open("report.new", "w")
      for text, number in pairs(seen) do report:write("seen ", text, " ", number, "\\n") end
      for text, number in pairs(bad) do report:write("bad ", text, " ", number, "\\n") end
      report:close()
      wrk.thread:stop()
      os.rename("report.new", "report")
    end
  end
end
function done(summary)
  local e = summary.errors
  print(string.format('{{"requests":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}',
    summary.requests, e.connect, e.read, e.write, e.status, e.timeout))
end
"""


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (Debian: wrk)")
def test_theme_01_no_request_of_a_load_is_lost_by_good_and_bad_updates(
    bay: Bay, project: Callable[..., Path], eventually: Callable[..., None]
) -> None:
    directory = project(WEB, **{"load.lua": _SCRIPT})
    bay.ok("up", "-d", "--wait", cwd=directory)
    with subprocess.Popen(
        bay.host.inside(
            *("wrk", "--threads", "1", "--connections", "8", "--duration", "600s"),
            *("--timeout", "60s", "--script", "load.lua", f"http://127.0.0.1:{PORT}/"),
        ),
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as load:
        try:
            text = "one"
            for new in ("two", "bad", "three", "bad", "four"):
                change(directory, f"TEXT: {text}", f"TEXT: {new}")
                result = bay("up", "-d", "--wait", cwd=directory)
                if new == "bad":
                    assert result.status == 1
                    assert "rolled back" in result.err, result.err
                    change(directory, "TEXT: bad", f"TEXT: {text}")
                else:
                    assert result.status == 0, str(result)
                    text = new
            (directory / "updated").touch()
            eventually((directory / "report").exists, "all requests are made", 600)
            load.send_signal(signal.SIGINT)
            out, _ = load.communicate(timeout=60)
        finally:
            load.kill()
    counted: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert counted.pop("requests") >= REQUESTS, out
    assert set(counted.values()) == {0}, out
    report = (directory / "report").read_text().splitlines()
    assert {tuple(line.split()[:2]) for line in report} == {
        ("seen", text) for text in ("one", "two", "three", "four")
    }, report
