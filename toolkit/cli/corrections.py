"""A command line that is wrong here, though right for another tool, is answered with the one that does it here."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from toolkit.api.errors import UsageError, nearest
from toolkit.cli.folders import held_by, is_recipe_less, set_words
from toolkit.cli.parser import Parser, command_line, set_flags
from toolkit.cli.places import RECIPE, VIDEO_RECIPE, filled
from toolkit.cli.verbs import CHOICES, FLAGS, ON_COMMAND, PLACES, SUBJECTS, VERBS
from toolkit.recipe.foreign import FIXED, GIVEN, SWITCHES, key_of, plain, value_of
from toolkit.recipe.shipped import shipped

TABLES = frozenset(
    {"data", "input", "clip", "model", "task", "augment", "metrics", "trackers", "train", "export", "tune"}
)
ARRAYS = frozenset({"augment", "metrics", "trackers"})
YES_OR_NO = frozenset({"true", "false", "yes", "no", "0", "1"})


def explained(error: UsageError, words: Sequence[str], whole: Parser) -> UsageError:
    """The error with the command that was meant as the next step, or the help of the command that was typed."""
    correction = corrected(words, whole)
    if correction is None or correction.words == list(words):
        return UsageError(error.message, next_step=_help_of(words, whole))
    what = re.split(r"; did you mean| \(choose from", error.message)[0] if correction.reasons else error.message
    message = "; ".join(dict.fromkeys([what, *correction.reasons]))
    return UsageError(message, next_step=command_line(correction.words))


def _help_of(words: Sequence[str], whole: Parser) -> str:
    """The help of the deepest command that these words name."""
    command = whole
    for word in words:
        if word in command.actions:
            command = command.actions[word]
    return f"{command.prog} --help"


@dataclass
class Correction:
    """The words that do it here, found one by one, and what was changed for which reason."""

    command: Parser
    verb: list[str]
    places: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        return [*self.verb, *self.places, *self.flags, *set_flags(self.sets)]


def corrected(words: Sequence[str], whole: Parser) -> Correction | None:
    """The correction of a wrong command line; None where no guess would be good, or the guess would not parse."""
    verb, rest, reasons = _verb(words, whole)
    if not verb:
        return None
    command = whole
    for name in verb:
        command = command.actions[name]
    found = Correction(command, verb, reasons=reasons)
    if not _read(found, rest) or not _complete(found):
        return None
    try:
        whole.parse_args(found.words)
    except (UsageError, SystemExit):
        return None
    return found


def _verb(words: Sequence[str], whole: Parser) -> tuple[list[str], list[str], list[str]]:
    """The command that was meant, the other words, and the reason of a change."""
    rest = _without_subjects(words, {*VERBS, *whole.actions})
    bare = _bare(rest)
    if not bare or bare[0].endswith(".toml") or Path(bare[0]).is_dir() or bare[0] in shipped():
        return ["run"], rest, []
    typed, *others = bare
    verb, reason = _named(typed, whole)
    rest.remove(typed)
    if verb == ["evaluate"] and others and (others[0].endswith(".toml") or others[0] in shipped()):
        verb = ["check"] if typed == "validate" else ["run"]
        reason = f'the command here is "{verb[0]}"'
    if typed == "resume" and others:
        rest.insert(rest.index(others[0]), "--resume")
    if verb == ["plugins"] and others and (action := nearest(others[0], whole.actions["plugins"].actions)):
        rest.remove(others[0])
        verb = [*verb, action]
    return verb, rest, [reason] if reason else []


def _without_subjects(words: Sequence[str], verbs: Collection[str]) -> list[str]:
    """The words without what some tools write before the verb: `yolo classify train`, `task=classify mode=train`."""
    pairs = [word.partition("=") for word in words]
    found = [value if name == "mode" and value in verbs else f"{name}{equals}{value}" for name, equals, value in pairs]
    rest = [word for word in found if word.partition("=")[::2] not in {("task", subject) for subject in SUBJECTS}]
    bare = _bare(rest)
    while len(bare) > 1 and bare[0] in SUBJECTS and bare[1] in {*SUBJECTS, *verbs}:
        rest.remove(bare.pop(0))
    return rest


def _bare(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.startswith("-") and "=" not in word]


def _named(word: str, whole: Parser) -> tuple[list[str], str]:
    if word in whole.actions:
        return [word], ""
    known = VERBS.get(word.lower())
    if known:
        return known.split(), f'the command here is "{known}"'
    very_close = get_close_matches(word.lower(), [*whole.actions, *VERBS], n=1, cutoff=0.75)
    close = very_close[0] if very_close else nearest(word.lower(), whole.actions)
    return VERBS.get(close, close).split() if close else [], ""


def _read(found: Correction, words: Sequence[str]) -> bool:
    """Take the words one by one; False where one of them has no meaning here."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--set":
            if not _read_set(found, rest):
                return False
        elif word.startswith("-") and len(word) > 1:
            if not _read_flag(found, word, rest):
                return False
        elif "=" in word and not Path(word).exists():
            name, _, value = word.partition("=")
            if not _translate(found, word, name, value):
                return False
        else:
            found.places.append(word)
    return True


def _read_set(found: Correction, rest: list[str]) -> bool:
    """Take one pair, or a key and its value as two words; False where there is neither."""
    if not rest or rest[0].startswith("--"):
        return False
    pair = rest.pop(0)
    if "=" not in pair and rest and not rest[0].startswith("-"):
        pair = f"{pair}={rest.pop(0)}"
        found.reasons.append('one "--set KEY=VALUE" sets one key')
    name, equals, value = pair.partition("=")
    if not equals or name.partition(".")[0] in TABLES or not _translate(found, name, name, value):
        found.sets.append(pair)
    return True


