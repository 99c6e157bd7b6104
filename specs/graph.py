"""The dependency graph of a project, for people and for other tools: tree, Mermaid, DOT, SVG."""

from __future__ import annotations

import json
from dataclasses import dataclass
from xml.sax.saxutils import escape

from specs.project import Project

FORMATS = ("tree", "mermaid", "dot", "json", "svg")

_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """`service` waits for `target` to meet `condition`; one not `required` may be missing."""

    service: str
    target: str
    condition: str
    required: bool

    @property
    def label(self) -> str:
        """`healthy`, or `healthy, optional`."""
        word = _CONDITIONS.get(self.condition, self.condition)
        return word if self.required else f"{word}, optional"


def edges(project: Project) -> list[Edge]:
    """What each enabled service waits for, sorted by service and target."""
    return [
        Edge(
            service=name,
            target=target,
            condition=dependency.condition,
            required=dependency.required,
        )
        for name, service in sorted(project.services.items())
        for target, dependency in sorted(service.depends_on.items())
        if target in project.services
    ]


def render(project: Project, form: str = "tree") -> str:
    """The graph in one of FORMATS. Raises ValueError for another one."""
    match form:
        case "tree":
            return _tree(project)
        case "mermaid":
            return _mermaid(project)
        case "dot":
            return _dot(project)
        case "json":
            return _json(project)
        case "svg":
            return _svg(project)
        case _:
            raise ValueError(f"{form!r} is not one of {', '.join(FORMATS)}")


def _by_service(project: Project) -> dict[str, list[Edge]]:
    grouped: dict[str, list[Edge]] = {name: [] for name in sorted(project.services)}
    for edge in edges(project):
        grouped[edge.service].append(edge)
    return grouped


def _tree(project: Project) -> str:
    grouped = _by_service(project)
    targets = {edge.target for edge in edges(project)}
    lines: list[str] = []
    shown: set[str] = set()
    # What is still to be printed, next one last: a service, its line, and its children's indent.
    pending = [(name, name, "") for name in reversed(grouped) if name not in targets]
    while pending:
        name, line, indent = pending.pop()
        following = grouped[name]
        again = name in shown and bool(following)
        shown.add(name)
        lines.append(f"{line} …" if again else line)
        for index, edge in enumerate(() if again else reversed(following)):
            branch, trunk = ("└─", "   ") if index == 0 else ("├─", "│  ")
            child = f"{indent}{branch} {edge.target} ({edge.label})"
            pending.append((edge.target, child, indent + trunk))
    return "".join(f"{line}\n" for line in lines)


def _mermaid(project: Project) -> str:
    names = {name: f"s{index}" for index, name in enumerate(sorted(project.services))}
    lines = ["flowchart LR", *(f'  {key}["{name}"]' for name, key in names.items())]
    for edge in edges(project):
        arrow = "-->" if edge.required else "-.->"
        lines.append(f"  {names[edge.service]} {arrow}|{edge.label}| {names[edge.target]}")
    return "".join(f"{line}\n" for line in lines)


def _dot(project: Project) -> str:
    lines = ["digraph project {", "  rankdir=LR;", "  node [shape=box];"]
    lines += [f'  "{name}";' for name in sorted(project.services)]
    for edge in edges(project):
        style = "" if edge.required else ", style=dashed"
        lines.append(f'  "{edge.service}" -> "{edge.target}" [label="{edge.label}"{style}];')
    return "".join(f"{line}\n" for line in [*lines, "}"])


def _json(project: Project) -> str:
    document = {
        "services": sorted(project.services),
        "edges": [
            {
                "service": edge.service,
                "target": edge.target,
                "condition": edge.condition,
                "required": edge.required,
            }
            for edge in edges(project)
        ],
    }
    return json.dumps(document, indent=2) + "\n"


_BOX_HEIGHT, _ROW, _GAP, _MARGIN = 32, 56, 120, 16


def _svg(project: Project) -> str:
    """Boxes in columns, each service to the left of what it waits for."""
    grouped = _by_service(project)
    depth = _depths(grouped)
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for name in grouped:
        columns[depth[name]].append(name)
    width = 40 + 8 * max((len(name) for name in grouped), default=8)
    place = {
        name: (_MARGIN + column * (width + _GAP), _MARGIN + row * _ROW)
        for column, names in enumerate(columns)
        for row, name in enumerate(names)
    }
    right = 2 * _MARGIN + len(columns) * (width + _GAP) - _GAP
    bottom = 2 * _MARGIN + max(len(names) for names in columns) * _ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{bottom}" '
        'font-family="sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker></defs>',
    ]
    for edge in edges(project):
        (x1, y1), (x2, y2) = place[edge.service], place[edge.target]
        start, end = (x1 + width, y1 + _BOX_HEIGHT // 2), (x2, y2 + _BOX_HEIGHT // 2)
        dashes = "" if edge.required else ' stroke-dasharray="4 3"'
        parts.append(
            f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" '
            f'stroke="#555"{dashes} marker-end="url(#tip)"/>'
        )
        middle = ((start[0] + end[0]) // 2, (start[1] + end[1]) // 2 - 4)
        parts.append(
            f'<text x="{middle[0]}" y="{middle[1]}" text-anchor="middle" font-size="11" '
            f'fill="#555">{escape(edge.label)}</text>'
        )
    for name, (x, y) in place.items():
        parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{_BOX_HEIGHT}" rx="6" '
            'fill="#eef3fb" stroke="#36c"/>'
        )
        parts.append(
            f'<text x="{x + width // 2}" y="{y + 21}" text-anchor="middle">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _depths(grouped: dict[str, list[Edge]]) -> dict[str, int]:
    """The column of each service: one right of the last that waits for it."""
    depth = dict.fromkeys(grouped, 0)
    # Settles after as many rounds as the longest chain has services.
    for _ in grouped:
        before = dict(depth)
        for name, following in grouped.items():
            for edge in following:
                depth[edge.target] = max(depth[edge.target], depth[name] + 1)
        if depth == before:
            break
    return depth
