"""`python -m bench peers`: whole commands, ours against those of other toolkits, on the same images.

Every command starts from files and ends by itself: it imports, reads, trains, validates after each epoch, and saves.
Ours is `python -m toolkit run`, which writes a report too. All commands of a round run in turn, so that one timing of
ours is compared with all others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from bench.data import Options
from bench.pairs import Figure, Skipped, in_turns
from bench.peers.setting import BATCH, DECAY, MOMENTUM, RATE, SCALE, SIDE
from toolkit.api.errors import RunFailed
from toolkit.system.machine import physical_cores

PAIRS = 5
EPOCHS = 3
IMAGES, VALIDATED = 10_000, 1_000
SIDES = (160, 120)
"""Width and height of the drawn images."""
TARGET = 1.0
PEERS = ("lightning", "accelerate", "timm", "fastai", "ultralytics")
"""Packages, each with a script."""
PLACE = Path(__file__).parents[2] / "build" / "peers"
RECIPE = f"""
[data]
name = "image_folder"
test_share = 0.0
[input]
size = {SIDE}
stored = {SIDE * 9 // 8}
[model]
name = "resnet18"
stem = "imagenet"
dropout = 0.0
[[augment]]
name = "random_resized_crop"
scale = {list(SCALE)}
[[augment]]
name = "horizontal_flip"
[train]
epochs = {EPOCHS}
batch = {BATCH}
precision = "fp32"
device = "cpu"
[train.optimizer]
name = "sgd"
lr = {RATE}
momentum = {MOMENTUM}
weight_decay = {DECAY}
"""


def figures(options: Options) -> Iterator[Figure | Skipped]:
    python = PLACE / "bin" / "python"
    known = [name for name in PEERS if _has(python, name)]
    for name in PEERS:
        if name not in known:
            yield Skipped(f"peers/{name}", f"{name} is not installed: python -m bench peers --setup")
    if known:
        with images(IMAGES, VALIDATED) as data:
            yield from compared(data, {name: script(python, name, data) for name in known}, options)


def compared(data: Path, theirs: Mapping[str, Sequence[str]], options: Options) -> Iterator[Figure]:
    """Ours against each of these commands, which take the folder for what they keep in place of the word OUTPUT."""
    sides = {name: partial(seconds, words) for name, words in theirs.items()}
    effort = options.effort(PAIRS)
    for name, paired in in_turns(partial(seconds, ours(data)), sides, effort.pairs).items():
        facts = (_rate("ours", paired.ours), _rate("theirs", paired.theirs))
        yield Figure(f"peers/{name}", paired, TARGET, facts)


def _rate(name: str, taken: Sequence[float]) -> str:
    return f"{name}={median(taken):.1f}s,{EPOCHS * IMAGES / median(taken):.0f}/s"


def ours(data: Path) -> list[str]:
    recipe = data / "peers.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    run = ["run", str(recipe), "--set", f"data.root={data / 'images'}", "--runs", "OUTPUT"]
    return [sys.executable, "-m", "toolkit", *run]


def script(python: Path, name: str, data: Path) -> list[str]:
    return [str(python), "-m", f"bench.peers.{name}_side", str(data / "images"), "OUTPUT", str(EPOCHS)]


def seconds(words: Sequence[str]) -> float:
    """Seconds of a command that begins with nothing kept. Raises RunFailed where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        output, caches = Path(folder) / "output", Path(folder) / "caches"
        output.mkdir()
        command = [str(output) if word == "OUTPUT" else word for word in words]
        started = time.perf_counter()
        done = subprocess.run(
            command, env=environment(caches), cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        taken = time.perf_counter() - started
    if done.returncode:
        raise RunFailed(
            f"{' '.join(words)}: exit code {done.returncode}",
            details=done.stderr.splitlines()[-10:],
            next_step="python -m bench peers --setup",
        )
    return taken


def environment(caches: Path) -> dict[str, str]:
    """Of every command: all cores, nothing from the network, and no cache of another timing."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(physical_cores()),
        "PYTHONPATH": str(PLACE.parents[1]),
        "TOOLKIT_CACHE": str(caches / "toolkit"),
        "YOLO_CONFIG_DIR": str(caches / "ultralytics"),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "HF_HUB_OFFLINE": "1",
    }


@contextmanager
def images(train: int, valid: int) -> Iterator[Path]:
    """A folder with `images/train/<class>` and `images/valid/<class>`: drawn JPEG files of ten classes."""
    from PIL import Image

    from bench.gpu.generated import drawn

    with tempfile.TemporaryDirectory() as folder:
        for name, first, count in (("train", 0, train), ("valid", train, valid)):
            for number, pixels in enumerate(drawn(count, SIDES, first=first)):
                place = Path(folder) / "images" / name / f"class_{number % 10}"
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(place / f"{number}.jpg")
        yield Path(folder)


def _has(python: Path, package: str) -> bool:
    find = f"import sys, importlib.util as u; sys.exit(u.find_spec({package!r}) is None)"
    return python.exists() and subprocess.run([str(python), "-c", find], check=False).returncode == 0


def set_up(place: Path = PLACE) -> None:
    """Make the environment at `place`. What this one has is linked into it, torch above all: both sides use one build,
    and what the peers need in other versions is installed there alone. Raises CalledProcessError where that fails."""
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    link(Path(sysconfig.get_path("purelib", "venv", vars={"base": str(place)})))
    wanted = Path(__file__).with_name("requirements.txt")
    subprocess.run([str(place / "bin" / "python"), "-m", "pip", "install", "--requirement", str(wanted)], check=True)


def link(site: Path) -> None:
    """Let an environment whose packages lie at `site` find those of this one behind its own."""
    here = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "linked.pth").write_text("\n".join([*here, ""]), encoding="utf-8")
