"""A look into an ONNX file that is not trusted, before onnxruntime opens it.

onnxruntime does what a model says: it opens the files that it names, takes the memory that it claims, and computes
what is constant while loading. So a model may say only what an image classifier needs: plain arithmetic on its input
and on numbers that the file really holds. What depends on the input, and so cannot be foreseen, is left to the
session's memory limit. Messages and their numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from toolkit.api.errors import BundleError
from toolkit.serving.bundle.divisors import (
    ALIKE,
    FLOAT,
    INT64,
    UNKNOWN,
    Kind,
    constant_kind,
    kind_out,
    may_be_minus_one,
)
from toolkit.serving.bundle.manifest import INPUT, MAPS, Manifest
from toolkit.serving.bundle.operators import elements_out, growth, objection
from toolkit.serving.bundle.regular import check_regular, irregularity
from toolkit.serving.bundle.shapes import Shape, count, shape_out, varies
from toolkit.serving.bundle.trust import DECLINED, PLAUSIBLE, SCORES
from toolkit.serving.bundle.wire import AGAIN, Fields, Reader, Span

LEAST_LIMIT = 4 << 30
FILE_SHARE = 16
"""A model may claim `LEAST_LIMIT` bytes of memory, or this many times its file where that is more."""
LEAST_FOLDED = 16 << 20
"""Bytes of one constant that loading may compute from others, unless the model holds larger ones."""
STRUCTURE = 64 << 20
"""Bytes that a file may have besides its weights: a reader turns each into many."""

_FLOAT, _UINT8, _INT32, _INT64, _BOOL = 1, 2, 6, 7, 9
_BITS = {
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13), 64),
}
"""Bits of an element by ONNX's number of its type; of strings and complex numbers a model here has no use."""
_EXTERNAL = frozenset({"location", "offset", "length", "checksum"})
"""Keys by which a tensor says where its elements lie."""
_WIDEST = 8
"""Bytes of the widest element."""
_DEEPEST = 8
_HIGHEST_RANK = 32
_SMALL = 64
"""Elements up to which a constant may be somebody's shape, and its values are read."""
_UNPACK = {_FLOAT: "f", _INT32: "i", _INT64: "q"}


class Port(NamedTuple):
    """An input or output of a graph; a dimension is a number, or a name (maybe empty) where it may vary."""

    name: str
    element: int
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        kind = {_FLOAT: "float32", _UINT8: "uint8", _BOOL: "bool"}.get(self.element, f"type {self.element}")
        return f'"{self.name}" {kind} [{", ".join(str(side) or "?" for side in self.shape)}]'


