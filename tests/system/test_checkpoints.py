from __future__ import annotations

import io
import zipfile

import pytest

from toolkit.system.checkpoints import is_whole, seal


@pytest.fixture
def sealed() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("a", bytes(range(256)) * 20)
    seal(archive)
    return archive.getvalue()


def test_a_sealed_archive_is_whole_and_still_an_archive(sealed: bytes) -> None:
    file = io.BytesIO(sealed)
    assert is_whole(file) is True
    assert file.tell() == 0
    with zipfile.ZipFile(file) as archive:
        assert archive.read("a") == bytes(range(256)) * 20


def test_no_single_bit_can_change(sealed: bytes) -> None:
    for bit in range(0, 8 * len(sealed), 13):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        assert not is_whole(io.BytesIO(changed))


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 1000])
def test_a_file_without_a_checksum_is_neither(content: bytes) -> None:
    assert is_whole(io.BytesIO(content)) is None


def test_neither_more_nor_less_is_whole(sealed: bytes) -> None:
    assert is_whole(io.BytesIO(b"x" + sealed)) is False
    assert is_whole(io.BytesIO(sealed[1:])) is False
    assert is_whole(io.BytesIO(sealed + b"x")) is None
