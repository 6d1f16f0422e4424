from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from tests.recipe.kept import kept
from toolkit.api.errors import Problem
from toolkit.recipe import checking
from toolkit.recipe.docstrings import documented, without_arguments
from toolkit.recipe.values import Argument, Scalar

if TYPE_CHECKING:
    from somewhere import Spec  # type: ignore[import-not-found]

    from toolkit.api.contracts import DataSpec


def factory(
    spec: Spec,
    *,
    count: int = 3,
    share: Annotated[float, Field(ge=0, le=1)] = 0.5,
    flag: bool = False,
    text: str = "x",
    file: Path | None = None,
    mode: Literal["same", "valid"] = "same",
    triple: tuple[float, float, float] = (1, 2, 3),
    widths: list[int] = [8],  # noqa: B006 - what the signature says is what is tested
    kernel: Sequence[Annotated[int, Field(ge=1)]] = (3,),
    clip: Annotated[float, Field(gt=0)] | Literal["none"] = "none",
    rates: dict[str, float] | None = None,
) -> None:
    """Takes one of everything.

    count: how many,
        of whatever it is.
    share: part of the whole, 0 to 1
    """


def check(of: Any, given: dict[str, Any], key: str, skip: tuple[str, ...] = ()) -> tuple[dict[str, Any], list[Problem]]:
    return checking.check(kept(of, skip), given, key)


def describe(of: Any, skip: tuple[str, ...] = ()) -> tuple[Argument, ...]:
    return kept(of, skip).arguments


def problems(given: dict[str, Any], of: Any = factory) -> list[str]:
    return [str(problem) for problem in check(of, given, "model")[1]]


def test_valid_values_are_converted_to_their_annotations():
    values = {"count": 4, "share": 1, "file": "a/b", "triple": [1, 2, 3], "clip": 2, "rates": {"a": 1}, "kernel": [5]}
    args, found = check(factory, values, "model")
    assert found == []
    assert args == {**values, "file": Path("a/b"), "triple": (1.0, 2.0, 3.0), "kernel": (5,)}
    assert type(args["share"]) is float
    assert list(args) == ["count", "share", "file", "triple", "kernel", "clip", "rates"]


def test_only_given_arguments_come_back():
    assert check(factory, {}, "model") == ({}, [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": "3"}, 'model.count: must be an integer, got "3"'),
        ({"count": True}, "model.count: must be an integer, got true"),
        ({"count": 3.0}, "model.count: must be an integer, got 3.0"),
        ({"share": "1"}, 'model.share: must be a number, got "1"'),
        ({"share": -1}, "model.share: must be at least 0, got -1"),
        ({"share": 1.5}, "model.share: must be at most 1, got 1.5"),
        ({"share": float("nan")}, "model.share: must be a finite number, got NaN"),
        ({"flag": 1}, "model.flag: must be true or false, got 1"),
        ({"text": 3}, "model.text: must be a string, got 3"),
        ({"file": 3}, "model.file: must be a path in quotes, got 3"),
        ({"mode": "sane"}, 'model.mode: must be one of "same", "valid", got "sane"; did you mean "same"?'),
        ({"triple": [1, 2]}, "model.triple: must have 3 items, got 2"),
        ({"triple": []}, "model.triple: must have 3 items, got 0"),
        ({"triple": [1, 2, 3, 4]}, "model.triple: must have at most 3 items, got 4"),
        ({"triple": [1, "2", 3]}, 'model.triple.1: must be a number, got "2"'),
        ({"widths": 8}, "model.widths: must be an array, got 8"),
        ({"widths": [8, "x"]}, 'model.widths.1: must be an integer, got "x"'),
        ({"kernel": [0]}, "model.kernel.0: must be at least 1, got 0"),
        ({"clip": 0}, "model.clip: must be greater than 0, got 0"),
        ({"clip": "non"}, 'model.clip: must be a number or "none", got "non"; did you mean "none"?'),
        ({"rates": 1}, "model.rates: must be a table, got 1"),
        ({"rates": {"a": "b"}}, 'model.rates.a: must be a number, got "b"'),
        ({"shre": 0.1}, 'model.shre: unknown key; did you mean "share"?'),
        ({"zzz": 0.1}, "model.zzz: unknown key"),
        ({"spec": 1}, "model.spec: unknown key"),
        ({"text": "x" * 99, "mode": "y" * 99}, f'model.mode: must be one of "same", "valid", got "{"y" * 56}...'),
    ],
)
def test_every_message(given: dict[str, Any], message: str):
    assert problems(given) == [message]


def test_all_problems_are_reported_at_once():
    assert len(problems({"count": "3", "share": 2, "text": 1, "nothing": 1, "triple": [1]})) == 5


Width = Annotated[int, Field(ge=1), "channels"]


