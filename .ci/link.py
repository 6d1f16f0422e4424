"""Link what wheels need into an environment, from another one that has it: `python link.py TARGET REQUIREMENT...`.

Runs with the Python of the other environment. TARGET is a folder `site-packages`, a requirement a wheel or a name. What
none of them needs stays out, so a requirement that a wheel does not name is still missed. Nothing is unpacked twice,
and bytecode is shared.
"""

from __future__ import annotations

import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from importlib.metadata import Distribution, PathDistribution, distributions
from pathlib import Path, PurePath
from zipfile import Path as ZipPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def link(source: Path, target: Path, wanted: Sequence[str]) -> None:
    """Links whole folders where all that is below them is needed, so that their bytecode is shared."""
    installed = {canonicalize_name(one.name): one for one in distributions(path=[str(source)])}
    needed = _needed(wanted, installed)
    owners: dict[PurePath, set[str]] = defaultdict(set)
    for name, one in installed.items():
        for file in one.files or ():
            for path in (file, *file.parents):
                owners[PurePath(path)].add(name)
    _link(source, target, PurePath(), owners, needed)


def _needed(wanted: Sequence[str], installed: Mapping[str, Distribution]) -> set[str]:
    """Names of what is installed of these and of all that they require. Wheels are not installed by links."""
    wheels = [_wheel(word) for word in wanted if word.endswith(".whl")]
    asked = [Requirement(word) for word in wanted if not word.endswith(".whl")]
    asked += [requirement for wheel in wheels for requirement in _required(wheel, ())]
    theirs = {canonicalize_name(wheel.name) for wheel in wheels}
    seen: set[tuple[str, frozenset[str]]] = set()
    while asked:
        requirement = asked.pop()
        name = canonicalize_name(requirement.name)
        one = name, frozenset(requirement.extras)
        if name in installed and name not in theirs and one not in seen:
            seen.add(one)
            asked += _required(installed[name], requirement.extras)
    return {name for name, _ in seen}


def _wheel(path: str) -> Distribution:
    (metadata,) = (folder for folder in ZipPath(path).iterdir() if folder.name.endswith(".dist-info"))
    return PathDistribution(metadata)  # type: ignore[arg-type]  # it needs no more than a ZipPath has


def _required(one: Distribution, extras: Iterable[str]) -> list[Requirement]:
    """What it requires here, with these extras."""
    requirements = [Requirement(text) for text in one.requires or ()]
    environments = [{"extra": extra} for extra in ("", *extras)]
    return [
        requirement
        for requirement in requirements
        if not requirement.marker or any(map(requirement.marker.evaluate, environments))
    ]


def _link(source: Path, target: Path, below: PurePath, owners: Mapping[PurePath, Set[str]], needed: Set[str]) -> None:
    for path in sorted((source / below).iterdir()):
        inside = below / path.name
        those = owners.get(inside, set())
        if those and those <= needed:
            (target / inside).symlink_to(path)
        elif those & needed:
            (target / inside).mkdir()
            _link(source, target, inside, owners, needed)


if __name__ == "__main__":
    link(Path(sysconfig.get_path("purelib")), Path(sys.argv[1]), sys.argv[2:])
