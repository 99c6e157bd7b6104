"""networkx as far as a plan needs it: directed graphs, their order and their cycles.

The package's own start imports all of it: 12 MB and 70 ms, of which this is a sixth. So its
modules are imported below empty packages, which afterwards make room for the real ones, for
whoever wants those. Where a version of it does not bear this, it is imported as a whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["nx"]

_PACKAGE = "networkx"
_ALGORITHMS = f"{_PACKAGE}.algorithms"


def load() -> Any:
    """A module that has the core's names."""
    specification = importlib.util.find_spec(_PACKAGE)
    if _PACKAGE in sys.modules or specification is None:
        return importlib.import_module(_PACKAGE)
    (place,) = specification.submodule_search_locations or ("",)
    try:
        with _room_of_its_own():
            return _core(place)
    except (ImportError, AttributeError):
        return importlib.import_module(_PACKAGE)


@contextmanager
def _room_of_its_own() -> Iterator[None]:
    """Forget afterwards what was imported of the package: these modules know this core alone."""
    try:
        yield
    finally:
        for name in list(sys.modules):
            if name == _PACKAGE or name.startswith(f"{_PACKAGE}."):
                del sys.modules[name]


def _core(place: str) -> ModuleType:
    """Does what the package's __init__ does, in its order, up to three modules of algorithms."""
    core = _empty(_PACKAGE, place)
    _adopt(core, "networkx.exception")
    utils: Any = importlib.import_module("networkx.utils")
    config = utils.backends._set_configs_from_environment()
    utils.config = utils.configs.config = config
    vars(core).update(
        utils=utils,
        config=config,
        _dispatchable=utils._dispatchable,
        _clear_cache=utils._clear_cache,
    )
    _adopt(core, "networkx.classes")
    _adopt(core, "networkx.convert")
    vars(core)["algorithms"] = _empty(_ALGORITHMS, f"{place}/algorithms")
    for name in ("dag", "traversal", "cycles"):
        _adopt(core, f"{_ALGORITHMS}.{name}")
    return core


def _empty(name: str, place: str) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = [place]
    sys.modules[name] = package
    return package


def _adopt(core: ModuleType, name: str) -> None:
    """What `from name import *` does."""
    module = importlib.import_module(name)
    public = [key for key in vars(module) if not key.startswith("_")]
    for key in getattr(module, "__all__", public):
        setattr(core, key, getattr(module, key))


if not TYPE_CHECKING:
    nx = load()
