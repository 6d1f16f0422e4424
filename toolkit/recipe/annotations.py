"""From annotations to the kinds of values that they mean."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import types
import typing
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import EnumType, Flag
from functools import partial
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, RootModel, Strict
from pydantic.fields import FieldInfo

from toolkit.recipe.docstrings import documented
from toolkit.recipe.plain import alias_of, member_text, plain, storable
from toolkit.recipe.values import (
    SCALARS,
    Argument,
    Array,
    Check,
    Choice,
    Described,
    Either,
    Foreign,
    Lax,
    Limit,
    Limited,
    Member,
    Named,
    Record,
    Row,
    Scalar,
    Table,
    Value,
)
from toolkit.recipe.write import inline

_ARRAYS: Mapping[Any, str] = {
    list: "list",
    abc.MutableSequence: "list",
    tuple: "tuple",
    abc.Sequence: "tuple",
    abc.Collection: "tuple",
    abc.Iterable: "tuple",
    set: "set",
    abc.MutableSet: "set",
    frozenset: "frozenset",
    abc.Set: "frozenset",
}
_PATHS = (Path, PurePath, os.PathLike)
_TABLES = (dict, abc.Mapping, abc.MutableMapping)
_UNIONS = (Union, types.UnionType)
_WRAPPERS = tuple(
    getattr(typing, name) for name in ("Final", "Required", "NotRequired", "ReadOnly") if hasattr(typing, name)
)
"""What says nothing of the value itself."""
_LIMITS = frozenset(("Ge", "Gt", "Interval", "Le", "Len", "Lt", "MaxLen", "MinLen", "MultipleOf"))
_DESCRIBED = ("title", "description", "examples")
_SHOWN = 60
"""Characters of a default that are shown."""


@dataclass(frozen=True, eq=False)
class _Annotation:
    """An annotation with its parts, and the classes that it stands in."""

    whole: Any
    inside: tuple[type, ...]

    @property
    def inner(self) -> tuple[Any, ...]:
        return get_args(self.whole)

    @property
    def kind(self) -> Any:
        """What it is without its parts; None where that cannot be looked up."""
        kind = get_origin(self.whole) or self.whole
        return kind if isinstance(kind, abc.Hashable) else None

    @property
    def alone(self) -> type:
        """The class that it is, without parts; `_Missing` for anything else."""
        return self.whole if isinstance(self.whole, type) and not self.inner else _Missing

    def read(self, part: Any) -> Value:
        return value_of(part, self.inside)


def value_of(annotation: Any, inside: tuple[type, ...] = ()) -> Value:
    """The kind of the values of `annotation`; `Foreign` where TOML can express none of them. Members of a union that it
    cannot express are dropped (tensors in `float | Tensor`)."""
    if isinstance(annotation, dataclasses.InitVar):
        annotation = annotation.type
    annotation = getattr(annotation, "__value__", getattr(annotation, "__supertype__", annotation))
    of = _Annotation(annotation, inside)
    found = next((read(of) for means, read in _READERS if means(of)), None)
    return Foreign(type_name(annotation)) if found is None else found


def type_name(annotation: Any) -> str:
    """What an annotation is called in a message."""
    if isinstance(annotation, _Unread):
        return annotation.text
    return re.sub(r"(?:[\w<>]+\.)+", "", inspect.formatannotation(annotation))


def text_of(annotation: Any) -> str:
    """What an annotation says to people: the last text in its `Annotated`, or in that of a member of its union; empty
    without one."""
    annotation = getattr(annotation, "__value__", annotation)
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        return next((one for one in reversed(metadata) if isinstance(one, str)), "") or text_of(annotation)
    members = get_args(annotation) if get_origin(annotation) in _UNIONS else ()
    return next(filter(None, map(text_of, members)), "")


def argument(name: str, value: Value, default: Any, doc: str, *, required: bool) -> Argument:
    return Argument(name, value, _default_text(value, default), required, doc)


def _default_text(value: Value, default: Any) -> str:
    if isinstance(value, Foreign):
        return "its own"
    if not storable(default):
        return "unset"
    text = inline(plain(default))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _unwrapped(of: _Annotation) -> Value:
    return of.read(of.inner[0] if of.inner else Any)


def _limited(of: _Annotation) -> Value | None:
    annotation, *metadata = of.inner
    value = of.read(annotation)
    extras = tuple(_extra(one) for one in metadata if not isinstance(one, str))  # see `text_of`
    return value if isinstance(value, Foreign) or not extras else Limited(value, extras)


def _union(of: _Annotation) -> Value | None:
    kept = [one for one in map(of.read, of.inner) if not isinstance(one, Foreign)]
    return Either(tuple(kept)) if any(one != Scalar("none") for one in kept) else None


def _literal(of: _Annotation) -> Value | None:
    kinds: set[Any] = {type(one) for one in of.inner}
    if len(kinds) == 1 and isinstance(kind := next(iter(kinds)), EnumType):
        return _members(kind, of.inner)
    return Choice(of.inner) if kinds <= {str, int, bool, type(None)} else None


def _enumeration(of: _Annotation) -> Value | None:
    return _members(of.whole, [*of.whole])


def _members(kind: EnumType, members: Sequence[Any]) -> Value | None:
    """Flags are combined, which no text of TOML says."""
    choice = Choice(tuple(map(member_text, members)))
    return Member(Named.of(kind), choice) if members and not issubclass(kind, Flag) else None


def _array(of: _Annotation) -> Value | None:
    kind, items = _ARRAYS[of.kind], [of.read(one) for one in of.inner if one is not ...]
    if any(isinstance(one, Foreign) for one in items):
        return None
    if of.kind is tuple and of.inner and of.inner[-1] is not ...:
        return Row(tuple(items))
    item = items[0] if items else None
    return None if "set" in kind and not _hashed(item) else Array(kind, item)


def _hashed(item: Value | None) -> bool:
    """Whether the values of an array may be members of a set."""
    parts = item.items if isinstance(item, Row) else (item,)
    return all(one is None or isinstance(one, (Scalar, Choice, Member)) for one in parts)


def _table(of: _Annotation) -> Value | None:
    if not of.inner:
        return Table()
    key, value = map(of.read, of.inner)
    if isinstance(value, Foreign):
        return None
    if key == Scalar("int"):
        return Table(Limited(key, (Lax(strict=False),)), value)  # TOML writes it as text
    return Table(key, value) if isinstance(key, (Choice, Member)) or key in (Scalar("any"), Scalar("str")) else None


def _typed_dict(of: _Annotation) -> Value | None:
    found = {}
    for name, hint in _hints(of.whole).items():
        required = name in of.whole.__required_keys__
        if get_origin(hint) in (Required, NotRequired):  # which Python does not see in annotations that are strings
            required = get_origin(hint) is Required
        found[name] = (hint, _REQUIRED if required else _OMITTED)
    return _record(of, found)


def _named_tuple(of: _Annotation) -> Value | None:
    hints, defaults = _hints(of.whole), of.whole._field_defaults
    names: tuple[str, ...] = of.whole._fields
    return _record(of, {name: (hints.get(name, Any), defaults.get(name, _REQUIRED)) for name in names})


def _dataclass(of: _Annotation) -> Value | None:
    hints = _hints(of.whole)
    factories = {one.name: one.default_factory for one in dataclasses.fields(of.whole)}
    found = {}
    for name, parameter in inspect.signature(of.whole).parameters.items():
        default = _REQUIRED if parameter.default is parameter.empty else parameter.default
        factory = factories.get(name, dataclasses.MISSING)
        found[name] = (hints.get(name, Any), default if factory is dataclasses.MISSING else _made(factory))
    return _record(of, found)


def _model(of: _Annotation) -> Value | None:
    found, docs = {}, {}
    for name, one in of.whole.model_fields.items():
        default = _REQUIRED if one.is_required() else _made(partial(one.get_default, call_default_factory=True))
        kind = Annotated[one.annotation, *one.metadata] if one.metadata else one.annotation
        found[alias_of(name, one)] = (kind, default)
        docs[alias_of(name, one)] = one.description or ""
    return None if issubclass(of.whole, RootModel) else _record(of, found, docs)


def _record(of: _Annotation, found: Mapping[str, tuple[Any, Any]], docs: Mapping[str, str] | None = None) -> Value:
    """A class whose constructor takes arguments of these names, each with its annotation and its default."""
    kind = of.whole
    if kind in of.inside:
        return Foreign(type_name(kind))
    said = {name: text for name, text in (docs or {}).items() if text}
    described = {**documented(inspect.getdoc(kind) or ""), **said}
    arguments = []
    for name, (annotation, default) in found.items():
        value, required = value_of(annotation, (*of.inside, kind)), default is _REQUIRED
        if isinstance(value, Foreign) and required:
            return Foreign(f"{type_name(kind)} ({name} is of type {value.name})")
        doc = described.get(name) or text_of(annotation)
        arguments.append(argument(name, value, default, doc, required=required))
    return Record(Named.of(kind), tuple(arguments))


def _hints(kind: type) -> dict[str, Any]:
    """The annotations of a class. Those that only type checkers can resolve have no kind."""
    try:
        return get_type_hints(kind, include_extras=True)
    except Exception:  # whatever the names of the plugin's module do not mean
        written = [inspect.get_annotations(base) for base in reversed(kind.__mro__)]
        return {name: _Unread(str(text).strip("'")) for of in written for name, text in of.items()}


def _made(factory: Callable[[], Any]) -> Any:
    """A default that is shown; the factory is the plugin's, and may fail."""
    with suppress(Exception):
        return factory()
    return _OMITTED


