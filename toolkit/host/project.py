"""The project's file, `toolkit.toml` in the working directory: which plugins are disabled here.

Its table `[plugins]` is written by `plugins disable` and `plugins enable`; whatever else the file holds stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.api.errors import ProjectError, unknown_name
from toolkit.api.files import read_regular, write_atomically

FILE = "toolkit.toml"
VARIABLE = "TOOLKIT_DISABLE"


def normalised(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def owner(name: str) -> str:
    """`distribution` or `distribution[entry]`, its distribution normalised."""
    distribution, bracket, entry = name.strip().partition("[")
    return normalised(distribution) + bracket + entry


def disabled_names() -> dict[str, str]:
    """The names of disabled plugins (`distribution` or `distribution[entry]`), each with what disables it:
    `FILE` or `VARIABLE`.

    Raises ProjectError where the file cannot be understood.
    """
    named = [name for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    return dict.fromkeys(map(owner, disabled_here()), FILE) | dict.fromkeys(map(owner, named), VARIABLE)


def disabled_here() -> list[str]:
    """The names that the project's file disables, in its order; none where there is no file."""
    plugins = _read(_text()).get("plugins", {})
    if not isinstance(plugins, Mapping):
        raise _wrong("plugins must be a table, [plugins]")
    for key in plugins:
        if key != "disable":
            raise _wrong(unknown_name(f"plugins.{key}: unknown key", key, ["disable"]))
    names = plugins.get("disable", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _wrong('plugins.disable must be an array of strings, such as ["acme-vision"]')
    return names


def disable(names: Sequence[str]) -> None:
    """Let the project's file disable exactly these plugins; a file that would be empty is removed."""
    before = _text()
    after = _with_table(before, names)
    wanted = {key: value for key, value in _read(before).items() if key != "plugins"}
    try:
        kept = _read(after) == (wanted | {"plugins": {"disable": list(names)}} if names else wanted)
    except ProjectError:
        kept = False
    if not kept:
        raise _wrong("the plugins setting cannot be edited in this form", "write it as a [plugins] table")
    from pathlib import Path

    if after:
        write_atomically(Path(FILE), after.encode())
    else:
        Path(FILE).unlink(missing_ok=True)


def _text() -> str:
    if not os.path.exists(FILE):  # noqa: PTH110 (a Path costs time, and most projects disable nothing)
        return ""
    from pathlib import Path

    try:
        return read_regular(Path(FILE)).decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise _wrong(f"is not UTF-8 text (byte {error.start})") from error


def _read(text: str) -> dict[str, Any]:
    if not text:
        return {}
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(str(error)) from error


def _with_table(text: str, names: Sequence[str]) -> str:
    """`text` with its `[plugins]`, down to the next table, rewritten; without names it is removed."""
    rest = re.sub(r"^\[plugins\][^\n]*\n(?:(?!\[).*\n?)*", "", text, flags=re.MULTILINE)
    if not names:
        return rest
    from toolkit.recipe.write import inline

    lines = "".join(f"  {inline(name)},\n" for name in names)
    above = rest.rstrip("\n") + "\n\n" if rest.strip() else ""
    return f"{above}[plugins]\ndisable = [\n{lines}]\n"


def _wrong(what: str, step: str = "correct it, or remove the file to disable nothing") -> ProjectError:
    return ProjectError(f"{FILE}: {what}", next_step=step)
