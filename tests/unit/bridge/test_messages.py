"""The messages come without the rest of their package, which stays whole for others."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import sys
import bridge.messages
assert "pyroute2" not in sys.modules
assert bridge.messages.ifinfmsg.__module__ == "pyroute2.netlink.rtnl.ifinfmsg"
from pyroute2 import IPRoute
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
assert ifinfmsg is bridge.messages.ifinfmsg
"""


def test_the_package_is_not_started_and_can_be_later() -> None:
    subprocess.run([sys.executable, "-c", CHECK], check=True)
