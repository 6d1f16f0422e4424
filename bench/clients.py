"""Clients of a server, each of which sends the same file again as soon as it is answered: prints one line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

HOLD_SECONDS = 120.0
"""How long one answer may take."""


async def asked(url: str, data: bytes, clients: int, requests: int) -> dict[str, float | dict[str, int]]:
    """Seconds in which `requests` requests are answered, percentiles of the time of one, and how many had each
    status."""
    taken: list[float] = []
    statuses: Counter[str] = Counter()
    left = iter(range(requests))

    async def client(http: httpx.AsyncClient) -> None:
        for _ in left:
            begun = time.perf_counter()
            answer = await http.post(url, files={"file": ("square.jpg", data, "image/jpeg")})
            taken.append(time.perf_counter() - begun)
            statuses[str(answer.status_code)] += 1

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=HOLD_SECONDS, limits=limits) as http:
        begun = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        seconds = time.perf_counter() - begun
    median, slow = (float(share) for share in np.percentile(taken, [50, 99]))
    return {"seconds": seconds, "p50": median, "p99": slow, "statuses": dict(statuses)}


if __name__ == "__main__":
    address, file, count, total = sys.argv[1:]
    print(json.dumps(asyncio.run(asked(address, Path(file).read_bytes(), int(count), int(total)))))