def test_a_text_in_the_annotation_documents_what_the_docstring_does_not():
    def build(
        spec: Any,
        *,
        width: Width | None = None,
        inner: Width = 8,
        outer: Annotated[Width, "channels of them"] = 8,
        plain: int = 1,
    ) -> None:
        """Builds.

        inner: hidden channels
        """

    docs = {one.name: one.doc for one in describe(build)}
    assert docs == {"width": "channels", "inner": "hidden channels", "outer": "channels of them", "plain": ""}


def test_missing_required_argument():
    def needs(spec: Any, *, classes: int) -> None: ...

    assert check(needs, {}, "model") == ({}, [Problem("model.classes", "is required")])


def test_limits_on_length():
    def needs(spec: Any, *, ends: Annotated[list[int], Field(min_length=1)]) -> None: ...

    assert problems({"ends": []}, needs) == ["model.ends: must have at least 1 item, got 0"]


def test_a_wrong_item_is_not_a_missing_one():
    def needs(spec: Any, *, ends: Annotated[tuple[int, ...], Field(min_length=1)]) -> None: ...

    assert problems({"ends": ["x"]}, needs) == ['model.ends.0: must be an integer, got "x"']


def test_limits_on_text():
    def needs(
        spec: Any, *, a: Annotated[str, Field(pattern="^a")] = "a", b: Annotated[str, Field(max_length=2)] = ""
    ) -> None: ...

    assert problems({"a": "b"}, needs) == ['model.a: must be text that matches ^a, got "b"']
    assert problems({"b": "abc"}, needs) == ['model.b: must be text of length 2 or less, got "abc"']


def test_a_check_the_plugin_wrote_itself_is_quoted():
    def even(value: int) -> int:
        if value % 2:
            raise ValueError(f"must be even, got {value}")
        return value

    def needs(spec: Any, *, a: Annotated[int, AfterValidator(even)] = 2) -> None: ...

    needs.__annotations__["a"] = Annotated[int, AfterValidator(even)]
    assert problems({"a": 3}, needs) == ["model.a: must be even, got 3"]


def test_limits_that_make_no_sense_are_the_factorys_fault():
    def confused(spec: Any, *, name: Annotated[str, Field(pattern="(")] = "") -> None: ...

    with pytest.raises(TypeError, match="limits do not suit"):
        check(confused, {}, "model")


def test_names_that_collide_with_pydantic_are_fine():
    def awkward(spec: Any, *, copy: int = 1, model_config: int = 2, json: str = "", _hidden: int = 0) -> None: ...

    values = {"copy": 2, "model_config": 3, "json": "x", "_hidden": 1}
    assert check(awkward, values, "model") == (values, [])


def test_a_type_only_type_checkers_know_hurts_just_its_own_argument():
    def unreadable(spec: DataSpec, *, other: DataSpec | None = None) -> None: ...

    with pytest.raises(TypeError, match=r"argument other: annotation DataSpec \| None: NameError"):
        check(unreadable, {}, "model")


def test_a_required_argument_that_toml_cannot_give_is_the_factorys_fault():
    def impossible(spec: Any, *, layer: torch.nn.Module) -> None: ...

    with pytest.raises(TypeError, match="argument layer: a recipe cannot give"):
        check(impossible, {}, "model")


def test_an_optional_argument_that_toml_cannot_give_says_so():
    def partly(spec: Any, *, layer: torch.nn.Module | None = None, width: int = 1) -> None: ...

    assert kept(partly).names == ["width"]
    assert problems({"layer": "relu"}, partly) == [
        "model.layer: is an argument of type Module | None, which a recipe cannot give"
    ]


def test_without_annotation_the_default_gives_the_type():
    def bare(spec, *, width=3): ...  # type: ignore[no-untyped-def]

    assert problems({"width": "x"}, bare) == ['model.width: must be an integer, got "x"']


def test_without_annotation_none_gives_no_type():
    def bare(spec, *, width=None): ...  # type: ignore[no-untyped-def]

    assert check(bare, {"width": 3}, "model") == ({"width": 3}, [])


def test_an_annotation_in_quotes_is_read():
    def quoted(spec: Any, *, width: "int | Literal['auto']" = "auto") -> None: ...  # noqa: UP037 - what is tested

    assert problems({"width": 3}, quoted) == []
    assert problems({"width": "atuo"}, quoted)[0].endswith('did you mean "auto"?')


class Callable:
    """A factory that is an object.

    width: of it
    """

    def __call__(self, spec: DataSpec, *, width: int = 2) -> None: ...


class Constructed:
    def __init__(self, spec: DataSpec, *, width: int = 2) -> None: ...


@pytest.mark.parametrize("of", [Callable(), Constructed, functools.partial(factory, count=9)])
def test_factories_need_not_be_functions(of: Any):
    wrong = {"count" if isinstance(of, functools.partial) else "width": "x"}
    assert "must be an integer" in problems(wrong, of)[0]


def optimizers() -> list[type[torch.optim.Optimizer]]:
    found = [kind for kind in vars(torch.optim).values() if isinstance(kind, type)]
    return [kind for kind in found if issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer]


