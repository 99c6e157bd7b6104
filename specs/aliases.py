"""Extensions that became attributes under another name: files that use them keep working.

Source: compose-go, `loader/extension_alias.go`. They are renamed file by file, before anything is
included, extended or merged; where a file has both, the attribute is laid over the extension.
"""

from __future__ import annotations

from specs import merge
from specs.errors import SpecIssue
from specs.source import Node, Path


def promote(root: Node, issues: list[SpecIssue]) -> None:
    """Rename `x-develop` and `x-initialSync` in a document, in place."""
    services = root.value.get("services")
    if services is None or type(services.value) is not dict:
        return
    for name, service in services.value.items():
        if type(service.value) is not dict:
            continue
        path = ("services", name)
        _rename(service, "x-develop", "develop", path, issues)
        develop = service.value.get("develop")
        watch = develop.value.get("watch") if develop and type(develop.value) is dict else None
        if watch is None or type(watch.value) is not list:
            continue
        for index, rule in enumerate(watch.value):
            if type(rule.value) is dict:
                place = (*path, "develop", "watch", index)
                _rename(rule, "x-initialSync", "initial_sync", place, issues)


def _rename(mapping: Node, old: str, new: str, path: Path, issues: list[SpecIssue]) -> None:
    extension = mapping.value.pop(old, None)
    if extension is None:
        return
    attribute = mapping.value.get(new)
    if attribute is not None and attribute.value is not None:
        extension = merge.merge(extension.copy(), attribute, issues, (*path, new))
    mapping.value[new] = extension