@dataclass(frozen=True)
class _Unread:
    """An annotation that cannot be read, as it is written."""

    text: str


class _Missing:
    """Stands for no default: None is one."""


_REQUIRED = _Missing()
_OMITTED = _Missing()


def _extra(one: Any) -> Any:
    """Metadata of `Annotated` as plain data; what has no such form as it is."""
    name = type(one).__name__
    if isinstance(one, Strict):
        return Lax(one.strict)
    if name in _LIMITS and getattr(annotated_types, name) is type(one):
        return Limit(name, _pairs({field.name: getattr(one, field.name) for field in dataclasses.fields(one)}))
    if isinstance(one, FieldInfo):
        said = {key: value for key in _DESCRIBED if (value := getattr(one, key)) is not None}
        said |= {key: value for limit in one.metadata for key, value in _values(limit).items()}
        if repr(Field(**said)) == repr(one):
            return Described(_pairs(said))
    if isinstance(one, (AfterValidator, BeforeValidator)) and _takes_one(one.func):
        return Check(name, Named.of(one.func))
    return one


def _values(limit: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(limit):
        return {field.name: getattr(limit, field.name) for field in dataclasses.fields(limit)}
    return dict(vars(limit))


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in values.items())


def _takes_one(function: Any) -> bool:
    with suppress(TypeError, ValueError):
        return len(inspect.signature(function).parameters) == 1 and hasattr(function, "__qualname__")
    return False


