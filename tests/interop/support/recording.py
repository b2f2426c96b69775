"""Samples of a real router, as the input of `promtool test rules`.

Time is scaled, since alerts look back minutes and faults in tests last seconds: SCALE real seconds
of the recording are one of Prometheus' time. Values that are ages are scaled with it.
"""

from __future__ import annotations

import asyncio
import math
import re
import urllib.request
from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

INTERVAL = 0.5
"""Real seconds between two samples."""

SCALE = 60.0
"""A real second is a minute of Prometheus' time."""

_AGES = re.compile(r"router_\w+_(?:age|lag)_seconds|router_quarantine_seconds")

Labels = tuple[tuple[str, str], ...]


def scrape(address: str) -> str:
    """Return what a router's metrics say now."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as page:
        text: bytes = page.read()
    return text.decode()


class Recording:
    """The samples of a router, taken every INTERVAL seconds."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._series: defaultdict[tuple[str, Labels], dict[int, float]] = defaultdict(dict)
        self.count = 0

    async def run(self, seconds: float) -> None:
        """Take samples for that long."""
        for _ in range(math.ceil(seconds / INTERVAL)):
            self._add(await asyncio.to_thread(scrape, self._address))
            await asyncio.sleep(INTERVAL)

    def _add(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                scaled = SCALE if _AGES.fullmatch(sample.name) else 1.0
                key = sample.name, tuple(sorted(sample.labels.items()))
                self._series[key][self.count] = sample.value * scaled
        self.count += 1

    def growing(self, minute: int, name: str, **labels: str) -> set[str]:
        """Return the nodes whose counter with these labels grew in the five minutes before."""
        per_minute = 60 / (INTERVAL * SCALE)
        window = range(int((minute - 5) * per_minute), int(minute * per_minute) + 1)
        nodes = set()
        for (each, found), values in self._series.items():
            if each == name and labels.items() <= dict(found).items():
                seen = [values[index] for index in window if index in values]
                if seen and seen[-1] > seen[0]:
                    nodes.add(dict(found)["node"])
        return nodes

    @property
    def step(self) -> str:
        """The interval between two samples in Prometheus' time."""
        return f"{INTERVAL * SCALE:.0f}s"

    @property
    def minutes(self) -> int:
        """The whole minutes of Prometheus' time that it lasts."""
        return int((self.count - 1) * INTERVAL * SCALE // 60)

    def series(self) -> list[dict[str, str]]:
        """Return the `input_series`."""
        return [
            {"series": f"{name}{{{_shown(labels)}}}", "values": self._row(values)}
            for (name, labels), values in self._series.items()
        ]

    def _row(self, values: dict[int, float]) -> str:
        return " ".join(
            str(values[index]) if index in values else "_" for index in range(self.count)
        )


def _shown(labels: Labels) -> str:
    own = (("instance", "router-1"), ("job", "grpcerrors-router"))
    return ", ".join(f'{name}="{value}"' for name, value in (*labels, *own))
