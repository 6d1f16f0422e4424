"""Mutated recipes: `check` refuses each with its reason, and what it calls valid is trained.

`TOOLKIT_MUTATIONS=500` tries so many of each family.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests import tiny
from tests.hostile.damage import ODD, distort, scramble
from tests.hostile.trials import MUTATIONS, Trial
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, EXIT_USAGE
from toolkit.build.schema import recipe_schema
from toolkit.host.registry import discover
from toolkit.recipe.shipped import shipped

LARGE = ("mvit_v2_s", "openclip", "transformers")
"""Models of shipped recipes whose training takes minutes, however few items there are."""
SAMPLES = {"cifar10": "sample_images", "har": "sample_clips"}
"""How many items a dataset draws by code, where a recipe may say so."""

NUMBERS = (
    *(0, -1, 1, 2, 3, 7, 10**3, 10**5, 10**7, 2**31, 2**63, 10**30),
    *(0.0, -0.5, 1e-30, 1e30, float("nan"), float("inf"), 1.0, 0.999, 0.01),
)
WORDS = (
    *("none", "auto", "cpu", "fp32", "bf16", "int8", "accuracy", "log_loss", "loss", "valid", "sgd", "adamw", "cnn"),
    *("one_cycle", "mixup", "random_crop", "/dev/zero", "/proc/self/mem", ".".join("a" * 3000)),
)
VALUES = (*ODD, *NUMBERS, *NUMBERS, *WORDS, [0, 0, 0], [1, 1, 1], [1e30] * 3, {"name": "sgd"}, [{"name": "mixup"}])


def keys(schema: Mapping[str, Any], inside: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The tables of a recipe and their keys, by the schema."""
    named = str(inside.get("$ref", "")).rpartition("/")[2]
    table = schema.get("$defs", {}).get(named, inside)
    if len(before) < 4:
        for key, value in table.get("properties", {}).items():
            yield (*before, key)
            yield from keys(schema, value, (*before, key))
        for part in (*table.get("anyOf", ()), *table.get("allOf", ()), *table.get("oneOf", ())):
            yield from keys(schema, part, before)


def set_a_key(content: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *outer, last = path
    table: Any = content
    for key in outer:
        table = table.setdefault(key, {}) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table[last] = value


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, bool | str) or value is None:
        return json.dumps("" if value is None else value)
    return repr(value)


def short(content: dict[str, Any]) -> dict[str, Any]:
    """A shipped recipe with few items and small batches, that downloads nothing."""
    content["data"][SAMPLES[content["data"]["name"]]] = 3
    content["model"].pop("weights", None)
    content["train"] |= {"epochs": 1, "batch": 4, "device": "cpu"}
    return content


def written(content: Mapping[str, Any]) -> str:
    return "".join(f"{json.dumps(str(key))} = {as_toml(value)}\n" for key, value in content.items())


def mutated(text: str, known: list[tuple[str, ...]], draw: Random) -> bytes:
    kind = draw.randrange(10)
    if kind == 0:
        return scramble(text.encode(), draw)
    content = tomllib.loads(text)
    if kind < 5:
        distort(content, draw, values=VALUES)
    else:
        for _ in range(draw.choice([1, 1, 2, 3])):
            set_a_key(content, draw.choice(known), draw.choice(VALUES))
    return written(content).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def known() -> list[tuple[str, ...]]:
    schema = recipe_schema(discover())
    return sorted(set(keys(schema, schema)))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("recipe")
    return tiny.write_recipe(folder, tiny.write_images(folder / "images")).read_text(encoding="utf-8")


@pytest.mark.slow
def test_check_refuses_a_mutated_recipe_or_it_trains(
    text: str, known: list[tuple[str, ...]], trial: Trial, tmp_path: Path
) -> None:
    """Slow: what is valid is trained for an epoch."""
    check_mutations(16, lambda draw: mutated(text, known, draw), trial, tmp_path)


@pytest.mark.slow
def test_check_refuses_a_mutated_shipped_recipe_or_it_trains(
    known: list[tuple[str, ...]], trial: Trial, tmp_path: Path
) -> None:
    """Slow: as above, of some of them."""
    recipes = [tomllib.loads(path.read_text(encoding="utf-8")) for path in shipped().values()]
    small = [one for one in recipes if one["model"]["name"] not in LARGE and one["data"]["name"] in SAMPLES]
    texts = [written(short(one)) for one in small]
    check_mutations(8, lambda draw: mutated(draw.choice(texts), known, draw), trial, tmp_path)


def check_mutations(wanted: int, mutate: Callable[[Random], bytes], trial: Trial, folder: Path) -> None:
    """A loss that is not finite may end the training of a valid recipe, and data that turns out to be damaged, but
    nothing that `check` can know. Few mutations are valid, so it goes on until one is."""
    checked, ended, wrong = Counter[int](), Counter[int](), []
    path = folder / "mutated.toml"
    for number in itertools.count():
        if number >= (MUTATIONS or wanted) and ended:
            break
        path.write_bytes(mutate(Random(number)))
        outcome = trial("check", path)
        checked[outcome.code] += 1
        faults = [f"check {fault}" for fault in outcome.faults()]
        if outcome.code not in (EXIT_DONE, EXIT_USAGE, EXIT_DATA):
            faults.append(f"check ended with {outcome.code}")
        if outcome.code == EXIT_DONE:
            outcome = trial("run", path, "--runs", folder / "runs", "--set", "train.epochs=1")
            ended[outcome.code] += 1
            faults += [f"run {fault}" for fault in outcome.faults()]
            if outcome.code not in (EXIT_DONE, EXIT_FAILED):
                faults.append(f"run ended with {outcome.code}")
            if outcome.code == EXIT_FAILED and "not finite" not in outcome.error:
                faults.append("run failed, although check called it valid")
            shutil.rmtree(folder / "runs", ignore_errors=True)
        wrong += [f"mutation {number}: {faults}\n{path.read_bytes()!r}\n{outcome.error}"] * bool(faults)
    print(f"check: {dict(checked)}, run of the valid: {dict(ended)}")
    assert not wrong, "\n\n".join(wrong)
    assert len(checked) > 1
    assert ended