def _is_known(of: _Annotation) -> bool:
    return of.whole is None or (isinstance(of.whole, abc.Hashable) and of.whole in SCALARS)


def _is_named_tuple(of: _Annotation) -> bool:
    return issubclass(of.alone, tuple) and hasattr(of.alone, "_field_defaults")


def _is_typed_dict(of: _Annotation) -> bool:
    return issubclass(of.alone, dict) and hasattr(of.alone, "__required_keys__")


_READERS: Sequence[tuple[Callable[[_Annotation], bool], Callable[[_Annotation], Value | None]]] = (
    (lambda of: of.kind in _WRAPPERS, _unwrapped),
    (lambda of: of.kind is Annotated, _limited),
    (lambda of: of.kind in _UNIONS, _union),
    (lambda of: of.kind is Literal, _literal),
    (lambda of: isinstance(of.whole, EnumType), _enumeration),
    (_is_known, lambda of: Scalar("none" if of.whole is None else SCALARS[of.whole])),
    (lambda of: of.kind in _PATHS, lambda _: Scalar("path")),
    (lambda of: of.kind in _ARRAYS, _array),
    (lambda of: of.kind in _TABLES, _table),
    (_is_typed_dict, _typed_dict),
    (_is_named_tuple, _named_tuple),
    (lambda of: dataclasses.is_dataclass(of.alone), _dataclass),
    (lambda of: issubclass(of.alone, BaseModel), _model),
)
"""What each kind is recognised by, and how it is read: the first that matches."""
