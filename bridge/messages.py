"""The forms of rtnetlink's messages, by pyroute2, and nothing else of it.

The package's own start imports all of it: 8 MB and 70 ms, of which the three messages need a
seventh. So its modules are imported below an empty package, which makes room for the real one
for whoever wants that. Where a version of it does not bear this, it is imported as a whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

__all__ = ["ifaddrmsg", "ifinfmsg", "rtmsg"]

_PACKAGE = "pyroute2"
_NAMES = ("ifaddrmsg", "ifinfmsg", "rtmsg")


def _messages() -> list[Any]:
    return [
        getattr(importlib.import_module(f"{_PACKAGE}.netlink.rtnl.{name}"), name) for name in _NAMES
    ]


def _load() -> list[Any]:
    specification = importlib.util.find_spec(_PACKAGE)
    if _PACKAGE in sys.modules or specification is None:
        return _messages()
    empty = ModuleType(_PACKAGE)
    empty.__path__ = list(specification.submodule_search_locations or ())
    sys.modules[_PACKAGE] = empty
    try:
        return _messages()
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")]:
            del sys.modules[name]
        del sys.modules[_PACKAGE]
        return _messages()
    finally:
        if sys.modules.get(_PACKAGE) is empty:
            del sys.modules[_PACKAGE]


if not TYPE_CHECKING:
    ifaddrmsg, ifinfmsg, rtmsg = _load()
