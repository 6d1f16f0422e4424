from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest

from toolkit.api.errors import EXIT_USAGE, RunFailed, UsageError
from toolkit.tune.storage import DRIVERS, Journal, dashboard_command, open_storage, opened_storage, with_driver

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_in(folder: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(folder, None), study_name="tiny", load_if_exists=True)


def test_a_journal_is_shared_by_all_who_open_it(tmp_path: Path) -> None:
    one, other = study_in(tmp_path), study_in(tmp_path)
    one.tell(one.ask(), 0.5)
    assert (tmp_path / "journal.log").is_file()
    assert [trial.value for trial in other.trials] == [0.5]


def test_a_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_in(Path("runs") / "tiny")
    study.tell(study.ask(), 0.5)
    assert len(study_in(Path("runs") / "tiny").trials) == 1


@pytest.mark.parametrize("torn", ['{"op_code":4,"worker_id"', "{", "\x00\x00\x00"])
def test_what_a_killed_writer_left_of_a_line_is_removed(tmp_path: Path, torn: str) -> None:
    study = study_in(tmp_path)
    study.tell(study.ask(), 0.5)
    with (tmp_path / "journal.log").open("a") as journal:
        journal.write(torn)
    assert [trial.value for trial in study_in(tmp_path).trials] == [0.5]
    study.tell(study.ask(), 0.25)
    assert [trial.value for trial in study_in(tmp_path).trials] == [0.5, 0.25]


def test_a_journal_of_only_a_cut_line_is_started_again(tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_text('{"op_code":')
    assert study_in(tmp_path).trials == []


def test_a_damaged_journal_is_reported(tmp_path: Path) -> None:
    study_in(tmp_path)
    with (tmp_path / "journal.log").open("a") as journal:
        journal.write("no JSON\n{}\n")
    with pytest.raises(RunFailed, match=r"journal.log: is damaged") as caught:
        open_storage(tmp_path, None)
    assert caught.value.next_step


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(RunFailed, match=r"runs/tiny: cannot be written: Not a directory") as caught:
        open_storage(tmp_path / "runs" / "tiny", None)
    assert "--runs DIR" in str(caught.value.next_step)


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    study = study_in(tmp_path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFailed, match=f"{tmp_path}: cannot be written: No space left on device"):
        study.ask()


HOLDING = """
import fcntl, sys, time
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_of_a_killed_writer_holds_nobody_up(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.log")
    words = [sys.executable, "-c", HOLDING, str(tmp_path / "journal.lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        killer = threading.Timer(0.2, holder.kill)
        killer.start()
        journal.append_logs([{"op_code": 0}])
        assert holder.wait() == -signal.SIGKILL
    assert list(journal.read_logs(0)) == [{"op_code": 0}]


def test_nobody_else_writes_a_journal_while_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.log")
    tried = []

    def during(_: int) -> None:
        tried.append(1)
        with (tmp_path / "journal.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr("os.fsync", during)
    journal.append_logs([{"op_code": 0}])
    assert tried == [1]


def test_a_journal_is_written_where_nothing_can_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", refuse)
    study = study_in(tmp_path)
    study.tell(study.ask(), 0.5)
    assert [trial.value for trial in study_in(tmp_path).trials] == [0.5]


APPENDING = """
import sys
from pathlib import Path
from tests.tune.test_storage import study_in
study = study_in(Path(sys.argv[1]))
for number in range(40):
    study.tell(study.ask(), float(number))
"""


def test_a_journal_that_cannot_be_mended_stays_locked_for_nobody(tmp_path: Path) -> None:
    """Not for this process either, which would wait for itself."""
    journal = Journal(tmp_path / "journal.log")
    (tmp_path / "journal.log").unlink()
    with pytest.raises(RunFailed, match="cannot be written: No such file"):
        journal.append_logs([{"op_code": 0}])
    with (tmp_path / "journal.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (tmp_path / "journal.log").touch()
    journal.append_logs([{"op_code": 0}])
    assert list(journal.read_logs(0)) == [{"op_code": 0}]


@pytest.mark.slow  # processes of their own load torch
def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    study_in(tmp_path)
    writers = [subprocess.Popen([sys.executable, "-c", APPENDING, str(tmp_path)]) for _ in range(2)]
    assert [writer.wait(300) for writer in writers] == [0, 0]
    trials = study_in(tmp_path).trials
    assert [trial.number for trial in trials] == list(range(80))
    assert sorted(trial.value for trial in trials if trial.value is not None) == sorted([*range(40)] * 2)


def test_a_study_may_live_in_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with opened_storage(tmp_path, url) as storage:
        optuna.create_study(storage=storage, study_name="tiny").add_trial(optuna.trial.create_trial(value=0.25))
    with opened_storage(tmp_path, url) as storage:
        assert [trial.value for trial in optuna.load_study(study_name="tiny", storage=storage).trials] == [0.25]


def test_a_database_that_is_not_there_is_reported(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/no/such/study.db"
    with pytest.raises(UsageError, match=r"--storage sqlite.*cannot be used") as caught:
        open_storage(tmp_path, url)
    assert caught.value.next_step


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_the_driver_that_is_installed_is_chosen(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "psycopg2" or None)
    assert with_driver(f"{scheme}://me@host/studies") == "postgresql+psycopg2://me@host/studies"


@pytest.mark.parametrize("url", ["sqlite:///a.db", "postgresql+pg8000://me@host/studies", "studies"])
def test_what_names_its_driver_or_needs_none_stays(url: str) -> None:
    assert with_driver(url) == url


@pytest.mark.parametrize("kind", DRIVERS)
def test_a_missing_driver_is_reported_without_the_password(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        with_driver(f"{kind}://me:secret@host/studies")
    assert caught.value.message == f"--storage {kind}://me:…@host/studies: no driver for {kind} is installed"
    assert (caught.value.exit_code, caught.value.next_step is not None) == (EXIT_USAGE, True)


@pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="the extra postgresql is not installed")
def test_a_server_that_does_not_answer_is_reported_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--storage postgresql://me:…@127.0.0.1:9/studies: cannot be used") as caught:
        open_storage(tmp_path, "postgresql://me:secret@127.0.0.1:9/studies")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, "'a b/journal.log'"),
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("postgresql://me@host/tune", "postgresql://me@host/tune"),
        ("postgresql://me:secret@host/tune", "URL"),
    ],
)
def test_the_command_for_the_dashboard_names_the_storage_but_no_password(
    monkeypatch: pytest.MonkeyPatch, url: str | None, shown: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert dashboard_command(Path("a b"), url) == f"optuna-dashboard {shown}"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert dashboard_command(Path("a b"), url) == f"pip install optuna-dashboard && optuna-dashboard {shown}"
