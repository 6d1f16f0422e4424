"""Mutated images, and what becomes of them. Run as a module it reads them in this process, which they may end:
`python -m tests.hostile.images FIRST COUNT` prints a JSON object with the outcomes."""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.odd_images import OTHER, READ, SMOOTH, encoded

GROWTH = 1 << 30
"""Bytes that a small file may take at most."""
SECONDS = 30.0
"""Of the processor, that a small file may take at most."""

ORIGINALS: Mapping[str, tuple[bytes, ...]] = {
    "JPEG": tuple(
        READ[name]
        for name in ("RGB.jpg", "L.jpg", "CMYK.jpg", "progressive.jpg", "restarting.jpg", "turned-6.jpg", "several.jpg")
    ),
    "PNG": tuple(READ[name] for name in ("RGB.png", "P.png", "deep-6.png", "turned.png", "animated.png", "1.png")),
    "WebP": tuple(READ[name] for name in ("RGB.webp", "lossless.webp", "RGBA.webp", "animated.webp")),
    "GIF": tuple(READ[name] for name in ("P.gif", "interlaced.gif", "animated.gif")),
    "TIFF": (
        *(READ[name] for name in ("RGB.tif", "lzw.tif", "jpeg.tif", "deep.tif", "pages.tif", "fax.tif", "big.tiff")),
        encoded(SMOOTH, "TIFF", compression="tiff_deflate"),
        encoded(OTHER.convert("YCbCr"), "TIFF"),
    ),
    "BMP": tuple(READ[name] for name in ("RGB.bmp", "P.bmp", "1.bmp")),
}


def mutated(number: int) -> tuple[str, bytes]:
    """A format, and an image of it that is damaged; the same for the same number."""
    draw = random.Random(number)
    form = [*ORIGINALS][number % len(ORIGINALS)]
    data = bytearray(draw.choice(ORIGINALS[form]))
    match draw.randrange(6):
        case 0:  # single bits
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case 1:  # bytes, extreme ones too
            for _ in range(draw.randint(1, 8)):
                data[draw.randrange(len(data))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        case 2:  # the header, where sizes and counts stand
            for _ in range(draw.randint(1, 3)):
                data[draw.randrange(4, min(len(data), 200))] = draw.choice((0, 0x7F, 0xFF, draw.randrange(256)))
        case 3:  # cut short
            del data[draw.randrange(4, len(data)) :]
        case 4:  # a part is gone, doubled or replaced
            start = draw.randrange(4, len(data))
            end = min(start + draw.randint(1, 80), len(data))
            data[start:end] = draw.choice((b"", data[start:end] * 2, draw.randbytes(draw.randint(1, 80))))
        case _:  # numbers of four bytes become huge
            start = draw.randrange(4, max(len(data) - 4, 5))
            data[start : start + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
    return form, bytes(data)


def outcome(path: Path) -> str:
    """What training and `predict` make of a file: the same, or what is wrong."""
    import numpy as np

    from toolkit.api.errors import DataError
    from toolkit.data.images import read_image
    from toolkit.data.kinds import kind_of
    from toolkit.data.pixels import count_pictures, read_pixels

    found: list[Any] = []
    for read in (read_pixels, lambda path: read_image(path).permute(1, 2, 0).numpy()):
        try:
            found.append(read(path))
        except DataError as error:
            found.append(error.message)
    kind_of(path)
    count_pictures(path)
    ours, trained = found
    if isinstance(ours, str) or isinstance(trained, str):
        alike = isinstance(ours, str) and isinstance(trained, str) and ours == trained
        return "refused" if alike else f"fault: {str(ours)[:80]} but in training {str(trained)[:80]}"
    return "read" if np.array_equal(ours, trained) else "fault: other pixels in training"


def tried(numbers: range, place: Path) -> dict[str, Any]:
    """The outcomes, with the number of each image that is a fault."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        form, data = mutated(number)
        place.write_bytes(data)
        print(number, file=sys.stderr, flush=True)  # the last one is what ended this process, if anything did
        begun = time.process_time()
        try:
            said = outcome(place)
        except Exception as error:
            said = f"fault: {error!r}"
        if time.process_time() - begun > SECONDS:
            said = "fault: it took long"
        if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 > GROWTH:
            said = "fault: memory grew"
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        counts[f"{form} {said.partition(':')[0]}"] += 1
        if said.startswith("fault"):
            faults.append(f"{number}: {said}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    return {"counts": dict(sorted(counts.items())), "faults": faults, "mebibytes": grown}


if __name__ == "__main__":
    first, count = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(tried(range(first, first + count), Path(folder, "image"))))
