"""The house as docs/DESIGN.md shows it: the picture of rooms, a recipe's way and a clip's way, against the code.

After a change of the rooms or these ways, print the new picture with `python -m tests.test_walks`.
"""

from __future__ import annotations

import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests import tiny
from tests.test_architecture import CORE, ROOMS, arrows, room
from tests.video_files import write_video
from toolkit.cli.main import main
from toolkit.training.step import train_step

DESIGN = CORE.parent / "docs" / "DESIGN.md"
CARRIERS = {"Draft", "Recipe", "Plan", "Assembly", "Setup", "Prepared"}
"""What a recipe becomes on its way to `fit`."""


def picture() -> str:
    """Rooms and arrows in Mermaid's language. An arrow that follows from two others is omitted."""
    direct = {(room(a), room(b)) for a, b in arrows() if room(a) != room(b) and {room(a), room(b)} <= {*ROOMS}}
    reach: dict[str, set[str]] = {}
    for name in ROOMS:  # from the ground up, so what a room imports is known before it
        below = {b for a, b in direct if a == name}
        reach[name] = below.union(*(reach[b] for b in below))
    kept = [
        (a, b)
        for a, b in sorted(direct, key=lambda pair: (-ROOMS.index(pair[0]), -ROOMS.index(pair[1])))
        if not any(b in reach[other] for one, other in direct if one == a and other != b)
    ]
    return "\n".join(["graph TD", *(f"    {a} --> {b}" for a, b in kept)]) + "\n"


def shown(title: str) -> str:
    text = DESIGN.read_text(encoding="utf-8")
    found = re.search(rf"^### {title}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def ways(title: str) -> list[str]:
    """The modules that a numbered walk of the document names, in its order."""
    return re.findall(r"^\d+\. `toolkit\.([\w.]+)`", shown(title), re.MULTILINE)


@contextmanager
def calls(look: Callable[[FrameType], None]) -> Iterator[None]:
    """Show `look` the frame of every call of a function of the core, in this thread and those that it starts."""

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith("toolkit."):
            look(frame)

    before = sys.getprofile(), threading.getprofile()
    sys.setprofile(profile)
    threading.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])


def module_of(frame: FrameType) -> str:
    name: str = frame.f_globals["__name__"]
    return name.removeprefix("toolkit.")


def taken(frame: FrameType) -> set[str]:
    """Names of the types of the core that a call was given."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return {type(frame.f_locals.get(name)).__name__ for name in names}


def test_the_picture_of_rooms_is_that_of_the_code() -> None:
    text = DESIGN.read_text(encoding="utf-8")
    assert f"```mermaid\n{picture()}```" in text, f"print it with: python -m tests.test_walks\n{picture()}"


def test_a_recipe_reaches_fit_by_few_modules_and_hardly_climbs(tmp_path: Path) -> None:
    """At most 12 modules take what the recipe has become, and at most 10 calls go to a higher room."""
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    way: list[str] = []
    climbs: list[str] = []

    def look(frame: FrameType) -> None:
        module, caller = module_of(frame), frame.f_back
        if "training.fit" in way:
            return
        while caller and not caller.f_globals.get("__name__", "").startswith("toolkit."):
            caller = caller.f_back
        came_from = module_of(caller) if caller else ""
        here, there = module.split(".")[0], came_from.split(".")[0]
        if frame.f_code.co_name != "<module>" and {here, there} <= {*ROOMS} and ROOMS.index(here) > ROOMS.index(there):
            climbs.append(f"{came_from} -> {module}")
        if taken(frame) & CARRIERS and module not in way:
            way.append(module)

    with calls(look):
        assert main(["run", str(recipe), "--runs", str(tmp_path / "runs")]) == 0
    assert "training.fit" in way
    assert len(way) <= 12, way
    assert len(climbs) <= 10, climbs
    listed = ways("A recipe's way")
    assert [module for module in listed if module in way] == sorted((m for m in listed if m in way), key=way.index)
    assert {*way} <= {*listed, "recipe.tables", "recipe.write", "build.agreement", "runs.evaluation"}


def test_the_training_step_reads_at_one_sitting() -> None:
    assert len(inspect.getsource(train_step).splitlines()) <= 35


def test_a_clip_goes_the_way_of_the_page(tmp_path: Path) -> None:
    """Every module of the walk is entered in training on videos, in the order of the document; no other of its rooms
    reads pixels."""
    for number in range(12):
        name = ("run", "sit")[number % 2]
        write_video(tmp_path / "videos" / name / f"{number}.mp4", frames=8, size=(32, 32))
    (tmp_path / "clips.toml").write_text(CLIPS.format(root=tmp_path / "videos"))
    entered: list[str] = []

    def look(frame: FrameType) -> None:
        module = module_of(frame)
        if module not in entered and frame.f_code.co_name != "<module>":
            entered.append(module)

    with calls(look):
        assert main(["run", str(tmp_path / "clips.toml"), "--runs", str(tmp_path / "runs")]) == 0
    in_training = [module for module in ways("A clip's way") if not module.startswith(("export", "serving"))]
    assert len(in_training) >= 6
    assert [module for module in in_training if module not in entered] == []
    for module in ways("A clip's way"):
        assert (CORE / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("title", ["A recipe's way", "A clip's way"])
def test_a_walk_takes_about_ten_lines(title: str) -> None:
    assert 8 <= len(ways(title)) <= 12


CLIPS = """
[data]
name = "video_folder"
root = "{root}"
[clip]
frames = 2
rate = 1
[input]
size = 32
[model]
name = "shufflenet_v2_x0_5"
head = "average"
weights = "none"
[train]
epochs = 1
batch = 4
precision = "fp32"
[train.optimizer]
name = "sgd"
lr = 0.01
"""

if __name__ == "__main__":
    print(picture(), end="")
