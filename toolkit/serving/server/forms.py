"""The files and fields of a form, multipart/form-data, whose body has come as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from toolkit.serving.server.listing import MOST_FILES
from toolkit.serving.server.refusals import BAD, Refused

FILE = "file"
"""The name of a part that is a file to answer; other files are passed over."""
MOST_FIELDS = 16
LONGEST_FIELD = 1 << 12
"""Bytes."""
_KIND = b"content-disposition"


@dataclass
class Form:
    """What a form holds."""

    files: list[tuple[str, bytes]] = field(default_factory=list)
    """Names with contents, in their order."""
    fields: dict[str, str] = field(default_factory=dict)
    """Of several of one name the last."""


def read_form(body: bytes, content_type: str) -> Form:
    """The form that this body is. Raises Refused where it is malformed, or has too much of something."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refused(BAD, "Content-Type: expected multipart/form-data with a boundary")
    reader = _Reader()
    try:
        MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.add_name,
                "on_header_value": reader.add_value,
                "on_header_end": reader.end_header,
                "on_headers_finished": reader.end_head,
                "on_part_data": reader.add,
                "on_part_end": reader.end,
            },
        ).write(body)
    except FormParserError as error:
        raise Refused(BAD, "body: invalid multipart data") from error
    if reader.is_open:
        raise Refused(BAD, "body: invalid multipart data: it ends within a part")
    return reader.form


class _Reader:
    """Hears what the parser finds."""

    def __init__(self) -> None:
        self.form = Form()
        self.is_open = False
        self._files = self._fields = self._size = 0

    def begin(self) -> None:
        self.is_open, self._size = True, 0
        self._name = self._value = self._disposition = b""
        self._pieces: list[memoryview] = []

    def add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._name.lower() == _KIND:
            self._disposition = self._value
        self._name = self._value = b""

    def end_head(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise Refused(BAD, "body: a part without a name")
        self._field, file = _text(options[b"name"]), options.get(b"filename")
        self._file = None if file is None else _text(file)
        if file is None:
            self._fields += 1
        else:
            self._files += 1
        if self._files > MOST_FILES or self._fields > MOST_FIELDS:
            raise Refused(BAD, f"body: more than {MOST_FILES} files or {MOST_FIELDS} fields")

    def add(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._file is None and self._size > LONGEST_FIELD:
            raise Refused(BAD, f"body: a field of more than {LONGEST_FIELD:,} bytes")
        self._pieces.append(memoryview(data)[start:end])  # a file is copied once, when it has ended

    def end(self) -> None:
        self.is_open = False
        content = b"".join(self._pieces)
        if self._file is None:
            self.form.fields[self._field] = _text(content)
        elif self._field == FILE:
            self.form.files.append((self._file or FILE, content))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