@pytest.mark.parametrize("kind", optimizers(), ids=lambda kind: kind.__name__)
def test_every_optimizer_of_torch_takes_its_own_defaults(kind: type[torch.optim.Optimizer]):
    skip = ("params", "lr")
    own = kept(kind, skip).defaults
    args, found = check(kind, own, "train.optimizer", skip=skip)
    assert found == []
    kind([torch.nn.Parameter(torch.zeros(2, 2))], **args)
    assert check(kind, {"lr": 1.0}, "o", skip=skip)[1][0].message == "unknown key"
    assert {argument.name for argument in describe(kind, skip=skip)} >= set(own)


def test_optimizer_arguments_are_checked():
    found = check(torch.optim.AdamW, {"betas": [0.9], "weight_decay": "x", "wieght": 1}, "o", skip=("lr",))[1]
    assert [problem.key for problem in found] == ["o.betas", "o.weight_decay", "o.wieght"]


def test_defaults_are_converted_and_skip_what_toml_cannot_say():
    found = kept(factory).defaults
    assert found["triple"] == [1.0, 2.0, 3.0]
    assert "file" not in found
    assert "rates" not in found


def test_a_default_outside_its_own_annotation_is_skipped():
    def sloppy(spec: Any, *, width: Annotated[int, Field(ge=1)] = 0) -> None: ...

    assert kept(sloppy).defaults == {}


def test_describe():
    described = {argument.name: argument for argument in describe(factory)}
    assert described["count"] == Argument("count", Scalar("int"), "3", False, "how many, of whatever it is.")
    assert (described["file"].default, described["file"].required) == ("unset", False)
    assert {
        name: described[name].value.words() for name in ("count", "share", "file", "mode", "triple", "clip", "rates")
    } == {
        "count": "integer",
        "share": "number, at least 0, at most 1",
        "file": "path",
        "mode": '"same" or "valid"',
        "triple": "array of 3 numbers",
        "clip": 'number, greater than 0 or "none"',
        "rates": "table",
    }


def test_required_arguments_say_so():
    def needs(spec: Any, *, classes: int) -> None: ...

    assert describe(needs)[0].required


def test_json_schema_carries_limits_defaults_and_docs():
    properties = checking.json_schema(kept(factory))["properties"]
    assert properties["share"]["maximum"] == 1
    assert properties["share"]["default"] == 0.5
    assert properties["share"]["description"] == "part of the whole, 0 to 1"
    assert properties["mode"]["enum"] == ["same", "valid"]
    assert "required" not in checking.json_schema(kept(factory))


def test_documented_reads_one_line_per_argument():
    assert documented("Does it: well.\n\n`a`: one\nb: two\n  and more\nnot this") == {"a": "one", "b": "two and more"}


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.datetimes(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_any_table_is_either_accepted_or_explained(values: dict[str, Any]):
    args, found = check(factory, values, "model")
    assert bool(found) == bool(set(values) - set(args))
    assert all(str(problem).startswith("model.") for problem in found)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.none()
            | st.booleans()
            | st.integers(-3, 3)
            | st.floats()
            | st.sampled_from(["same", "none", "z"])
            | st.lists(st.integers(-1, 2) | st.just("z"), max_size=4)
            for name in (
                "count",
                "share",
                "flag",
                "text",
                "file",
                "mode",
                "triple",
                "widths",
                "kernel",
                "clip",
                "rates",
            )
        },
    )
)
def test_each_wrong_argument_is_one_problem(values: dict[str, Any]):
    wrong = [name for name, value in values.items() if check(factory, {name: value}, "m")[1]]
    found = {problem.key.split(".")[1] for problem in check(factory, values, "m")[1]}
    assert found == set(wrong)


def test_a_factory_takes_what_the_core_gives_and_nothing_that_nobody_can_give():
    def given_nothing(*, width: int = 8) -> None: ...

    def positional(spec: Any, width: int, /) -> None: ...

    def optional(spec: Any, width: int = 8, /, *, depth: int = 2) -> None: ...

    def anything(*args: Any, depth: int = 2) -> None: ...

    for factory in (given_nothing, lambda: None):
        with pytest.raises(
            TypeError, match="takes no positional argument, but the toolkit passes one to every factory"
        ):
            check(factory, {}, "m")
    with pytest.raises(TypeError, match="argument width: is positional-only, so no recipe can give it"):
        check(positional, {}, "m")
    assert kept(optional).names == kept(anything).names == ["depth"]
    assert kept(optional).foreign == {"width": "integer (positional-only)"}


def test_a_docstring_without_its_arguments():
    text = "What it is.\n\nMore: of it.\n\nwidth: channels,\n    of the first layer\nother: stays"
    assert without_arguments(text, ["width"]) == "What it is.\n\nMore: of it.\n\nother: stays"
    assert without_arguments("width: channels", ["width"]) == ""
