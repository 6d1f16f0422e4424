"""From an invalid recipe to the next command: the same one, with every argument at fault replaced."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from toolkit.api.errors import MissingRunError, Problem, RecipeError, UsageError
from toolkit.cli.parser import PROGRAM, Parser, command_line, without
from toolkit.cli.places import filled
from toolkit.recipe.foreign import key_of, value_of
from toolkit.recipe.kinds import KINDS

_FLAGS = re.compile(r"(^|: )(--[a-z][a-z-]* .+)$")
_PLACEHOLDER = re.compile(r"(.*=)?([A-Z_]+|\.\.\.)")


def repaired(error: RecipeError, words: Sequence[str]) -> str | None:
    """The command that was meant, where the arguments of `--set`, or the name of the file, are all that is wrong."""
    found = list(words)
    for problem in error.problems:
        if problem.fault != "unread" and not (_repair(problem, error.source, found) or _take_whole(problem, found)):
            return None
    return command_line(found)


def with_nearest_run(error: MissingRunError, words: Sequence[str]) -> str | None:
    """The command with the run that was probably meant, else with the latest one; None without any run."""
    near = error.near or filled("RUN")
    found = [str(near) if Path(word) == error.path else word for word in words]
    return command_line(found) if near and found != list(words) else None


def completed(step: str, words: Sequence[str], parser: Parser) -> str:
    """A next step with the whole command in place of the flags and values in which it ends, where this command takes
    them: of `--set`, only values of the same keys are replaced. A command that resumes gets the `--ranks` of this one.
    """
    ranks = _ranks(words)
    if ranks and f"{PROGRAM} run --resume " in step:
        return f"{step} --ranks {ranks}"
    found = _FLAGS.search(step)
    if not found or not (given := _given(found[2])):
        return step
    end = words.index("--") if "--" in words else len(words)  # behind it are inputs alone
    kept = list(words[:end])
    for flag, value in given:
        kept = [*(_unset(kept, value) if flag == "--set" else without(kept, {flag: True})), flag, value]
    kept += words[end:]
    try:
        parser.parse_args(kept)
    except UsageError:
        return step
    return f"{step[: found.start()]}{found[1]}{command_line(kept)}"


def _ranks(words: Sequence[str]) -> str:
    """The value of `--ranks`; empty without one."""
    pairs = itertools.pairwise([*words, ""])
    return next((value if word == "--ranks" else word[8:] for word, value in pairs if word.startswith("--ranks")), "")


def _given(text: str) -> list[tuple[str, str]]:
    """The flags of a text that holds nothing but flags and their values; empty where a value is a placeholder, such as
    `KEY=SHARE`."""
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    flags, values = words[::2], words[1::2]
    whole = len(flags) == len(values) and all(flag.startswith("--") for flag in flags)
    filled_in = not any(_PLACEHOLDER.fullmatch(value) for value in values)
    return [*zip(flags, values, strict=True)] if whole and filled_in else []


def _unset(words: Sequence[str], setting: str) -> list[str]:
    """The words without `--set` of the same key."""
    key, kept = setting.partition("=")[0], list(words)
    for place in range(len(kept) - 1, 0, -1):
        if kept[place - 1] == "--set" and kept[place].partition("=")[0].strip() == key:
            del kept[place - 1 : place + 1]
    return kept


def _repair(problem: Problem, source: str, words: list[str]) -> bool:
    """Replace the word at fault; False where nothing better is known."""
    if not problem.key:
        places = [place for place, word in enumerate(words) if str(Path(word)) == source]
        if problem.suggestion and places:
            words[places[0]] = problem.suggestion
        return bool(problem.suggestion and places)
    key, _, value = problem.flag.partition("=")
    place = _place(problem.flag, words)
    if place is None:
        return False
    if problem.fault == "unknown name":
        words[place] = f"{key}={value.replace(problem.given, problem.suggestion or '')}"
        return problem.suggestion is not None
    of_table = problem.fault == "unknown key" and problem.suggestion and key.strip().startswith(f"{problem.key}.")
    if of_table:
        words[place] = f"{_home(problem)}{words[place].strip().removeprefix(problem.key)}"
    if of_table or problem.key != key.strip():
        return bool(of_table)
    if problem.fault == "unknown key":
        home = _home(problem)
        words[place] = f"{home}={value_of(home, value)}"
        return bool(home)
    words[place] = f"{key}={problem.suggestion}"
    return problem.suggestion is not None


def _place(flag: str, words: Sequence[str]) -> int | None:
    places = [place for place, word in enumerate(words) if flag and word == flag]
    return places[-1] if places else None


def _home(problem: Problem) -> str:
    """The whole key that an unknown one meant: a suggestion without a dot may be a neighbour's name alone."""
    table, _, own = problem.key.rpartition(".")
    near = problem.suggestion or key_of(own) or ""
    absolute = not table or "." in near or near in {own, key_of(own)}
    return near if absolute or not near else f"{table}.{near}"


def _take_whole(problem: Problem, words: list[str]) -> bool:
    """Where `--set` names another component, arguments that the recipe gives the old one go: the name is the table."""
    for kind in KINDS.values():
        place = kind.place
        chosen = next((word for word in words if word.startswith((f"{place}.name=", f"{place}="))), None)
        if chosen is None or not problem.key.startswith(f"{place}.") or problem.fault != "unknown key":
            continue
        if chosen.startswith(f"{place}.name="):
            name = chosen.partition("=")[2]
            whole = f'{{name = "{name}", lr = 1e-3}}' if kind.word == "optimizer" else name
            flags = words.index("--set")
            at = words.index(chosen)
            del words[at - 1 : at + 1]
            words[flags:flags] = ["--set", f"{place}={whole}"]
        return True
    return False