class Findings(NamedTuple):
    """What an acceptable model looks like from outside."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    folded: int
    """Bytes of one constant that loading may compute from others."""


def inspect_model(path: Path, *, allowed: Collection[str] = ()) -> Findings:
    """Look into the ONNX file at `path`; `allowed` names the files next to it that may hold its weights.

    Raises BundleError, naming the file and the node, for anything that could reach beyond the bundle, take memory out
    of proportion, or not end."""
    try:
        check_regular(path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:  # noqa: SIM117
            with memoryview(mapped) as data:
                return _Inspection(path, Reader(data, str(path)), frozenset(allowed)).findings()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}", next_step=AGAIN) from error
    except ValueError as error:
        raise BundleError(f"{path}: not an ONNX model: it is empty", next_step=AGAIN) from error


def check_interface(findings: Findings, manifest: Manifest, path: Path) -> None:
    """Raise BundleError unless the model takes and gives what the manifest says."""
    takes = Port(INPUT, _UINT8, ("N", *manifest.input.clip_shape, "H", "W", 3))
    if len(findings.inputs) != 1 or not _fits(findings.inputs[0], takes):
        raise _differs(path, "takes", findings.inputs, takes)
    count = len(manifest.classes)
    kinds: dict[str, tuple[int, tuple[int | str, ...]]] = {
        manifest.output: (_FLOAT, ("N", count)),
        **dict.fromkeys(SCORES, (_FLOAT, ("N",))),
        DECLINED: (_BOOL, ("N",)),
        PLAUSIBLE: (_BOOL, ("N", count)),
        **({} if manifest.maps is None else {MAPS: (_FLOAT, ("N", count, *manifest.maps.extent))}),
    }
    gives = [Port(name, *kinds[name]) for name in manifest.graph_outputs]
    if len(findings.outputs) != len(gives) or not all(map(_fits, findings.outputs, gives)):
        raise _differs(path, "gives", findings.outputs, *gives)


def _fits(port: Port, wanted: Port) -> bool:
    """Whether all is as wanted: where a dimension may vary it must not be a number, and the last number must be the
    one."""
    if (port.name, port.element, len(port.shape)) != (wanted.name, wanted.element, len(wanted.shape)):
        return False
    if isinstance(wanted.shape[-1], int) and port.shape[-1] != wanted.shape[-1]:
        return False
    return all(isinstance(has, str) or has == want for has, want in zip(port.shape, wanted.shape, strict=True))


def _differs(path: Path, does: str, found: Sequence[Port], *wanted: Port) -> BundleError:
    return BundleError(
        f"{path}: {does} {', '.join(map(str, found)) or 'nothing'}; by bundle.json it {does} "
        f"{', '.join(map(str, wanted))}",
        next_step="export the run again",
    )


class _Constants:
    """What is constant in one graph: how many elements it has at most, and the values of what is small.

    A subgraph begins with what stands around it."""

    def __init__(self, around: _Constants | None = None) -> None:
        self.elements: dict[str, float] = dict(around.elements) if around else {}
        self.values: dict[str, list[float]] = dict(around.values) if around else {}
        self.made: dict[str, Kind] = dict(around.made) if around else {}
        """All names that stand for something by now, constant or not, and what is known of it."""
        self.shapes: dict[str, Shape] = dict(around.shapes) if around else {}
        """Of what has a known one, constant or not."""
        self.given: list[float | None] = []
        """Elements of each output of the graph, None where it is not constant."""

    def add(self, name: str, elements: float, kind: Kind, values: list[float] | None = None) -> None:
        self.elements[name] = elements
        self.made[name] = kind
        if values:
            self.values[name] = values


class _Tensor(NamedTuple):
    name: str
    elements: int
    element: int | None
    values: list[float] | None
    shape: Shape

    @property
    def kind(self) -> Kind:
        return UNKNOWN if self.element is None else constant_kind(self.element, self.values)


class _Inspection:
    """One look into one file."""

    def __init__(self, path: Path, reader: Reader, allowed: frozenset[str]) -> None:
        self.path = path
        self.reader = reader
        self.allowed = allowed
        self.weights = 0
        """Bytes of the file that are weights."""
        self.largest = 0
        """Bytes of the largest constant."""
        self.computed: list[float] = []
        """Elements, at most, of each constant that loading may compute from others."""

    def findings(self) -> Findings:
        model = self.reader.message(self.reader.whole())
        if 20 in model:
            raise self.refused("it holds a training graph")
        if 25 in model:
            raise self.refused("it holds functions of its own, which may unfold to any size")
        graph = self.nested(model, 7, "model")
        if graph is None or 1 not in graph:
            raise self.reader.damaged("it has no graph")
        constants = _Constants()
        self.inspect_graph(graph, constants, 0)
        self.check_structure()
        inputs = tuple(port for port in self.ports(graph, 11) if port.name not in constants.elements)
        return Findings(inputs, tuple(self.ports(graph, 12)), self.check_folding())

    @property
    def limit(self) -> int:
        """Bytes of memory that the model may claim."""
        return max(LEAST_LIMIT, FILE_SHARE * len(self.reader.data))

    def check_structure(self) -> None:
        besides = len(self.reader.data) - self.weights
        if besides > STRUCTURE:
            raise self.refused(f"it holds {besides >> 20} MiB besides weights, more than {STRUCTURE >> 20}")

    def check_folding(self) -> int:
        """Bytes that one computed constant may have, if all together stay within the limit."""
        folded = max(LEAST_FOLDED, 4 * self.largest)
        total = math.fsum(min(elements * _WIDEST, folded) for elements in self.computed)
        if total > self.limit:
            raise self.refused(
                f"loading may compute {total / (1 << 30):.0f} GiB of constants, more than {self.limit >> 30} GiB"
            )
        return folded

    def inspect_graph(self, graph: Fields, constants: _Constants, depth: int) -> None:
        if depth > _DEEPEST:
            raise self.refused(f"graphs within graphs, more than {_DEEPEST} deep")
        if 15 in graph:
            raise self.refused("a sparse initializer, which may unfold to any size")
        for span in _spans(graph, 5):
            tensor = self.tensor(span, "initializer")
            constants.add(tensor.name, tensor.elements, tensor.kind, tensor.values)
            constants.shapes[tensor.name] = tensor.shape
        for port in self.ports(graph, 11):
            constants.made.setdefault(port.name, Kind(port.element))
            constants.shapes.setdefault(port.name, tuple(side or None for side in port.shape))
        for span in _spans(graph, 1):
            self.inspect_node(self.reader.message(span), constants, depth)
        constants.given = [constants.elements.get(port.name) for port in self.ports(graph, 12)]

    def inspect_node(self, node: Fields, constants: _Constants, depth: int) -> None:
        operator, domain = self.text(node, 4), self.text(node, 7)
        outputs = [self.reader.text(span) for span in _spans(node, 2)]
        where = f'node "{self.text(node, 3) or ", ".join(outputs)}" ({operator})'
        problem = objection(operator, domain)
        if problem:
            raise self.refused(f"{where} {problem}")
        attributes = [self.reader.message(span) for span in _spans(node, 5)]
        if len({self.text(each, 1) for each in attributes}) < len(attributes):
            raise self.refused(f"{where} has two attributes of one name")
        written, branches = self.inspect_attributes(attributes, where, constants, depth)
        if operator == "Constant":
            for name in outputs:
                constants.add(name, written.elements, written.kind, written.values)
                constants.shapes[name] = written.shape
            return
        inputs = [self.reader.text(span) for span in _spans(node, 1)]
        early = next((name for name in inputs if name and name not in constants.made), None)
        if early is not None:
            raise self.refused(f'{where} uses "{early}" before it is made')
        self.check_division(operator, inputs, constants, where)
        numbers = self.integers(attributes)
        kind = kind_out(operator, [constants.made.get(name, UNKNOWN) for name in inputs], numbers)
        constants.made.update(dict.fromkeys(outputs, kind if operator in ALIKE else UNKNOWN))
        constants.made.update(dict.fromkeys(outputs[:1], kind))
        values = [constants.values.get(name) for name in inputs]
        shape = shape_out(operator, [constants.shapes.get(name) for name in inputs], values, numbers)
        constants.shapes.update(dict.fromkeys(outputs[:1], shape) if shape is not None else {})
        grown = growth(operator, values, numbers)
        if grown * _WIDEST > self.limit:
            raise self.refused(f"{where} makes {grown:.3g} elements of one, more than fit into {self.limit >> 30} GiB")
        if branches:
            self.note_choice(inputs, outputs, constants, branches)
        else:
            self.note_constants(operator, inputs, outputs, constants, grown)

    def check_division(self, operator: str, inputs: Sequence[str], constants: _Constants, where: str) -> None:
        if operator not in ("Div", "Mod") or len(inputs) != 2:
            return
        kinds = [constants.made.get(name, UNKNOWN) for name in inputs]
        if may_be_minus_one(kinds, constants.values.get(inputs[1])):
            raise self.refused(f"{where} may divide an integer by -1, which can end the process")

    def note_constants(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], constants: _Constants, grown: float
    ) -> None:
        """Follow what loading may compute: what is made of constants alone, and shapes."""
        if operator in ("Shape", "Size"):
            if varies(constants.shapes.get(inputs[0])):
                return
        elif not all(name in constants.elements for name in inputs if name):
            return
        counts = [constants.elements.get(name, 1.0) for name in inputs] or [math.inf]
        known = count(constants.shapes.get(outputs[0]))
        values = [constants.values.get(name) for name in inputs]
        elements = elements_out(operator, counts, values, grown) if known is None else float(known)
        for name in outputs:
            constants.add(name, elements, constants.made[name])
            self.computed.append(elements)

    def note_choice(
        self, inputs: Sequence[str], outputs: Sequence[str], constants: _Constants, branches: Sequence[_Constants]
    ) -> None:
        """What comes out of branches is constant where all that they read is, of their own and from around them."""
        if all(name in constants.elements for name in inputs):
            for name, choices in zip(outputs, zip(*(branch.given for branch in branches), strict=True), strict=True):
                if all(choice is not None for choice in choices):
                    constants.add(name, max(choice or 0.0 for choice in choices), constants.made[name])

    def integers(self, attributes: Sequence[Fields]) -> dict[str, list[int]]:
        """The attributes that are integers, by name."""
        return {
            self.text(each, 1): [*self.reader.integers(each.get(8, [])), *([_number(each, 3)] if 3 in each else [])]
            for each in attributes
        }

    def inspect_attributes(
        self, attributes: Sequence[Fields], where: str, constants: _Constants, depth: int
    ) -> tuple[_Tensor, list[_Constants]]:
        """Inspect what attributes hold; returns all numbers among it as one tensor, with values where there is one
        list of them, and what is constant in each graph."""
        numbers = self.integers(attributes).values()
        found = [_Tensor("", len(each), INT64, [*map(float, each)], (len(each),)) for each in numbers if each]
        branches: list[_Constants] = []
        for attribute in attributes:
            if 22 in attribute or 23 in attribute:
                raise self.refused(f"{where} holds a sparse tensor, which may unfold to any size")
            found += [self.tensor(span, where) for span in (*self.single(attribute, 5, where), *_spans(attribute, 10))]
            if 7 in attribute:
                found.append(_Tensor("", _size(_spans(attribute, 7)), FLOAT, None, (None,)))
            for span in (*self.single(attribute, 6, where), *_spans(attribute, 11)):
                branches.append(_Constants(constants))
                self.inspect_graph(self.reader.message(span), branches[-1], depth + 1)
        values = [tensor.values for tensor in found if tensor.values]
        elements = {tensor.element for tensor in found}
        written = _Tensor(
            "",
            max(1, sum(each.elements for each in found)),
            elements.pop() if len(elements) == 1 else None,
            values[0] if len(values) == 1 else None,
            found[0].shape if len(found) == 1 else (None,),
        )
        return written, branches

    def tensor(self, span: Span, where: str) -> _Tensor:
        fields = self.reader.message(span)
        name, element = self.text(fields, 8), _number(fields, 2)
        where = f'{where} "{name}"' if name else where
        shape = self.reader.integers(fields.get(1, []))
        if element not in _BITS or 3 in fields:
            raise self.refused(f"{where} is of element type {element}, which no model here needs")
        if len(shape) > _HIGHEST_RANK or any(side < 0 for side in shape):
            raise self.refused(f"{where} has the impossible shape {shape[:_HIGHEST_RANK]}")
        elements = math.prod(shape)
        claimed = -(-elements * _BITS[element] // 8)
        external = 13 in fields or _number(fields, 14)
        held = self.external_bytes(fields, where, claimed) if external else self.inner_bytes(fields, element)
        if claimed > held:
            raise self.refused(f"{where} claims {claimed} bytes by its shape {shape}, and holds {held}")
        self.largest = max(self.largest, claimed)
        readable = elements <= _SMALL and element in _UNPACK and not external
        return _Tensor(name, elements, element, self.values(fields, element) if readable else None, tuple(shape))

    def inner_bytes(self, fields: Fields, element: int) -> int:
        """Bytes of the tensor's elements, as many at most as the file's own bytes can stand for."""
        if 9 in fields:
            held = _size(_spans(fields, 9)[-1:])
            self.weights += held
            return held
        lists = {number: _size(_spans(fields, number)) for number in (4, 5, 7, 10, 11)}
        self.weights += sum(lists.values())
        per_integer = max(_BITS[element], 8) // 8
        return lists[4] + lists[10] + (lists[5] + lists[7] + lists[11]) * per_integer

    def values(self, fields: Fields, element: int) -> list[float]:
        """The elements of a small tensor."""
        if 9 in fields or element == _FLOAT:
            spans = _spans(fields, 9)[-1:] or _spans(fields, 4)
            data = b"".join(self.reader.data[span.start : span.end] for span in spans)
            size = struct.calcsize(_UNPACK[element])
            return list(struct.unpack(f"<{len(data) // size}{_UNPACK[element]}", data[: len(data) // size * size]))
        return list(self.reader.integers(fields.get(5 if element == _INT32 else 7, [])))

    def external_bytes(self, fields: Fields, where: str, claimed: int) -> int:
        """Bytes that the tensor's elements have in another file of the bundle."""
        entries = [self.reader.message(span) for span in _spans(fields, 13)]
        said = {self.text(entry, 1): self.text(entry, 2) for entry in entries}
        if odd := sorted(said.keys() - _EXTERNAL):
            raise self.refused(f'{where} lies elsewhere with the unknown key "{odd[0]}"')
        if len(said) < len(entries):
            raise self.refused(f"{where} lies elsewhere with two values for one key")
        location = said.get("location", "")
        if location not in self.allowed or Path(location).name != location:
            raise self.refused(f'{where} lies in "{location}", which is not among the files of the bundle')
        size = self.external_size(location, where)
        offset, length = said.get("offset", "0"), said.get("length", str(claimed))
        if not (offset.isdecimal() and length.isdecimal() and len(offset + length) < 40):
            raise self.refused(f'{where} lies at offset "{offset}", length "{length}"')
        return max(0, min(int(length), size - int(offset)))

    def external_size(self, location: str, where: str) -> int:
        place = self.path.parent / location
        try:
            problem = "expected a file, got a link" if place.is_symlink() else irregularity(place)
            size = place.stat().st_size
        except OSError as error:
            raise self.refused(f'{where} lies in "{location}": {error.strerror}') from error
        if problem:
            raise self.refused(f'{where} lies in "{location}": {problem}')
        return size

    def ports(self, graph: Fields, number: int) -> Iterator[Port]:
        for span in _spans(graph, number):
            info = self.reader.message(span)
            name = self.text(info, 1)
            kind = self.nested(info, 2, name) or {}
            tensor = self.nested(kind, 1, name) or {}
            shape = self.nested(tensor, 2, name) or {}
            sides = [self.reader.message(side) for side in _spans(shape, 1)]
            yield Port(
                name, _number(tensor, 1), tuple(_number(side, 1) if 1 in side else self.text(side, 2) for side in sides)
            )

    def nested(self, fields: Fields, number: int, where: str) -> Fields | None:
        """The message in a field that holds at most one."""
        return next((self.reader.message(span) for span in self.single(fields, number, where)), None)

    def single(self, fields: Fields, number: int, where: str) -> list[Span]:
        """The one message in a field, or none. Readers merge several into one, which hides what it says."""
        spans = _spans(fields, number)
        if len(spans) > 1:
            raise self.reader.damaged(f"{where}: field {number} stands there twice")
        return spans

    def text(self, fields: Mapping[int, Sequence[int | Span]], number: int) -> str:
        """The string in a field; of several the last counts."""
        spans = _spans(fields, number)
        return self.reader.text(spans[-1]) if spans else ""

    def refused(self, problem: str) -> BundleError:
        return BundleError(
            f"{self.path}: refused: {problem}",
            next_step="use the bundle only if you trust where it comes from, and export the run again",
        )


def _spans(fields: Mapping[int, Sequence[int | Span]], number: int) -> list[Span]:
    return [value for value in fields.get(number, ()) if isinstance(value, Span)]


def _number(fields: Mapping[int, Sequence[int | Span]], number: int) -> int:
    """The integer in a field, 0 where it is missing; of several the last counts."""
    return next((value for value in reversed(fields.get(number, ())) if isinstance(value, int)), 0)


def _size(spans: Sequence[Span]) -> int:
    """Bytes at all `spans`."""
    return sum(span.size for span in spans)
