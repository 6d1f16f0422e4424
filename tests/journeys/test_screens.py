"""A screen of 80 columns: what a terminal shows breaks between words."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path


def shown(words: list[str], folder: Path, columns: int) -> str:
    """What a terminal of that many columns is sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}}
    with subprocess.Popen(
        [sys.executable, "-m", "toolkit", *words], cwd=folder, env=kept, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        sent = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            sent += part
        process.wait(timeout=60)
    os.close(ours)
    return sent.decode()


def test_an_error_breaks_between_words_and_its_next_step_stays_whole(tmp_path: Path) -> None:
    words = ["run", "cifar10_cnn_demo", "--epochs", "1", "--lr", "0.1", "--device", "cpu"]
    for columns in (80, 100):
        *problem, step = shown(words, tmp_path, columns).splitlines()
        assert len(problem) > 1
        assert max(map(len, problem)) <= columns
        assert "".join(f" {line.strip()}" for line in problem).count('"--device" is the recipe key train.device') == 1
        assert step.startswith("next:  python -m toolkit run cifar10_cnn_demo --set train.epochs=1 --set ")
        assert step.endswith("--set train.device=cpu")


def test_the_first_screen_ends_with_commands_to_begin_with(tmp_path: Path) -> None:
    sent = shown([], tmp_path, 80)
    last = sent.splitlines()[-24:]
    assert max(map(len, sent.splitlines())) <= 80
    assert any("python -m toolkit demo" in line for line in last)
    assert any("python -m toolkit init images photos" in line for line in last)
