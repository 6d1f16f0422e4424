"""Which files of a dataset may be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.api.errors import DataError
from toolkit.data.images import read_image
from toolkit.data.regular import require_regular
from toolkit.data.splits import contents, stat_key
from toolkit.data.tables import open_table


@pytest.mark.parametrize("read", [read_image, open_table, stat_key, lambda path: contents([path]), require_regular])
def test_a_pipe_is_refused_and_never_read(read: Callable[[Path], object], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="pipe: expected a regular file, got a FIFO") as caught:
        read(pipe)
    assert caught.value.next_step


def test_a_link_to_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "endless").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="got a device"):
        require_regular(tmp_path / "endless")


def test_files_links_to_files_and_what_does_not_exist_are_for_the_reader(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link", "absent"):
        require_regular(tmp_path / name)
