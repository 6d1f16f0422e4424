"""What annotations mean: kinds of values that a recipe can give, and those that it cannot."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, NewType, NotRequired, Required, TypedDict

import jsonschema
import pydantic
import pytest
import torch
from annotated_types import Len
from pydantic import AfterValidator, BaseModel, Field, PositiveInt

from tests.recipe.kept import kept
from toolkit.recipe.annotations import value_of
from toolkit.recipe.checking import as_written, check, json_schema
from toolkit.recipe.values import Stored, stored
from toolkit.recipe.write import tables_to_toml


class Pool(StrEnum):
    MAX = "max"
    AVG = "avg"


class Act(Enum):
    RELU = "relu"
    GELU = "gelu"


class Level(IntEnum):
    LOW = 1
    HIGH = 3


class Mode(Enum):
    """Its values mean nothing to people."""

    FAST = auto()
    EXACT = auto()
    QUICK = FAST


class Layer(Enum):
    LINEAR = torch.nn.Linear
    IDENTITY = torch.nn.Identity


class Bits(Flag):
    ONE = 1
    TWO = 2


@dataclass(frozen=True)
class Stem:
    """The first layer.

    width: channels
    """

    width: int = 8
    pool: Pool = Pool.MAX
    kernel: tuple[int, int] = (3, 3)
    named: str | None = None


@dataclass
class Head:
    classes: Annotated[int, Field(ge=1)]
    _: KW_ONLY
    stem: Stem = field(default_factory=Stem)
    drop: float = 0.0
    hidden: int = field(init=False, default=3)


@dataclass(frozen=True)
class Doubled:
    width: int
    factor: InitVar[int] = 2

    def __post_init__(self, factor: int) -> None:
        if factor < 1:
            raise ValueError(f"factor: must be at least 1, got {factor}")
        object.__setattr__(self, "width", self.width * factor)


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Options(TypedDict, total=False):
    depth: Required[int]
    bias: bool


class Strict(TypedDict):
    depth: int
    bias: NotRequired[bool]


class Model(BaseModel):
    width: Annotated[int, Field(ge=1, description="channels")] = 4
    act: Act = Act.RELU
    label: str = Field("x", alias="name")

    @pydantic.field_validator("label")
    @classmethod
    def _lower(cls, text: str) -> str:
        if text != text.lower():
            raise ValueError("must be in lower case")
        return text


@pydantic.dataclasses.dataclass
class Checked:
    width: PositiveInt = 2


@dataclass
class Node:
    value: int = 0
    below: Node | None = None


@dataclass(frozen=True)
class Partly:
    """width: of it"""

    width: int = 1
    act: Callable[[float], float] = abs


Share = NewType("Share", float)


def even(value: int) -> int:
    if value % 2:
        raise ValueError(f"must be even, got {value}")
    return value


# Annotation, the value in TOML, the value that the factory gets, how the annotation reads, and a wrong value with its
# message.
# ruff: noqa: E501 - a table
EXPRESSIBLE: dict[str, tuple[Any, str, Any, str, str, str]] = {
    "StrEnum": (Pool, '"avg"', Pool.AVG, '"max" or "avg"', '"agv"', 'must be one of "max", "avg", got "agv"; did you mean "avg"?'),
    "Enum of strings": (Act, '"gelu"', Act.GELU, '"relu" or "gelu"', "1", 'must be one of "relu", "gelu", got 1'),
    "IntEnum": (Level, "3", Level.HIGH, "1 or 3", "2", "must be one of 1, 3, got 2"),
    "Enum of numbers": (Mode, '"EXACT"', Mode.EXACT, '"FAST" or "EXACT"', "2", 'must be one of "FAST", "EXACT", got 2'),
    "Enum of classes": (Layer, '"IDENTITY"', Layer.IDENTITY, '"LINEAR" or "IDENTITY"', '"Linear"', 'must be one of "LINEAR", "IDENTITY", got "Linear"'),
    "Enum or None": (Act | None, '"relu"', Act.RELU, '"relu" or "gelu"', '"rlu"', 'must be one of "relu", "gelu", got "rlu"; did you mean "relu"?'),
    "members of an Enum": (Literal[Pool.AVG], '"avg"', Pool.AVG, '"avg"', '"max"', 'must be "avg", got "max"'),
    "array of Enum": (list[Pool], '["avg", "max"]', [Pool.AVG, Pool.MAX], 'array of "max" or "avg"', '["x"]', '.0: must be one of "max", "avg", got "x"'),
    "table by Enum": (dict[Pool, int], "{max = 1}", {Pool.MAX: 1}, "table", "{mix = 1}", '.mix: must be one of "max", "avg", got "mix"; did you mean "max"?'),
    "dataclass": (Stem, "{width = 16, pool = \"avg\"}", Stem(16, Pool.AVG), "table of width, pool, kernel, named", "{widht = 1}", '.widht: unknown key; did you mean "width"?'),
    "empty table": (Stem, "{}", Stem(), "table of width, pool, kernel, named", "3", "must be a table, got 3"),
    "nested dataclass": (Head, "{classes = 2, stem = {width = 4}}", Head(2, stem=Stem(4)), "table of classes, stem, drop", "{stem = {width = 1}}", ".classes: is required"),
    "dataclass in a dataclass": (Head, "{classes = 1}", Head(1), "table of classes, stem, drop", "{classes = 1, stem = {pol = 1}}", '.stem.pol: unknown key; did you mean "pool"?'),
    "dataclass with limits": (Head, "{classes = 1, drop = 1}", Head(1, drop=1.0), "table of classes, stem, drop", "{classes = 0}", ".classes: must be at least 1, got 0"),
    "array of dataclass": (list[Stem], "[{width = 1}, {}]", [Stem(1), Stem()], "array of table of width, pool, kernel, named", "[{width = 0.5}]", ".0.width: must be an integer, got 0.5"),
    "dataclass or text": (Stem | Literal["none"], '"none"', "none", 'table of width, pool, kernel, named or "none"', '"non"', 'must be a table or "none", got "non"; did you mean "none"?'),
    "dataclass with a check": (Doubled, "{width = 2, factor = 3}", Doubled(2, 3), "table of width, factor", "{width = 1, factor = 0}", "factor: must be at least 1, got 0"),
    "dataclass of pydantic": (Checked, "{width = 3}", Checked(3), "table of width", "{width = 0}", ".width: must be greater than 0, got 0"),
    "NamedTuple": (Point, "{x = 1}", Point(1), "table of x, y", "[1, 2]", "must be a table, got [1, 2]"),
    "TypedDict": (Options, "{depth = 2}", {"depth": 2}, "table of depth, bias", "{bias = true}", ".depth: is required"),
    "TypedDict with optional keys": (Strict, "{depth = 2, bias = true}", {"depth": 2, "bias": True}, "table of depth, bias", "{depth = 2.5}", ".depth: must be an integer, got 2.5"),
    "pydantic model": (Model, '{width = 2, name = "a"}', Model(width=2, name="a"), "table of width, act, name", '{name = "A"}', "name: must be in lower case"),
    "NewType": (Share, "0.5", 0.5, "number", '"x"', 'must be a number, got "x"'),
    "Final": (Final[int], "3", 3, "integer", "3.5", "must be an integer, got 3.5"),
    "Annotated with text": (Annotated[int, "the number of layers"], "3", 3, "integer", '"3"', 'must be an integer, got "3"'),
    "Annotated with limits": (Annotated[list[int], Len(1, 2)], "[1]", [1], "array of integers", "[]", "must have at least 1 item, got 0"),
    "Annotated with a check": (Annotated[int, AfterValidator(even)], "2", 2, "integer", "3", "must be even, got 3"),
    "set": (set[str], '["b", "a", "b"]', {"a", "b"}, "array of strings", '"a"', 'must be an array, got "a"'),
    "frozenset": (frozenset[int], "[2, 1]", frozenset({1, 2}), "array of integers", '["a"]', '.0: must be an integer, got "a"'),
    "set of Enum": (set[Pool], '["avg"]', {Pool.AVG}, 'array of "max" or "avg"', '["x"]', '.0: must be one of "max", "avg", got "x"'),
    "abstract set": (AbstractSet[int], "[1]", frozenset({1}), "array of integers", "1", "must be an array, got 1"),
    "set of pairs": (set[tuple[int, int]], "[[2, 1], [1, 2]]", {(1, 2), (2, 1)}, "array of array of 2 integers", "[[1]]", ".0: must have 2 items, got 1"),
    "pair of different types": (tuple[int, float], "[1, 0.5]", (1, 0.5), "array of integer and number", "[0.5, 1]", ".0: must be an integer, got 0.5"),
    "pair of limits": (tuple[Annotated[int, Field(ge=0)], str], '[1, "a"]', (1, "a"), "array of integer, at least 0 and string", '[-1, "a"]', ".0: must be at least 0, got -1"),
    "iterable": (Iterable[int], "[1, 2]", (1, 2), "array of integers", "1", "must be an array, got 1"),
    "date": (date, "2026-01-31", date(2026, 1, 31), "date", '"2026-01-31"', 'must be a date such as 2026-01-31, got "2026-01-31"'),
    "date and time": (datetime, "2026-01-31T12:30:00", datetime(2026, 1, 31, 12, 30), "date and time", "2026-01-31", "must be a date with a time such as 2026-01-31T12:00:00, got 2026-01-31"),
    "time": (time, "12:30:00", time(12, 30), "time", "12", "must be a time such as 12:00:00, got 12"),
    "path": (Path, '"a/b"', Path("a/b"), "path", "1", "must be a path in quotes, got 1"),
    "paths": (list[Path], '["a/b"]', [Path("a/b")], "array of paths", "[1]", ".0: must be a path in quotes, got 1"),
    "table of numbers": (dict[int, float], "{1 = 0.5}", {1: 0.5}, "table", "{a = 0.5}", '.a: must be an integer, got "a"'),
}  # fmt: skip


def _factory(annotation: Any, default: Any) -> Any:
    def build(spec: Any, *, one: Any = default) -> None:
        """one: of the kind that is examined"""

    build.__annotations__["one"] = annotation
    return build


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_a_recipe_gives_it_and_is_written_as_it_was_read(name: str) -> None:
    annotation, toml, value, words, _, _ = EXPRESSIBLE[name]
    signature = kept(_factory(annotation, value))
    assert signature.arguments[0].value.words() == words
    assert signature.foreign == {}
    given = tomllib.loads(f"one = {toml}")
    args, problems = check(signature, given, "model")
    assert (args, problems) == ({"one": value}, [])
    assert type(args["one"]) is type(value)
    written = tomllib.loads(tables_to_toml(as_written(signature, given, args)))
    assert check(signature, written, "model") == (args, [])
    if name != "dataclass with a check":  # which does not keep what it was made of, so its default has no table
        assert check(signature, signature.defaults, "model") == (args, [])
    whole = {"type": "object", "additionalProperties": False, **json_schema(signature)}
    jsonschema.validate(_as_json(given), whole, format_checker=jsonschema.FormatChecker())


def _as_json(value: Any) -> Any:
    """Dates as editors give them to a schema: as strings."""
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [*map(_as_json, value)]
    return value.isoformat() if isinstance(value, (date, time)) else value


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_a_wrong_value_says_what_is_expected(name: str) -> None:
    annotation, _, value, _, wrong, message = EXPRESSIBLE[name]
    signature = kept(_factory(annotation, value))
    args, problems = check(signature, tomllib.loads(f"one = {wrong}"), "model")
    assert args == {}
    assert [str(problem) for problem in problems] == [f"model.one{message if message[:1] == '.' else f': {message}'}"]


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_its_kind_is_kept_as_json(name: str) -> None:
    kind = value_of(EXPRESSIBLE[name][0])
    assert isinstance(kind, Stored)
    assert stored(kind.plain()) == kind


FOREIGN: dict[str, tuple[Any, str]] = {
    "function": (Callable[[int], int], "Callable[[int], int]"),
    "class of others": (torch.nn.Module, "Module"),
    "class": (type[torch.nn.Module], "type[Module]"),
    "or None": (torch.nn.Module | None, "Module | None"),
    "array of it": (list[torch.Tensor], "list[Tensor]"),
    "table of it": (Mapping[str, torch.Tensor], "Mapping[str, Tensor]"),
    "flags": (Bits, "Bits"),
    "bytes": (bytes, "bytes"),
    "complex number": (complex, "complex"),
    "decimal": (Decimal, "Decimal"),
    "time that passes": (timedelta, "timedelta"),
    "pattern": (re.Pattern[str], "Pattern[str]"),
    "set of arrays": (set[list[int]], "set[list[int]]"),
    "keys that are no text": (dict[float, int], "dict[float, int]"),
    "object": (object, "object"),
    "partial": (partial[int], "partial[int]"),
    "pair with one of it": (tuple[int, torch.dtype], "tuple[int, dtype]"),
    "Annotated": (Annotated[torch.dtype, "of the weights"], "dtype"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_recipe_cannot_give_is_said(name: str) -> None:
    annotation, said = FOREIGN[name]
    signature = kept(_factory(annotation, None))
    assert (signature.names, signature.foreign) == ([], {"one": said})
    assert signature.arguments[0].value.words() == f"{said}, which a recipe cannot give"
    assert check(signature, {}, "model") == ({}, [])
    problems = check(signature, {"one": "x"}, "model")[1]
    assert [str(one) for one in problems] == [f"model.one: is an argument of type {said}, which a recipe cannot give"]
    assert json_schema(signature) == {"properties": {}}


def test_a_key_of_a_class_that_a_recipe_cannot_give_is_said_too() -> None:
    signature = kept(_factory(Partly, Partly()))
    assert signature.names == ["one"]
    assert signature.foreign == {"one.act": "Callable[[float], float]"}
    problems = check(signature, {"one": {"act": "abs"}}, "model")[1]
    assert str(problems[0]).startswith("model.one.act: is an argument of type Callable[[float], float], which")


def test_a_class_that_holds_itself_is_read_once() -> None:
    signature = kept(_factory(Node, Node()))
    assert signature.foreign == {"one.below": "Node | None"}
    assert check(signature, {"one": {"value": 1}}, "model") == ({"one": Node(1)}, [])


def test_a_class_that_needs_what_a_recipe_cannot_give_is_foreign() -> None:
    @dataclass
    class Needy:
        layer: torch.nn.Module

    assert kept(_factory(Needy, None)).foreign == {"one": "Needy (layer is of type Module)"}


def test_a_class_inside_a_function_works_though_it_cannot_be_kept() -> None:
    class Local(StrEnum):
        A = "a"

    signature = kept(_factory(Local, Local.A))
    with pytest.raises(TypeError, match=r"Local cannot be imported by its name"):
        signature.plain()
    assert check(signature, {"one": "a"}, "model") == ({"one": Local.A}, [])


def test_defaults_that_a_table_cannot_say_are_not_written() -> None:
    @dataclass(frozen=True)
    class Wide:
        width: int | None = 8

    assert kept(_factory(Wide, Wide())).defaults == {"one": {"width": 8}}
    assert kept(_factory(Wide, Wide(None))).defaults == {}  # an absent key would mean 8
    assert kept(_factory(Bits, Bits.ONE)).defaults == {}


def test_the_keys_of_a_class_are_described_for_people_and_editors() -> None:
    signature = kept(_factory(Stem, Stem()))
    width = json_schema(signature)["properties"]["one"]["properties"]["width"]
    assert (width["type"], width["description"]) == ("integer", "channels")
    assert signature.arguments[0].default == '{width = 8, pool = "max", kernel = [3, 3]}'
    described = json_schema(kept(_factory(Model, None)))["properties"]["one"]["properties"]
    assert (described["width"]["description"], described["act"]["enum"]) == ("channels", ["relu", "gelu"])


def test_annotations_of_a_class_that_cannot_be_read_are_foreign() -> None:
    namespace: dict[str, Any] = {}
    exec("from dataclasses import dataclass\n@dataclass\nclass Half:\n    a: 'Nowhere' = 1\n", namespace)
    assert kept(_factory(namespace["Half"], None)).foreign == {"one.a": "Nowhere"}


def test_sequences_stay_tuples() -> None:
    assert check(kept(_factory(Sequence[int], ())), {"one": [1]}, "m")[0] == {"one": (1,)}


def test_the_keys_that_a_class_has_by_default_are_written_with_those_given() -> None:
    signature = kept(_factory(Head, None))
    given = {"one": {"classes": 2, "stem": {"width": 4}}}
    args, _ = check(signature, given, "model")
    stem = {"width": 4, "pool": "max", "kernel": [3, 3]}
    assert as_written(signature, given, args) == {"one": {"classes": 2, "stem": stem, "drop": 0.0}}
    doubled = kept(_factory(Doubled, Doubled(1)))
    assert doubled.defaults == {}
    given = {"one": {"width": 2, "factor": 3}}
    assert as_written(doubled, given, check(doubled, given, "model")[0]) == given