def _read_flag(found: Correction, word: str, rest: list[str]) -> bool:
    """Take a flag of ours or of another tool, with its value."""
    name, equals, given = word.partition("=")
    if name in found.command.flags:
        return _read_own_flag(found, name, given if equals else None, rest)
    bare = plain(name)
    is_value = bool(rest) and (not rest[0].startswith("-") or rest[0][1:2].isdigit())
    if not equals and is_value and (bare not in SWITCHES or rest[0].isdigit() or rest[0].lower() in YES_OR_NO):
        given, equals = rest.pop(0), "="
    close = None if _is_foreign(name) else nearest(name, found.command.flags)
    if close and close != "--help":
        found.reasons.append(f'the flag here is "{close}"')
        found.flags += [close, given] if equals and found.command.flags[close] else [close]
        return True
    if bare.startswith("no") and not equals and bare[2:] in SWITCHES and bare not in FIXED:
        return _translate(found, name, bare[2:], "false")
    return _translate(found, name, name.lstrip("-"), given if equals else "true")


def _read_own_flag(found: Correction, name: str, given: str | None, rest: list[str]) -> bool:
    if not found.command.flags[name]:
        found.flags.append(name)
        return True
    if given is None and (not rest or rest[0].startswith("--")):
        return _lacking(found, name)
    value = rest.pop(0) if given is None else given
    ours = CHOICES.get(name, {}).get(value.lower(), value)
    found.reasons += [f'"{value}" is "{ours}" here'] if ours != value else []
    found.flags += [name, ours]
    return True


def _is_foreign(name: str) -> bool:
    word = plain(name)
    negated = word.startswith("no") and word[2:] in SWITCHES
    return negated or bool(key_of(name.lstrip("-"))) or any(word in table for table in (FIXED, GIVEN, FLAGS, PLACES))


def _lacking(found: Correction, name: str) -> bool:
    """A flag without its value: `--resume` alone means the latest run, of the recipe where one is named."""
    recipe = next(iter(found.places), None)
    latest = filled("RUN", of=Path(recipe).stem if recipe else "*") if name == "--resume" else None
    if latest:
        found.flags += [name, latest]
        found.places.clear()
    return bool(latest)


def _translate(found: Correction, written: str, name: str, value: str) -> bool:
    """A foreign flag or pair as a flag, a place or a key of ours."""
    word = plain(name)
    if word in GIVEN:
        found.reasons.append(f'"{written}" is not needed: {GIVEN[word]}')
        return True
    if word == "resume" and value.lower() in YES_OR_NO:
        return _lacking(found, "--resume")
    ours = FLAGS.get(word)
    if ours in found.command.flags:
        found.reasons.append(f'"{written}" is "{ours}" here')
        found.flags += [ours or "", value]
        return True
    place = PLACES.get(word)
    if place in found.command.places:
        found.reasons.append(f'"{written}" needs no flag here')
        found.places.insert(0 if place == found.command.places[0] else len(found.places), value)
        return True
    return "--set" in found.command.flags and _translate_key(found, written, name, value)


def _translate_key(found: Correction, written: str, name: str, value: str) -> bool:
    """A foreign word as `--set` with a key of ours; False where no key is known for it."""
    known = name if name.partition(".")[0] in TABLES and "." in name else key_of(name)
    if plain(name) in FIXED and value.lower() not in {"false", "no", "0"}:
        known, value = FIXED[plain(name)]
    if known is None:
        return False
    known = ON_COMMAND.get((found.verb[0], known), known)
    if known == "data.root" and found.verb != ["evaluate"]:
        found.sets += [text for text in set_words(Path(value)) if not text.startswith("data.root=")]
    value = value_of(known, value)
    found.sets.append(f'{known}=["{value}"]' if known in ARRAYS and not value.startswith("[") else f"{known}={value}")
    found.reasons.append(f'"{written}" is the recipe key {known}')
    return True


def _complete(found: Correction) -> bool:
    """Fill in the words that a command needs and that were not given, where there are files that fit."""
    wanted = found.command.places
    if found.places and (found.verb == ["init"] or wanted[:1] == ["RECIPE"]):
        _take_folder(found, Path(found.places[-1]))
    if found.verb[0] in {"evaluate", "report", "export"} and not found.places and filled("RUN") is None:
        found.verb, found.flags = ["run"], []
        found.reasons.append("no run found here; this command makes one, with scores and a report")
        wanted = ["RECIPE"]
    for place in wanted[len(found.places) :]:
        if place == "RECIPE" and "--resume" in found.flags:
            continue
        word = VIDEO_RECIPE if place == "RECIPE" and "data.name=video_folder" in found.sets else filled(place)
        if word is None:
            return place in found.command.optional
        found.places.append(word)
    return True


def _take_folder(found: Correction, folder: Path) -> None:
    """A folder of images or videos instead of a recipe: make one for it, or train on it with the other arguments."""
    held = held_by(folder) if is_recipe_less(folder) else None
    if held is None:
        return
    found.reasons.append(f'"{folder}" is a folder of {held}, not a recipe')
    if found.sets or found.flags:
        found.places[0] = VIDEO_RECIPE if held == "videos" else RECIPE
        found.sets = [*set_words(folder), *found.sets]
    else:
        found.verb, found.places = ["init"], [held, str(folder)]
