"""The project's sentences use plain technical English: words of its old private dialect do not return.

``python -m tests.test_words [PATH ...]`` lists each place under the given paths.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".html", ".css", ".js", ".j2", ".jinja", ".sh"}
SCRIPTS = {".ci/examples", ".ci/lowest", ".ci/run"}

# What is banned, and what to write instead. Python's ``None`` is spelled differently from the word "none".
BANNED = {
    r"[Tt]old": "showed, reported, given",
    r"(?<!\.)[Tt]ell(?:s|ing)?": "report, show, distinguish",
    r"[Aa]new": "again",
    r"[Bb]eside": "next to, with",
    r"[Ff]ilms?": "video",
    r"[Ww]hoever": "anyone who",
    r"[Mm]end(?:s|ed|ing)?": "fix",
    r"(?<![Tt]here )is no(?! longer\b| more\b)": "is not a",
    r"(?:is|are|was|were) none": "none was found, there are no",
    r"(?:left|leaves?|leaving) out": "skipped, omitted",
    r"which is not there": "X not found",
    r"give the same command again": "run the same command again",
}
PATTERN = re.compile("|".join(rf"\b{shape}\b" for shape in BANNED))
TEMPLATED = re.compile(r"\{[{%].*?[%}]\}")
"""Jinja's code, whose `is none` is not a sentence."""

# The guide's "before" column and this file quote the words.
QUOTING = {"CONTRIBUTING.md", "tests/test_words.py"}


def places(paths: list[str]) -> Iterator[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        path = ROOT / name
        if (path.suffix not in TEXT and name not in SCRIPTS) or name in QUOTING or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for match in PATTERN.finditer(TEMPLATED.sub("", line)):
                yield f"{name}:{number}: {match.group()!r} in: {line.strip()[:140]}"


def test_no_sentence_uses_a_word_of_the_old_dialect() -> None:
    assert list(places(["."])) == []


def test_the_pattern_finds_the_old_dialect_and_passes_plain_english() -> None:
    old = [
        "nothing is told",
        "x is no name",
        "there are none",
        "decoded anew",
        "mend it",
        "beside the file",
        "left out",
    ]
    plain = ["x is None", "it is no longer used", "there is no such file", "besides", "intelligent", "filmstrip"]
    assert all(PATTERN.search(sentence) for sentence in old)
    assert not any(PATTERN.search(sentence) for sentence in plain)


if __name__ == "__main__":
    print(*places(sys.argv[1:] or ["."]), sep="\n")
