"""Metrics in Prometheus' text format.

Source: Prometheus docs "Exposition formats". A few counters do not need a library.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
_PREFIX = "bayplan_registry"


class Metrics:
    """What the server has counted since it started."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(_BOUNDS) + 1))
        self._seconds: dict[str, float] = defaultdict(float)
        self.counters: dict[str, int] = defaultdict(int)

    def request(self, method: str, kind: str, status: int, seconds: float) -> None:
        self._requests[(method, kind, status)] += 1
        self._seconds[kind] += seconds
        for number, bound in enumerate(_BOUNDS):
            if seconds <= bound:
                self._buckets[kind][number] += 1
        self._buckets[kind][-1] += 1

    def render(self, gauges: Mapping[str, int]) -> str:
        lines = _head("requests_total", "counter", "Requests answered.")
        for (method, kind, status), count in sorted(self._requests.items()):
            labels = f'method="{method}",kind="{kind}",code="{status}"'
            lines.append(f"{_PREFIX}_requests_total{{{labels}}} {count}")
        lines += _head("request_seconds", "histogram", "How long requests took.")
        for kind, counts in sorted(self._buckets.items()):
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), counts, strict=True):
                lines.append(
                    f'{_PREFIX}_request_seconds_bucket{{kind="{kind}",le="{bound}"}} {count}'
                )
            lines.append(
                f'{_PREFIX}_request_seconds_sum{{kind="{kind}"}} {self._seconds[kind]:.6f}'
            )
            lines.append(f'{_PREFIX}_request_seconds_count{{kind="{kind}"}} {counts[-1]}')
        for name, count in sorted(self.counters.items()):
            lines += _head(name, "counter", _HELP.get(name, name))
            lines.append(f"{_PREFIX}_{name} {count}")
        for name, value in sorted(gauges.items()):
            lines += _head(name, "gauge", _HELP.get(name, name))
            lines.append(f"{_PREFIX}_{name} {value}")
        return "\n".join(lines) + "\n"


_HELP = {
    "received_bytes_total": "Bytes of blobs received.",
    "sent_bytes_total": "Bytes of blobs sent.",
    "proxy_hits_total": "Requests served from what a proxy has kept.",
    "proxy_misses_total": "Requests for which a proxy has asked its remote.",
    "collections_total": "Garbage collections.",
    "collected_bytes_total": "Bytes freed by garbage collections.",
    "collected_blobs_total": "Blobs removed by garbage collections.",
    "uploads": "Uploads under way.",
    "blobs": "Blobs kept.",
    "blob_bytes": "Bytes of the blobs kept.",
    "manifests": "Manifests kept, of all repositories.",
    "tags": "Tags, of all repositories.",
}


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {_PREFIX}_{name} {text}", f"# TYPE {_PREFIX}_{name} {kind}"]
