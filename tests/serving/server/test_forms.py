"""Forms: their files and fields, and what is wrong with one."""

from __future__ import annotations

import pytest

from toolkit.serving.server.forms import LONGEST_FIELD, MOST_FIELDS, read_form
from toolkit.serving.server.listing import MOST_FILES
from toolkit.serving.server.refusals import BAD, Refused

KIND = "multipart/form-data; boundary=b"
NO_BOUNDARY = "Content-Type: expected multipart/form-data with a boundary"
END = b"--b--\r\n"


def part(said: str, content: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + said.encode() + b"\r\n\r\n" + content + b"\r\n"


def file(name: str, content: bytes) -> bytes:
    return part(f'name="file"; filename="{name}"', content)


def test_files_keep_their_order_and_of_fields_the_last_one_counts() -> None:
    body = file("b.png", b"1") + part('name="top"', b"1") + file("a.png", b"") + part('name="top"', b"2") + END
    form = read_form(body, KIND)
    assert form.files == [("b.png", b"1"), ("a.png", b"")]
    assert form.fields == {"top": "2"}


def test_contents_may_have_anything_in_them_but_the_boundary() -> None:
    contents = [b"\r\n--", b"\r\n--c\r\n", b"--b", b"\r\n-", bytes(range(256)) * 9, b"\r\n--B--\r\n", b"\r", b"\n--b"]
    form = read_form(b"".join(file("x", content) for content in contents) + END, KIND)
    assert [content for _, content in form.files] == contents


def test_names_may_be_of_any_script_or_missing_and_other_files_are_passed_over() -> None:
    body = file("bäume.png", b"1") + file("", b"2") + part('name="other"; filename="c"', b"3") + END
    assert read_form(body, KIND).files == [("bäume.png", b"1"), ("file", b"2")]
    assert read_form(file("bäume", b"").replace("ä".encode(), b"\xe4") + END, KIND).files == [("bäume", b"")]


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"x", KIND, "body: invalid multipart data"),
        (file("a", b"1"), "multipart/form-data", "Content-Type: expected multipart/form-data with a boundary"),
        (
            file("a", b"1"),
            "multipart/form-data; boundary=",
            "Content-Type: expected multipart/form-data with a boundary",
        ),
        (file("a", b"1")[:-1], KIND, "body: invalid multipart data: it ends within a part"),
        (part("filename=a", b"1") + END, KIND, "body: a part without a name"),
        (file("a", b"1") * (MOST_FILES + 1) + END, KIND, f"body: more than {MOST_FILES} files or {MOST_FIELDS} fields"),
        (part("name=a", b"1") * (MOST_FIELDS + 1) + END, KIND, f"more than {MOST_FILES} files or {MOST_FIELDS} fields"),
        (part("name=a", bytes(LONGEST_FIELD + 1)) + END, KIND, "body: a field of more than 4,096 bytes"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, kind: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        read_form(body, kind)
    assert refused.value.status == BAD
    assert says in refused.value.message
