"""What users do with a run: go on, begin another one from it, look at it, and give it away."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.journeys.user import User, latest_run

SHORT, WITHOUT_WEIGHTS = (
    text.replace("epochs = 2\nbatch = 8", "epochs = 1\nbatch = 12") for text in (tiny.RECIPE, tiny.WITHOUT_WEIGHTS)
)
CONSTANT = SHORT.replace("one_cycle", "constant")
BACKBONE = SHORT.replace(tiny.CNN, '"shufflenet_v2_x0_5"')
RUN = "python -m toolkit run tiny.toml"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("private disk") / "images")


def test_a_run_that_is_not_there_leads_to_one_that_is(user: User, images: Path) -> None:
    user.types("python -m toolkit report runs/latest", code=2)
    assert "next:  train a model first: python -m toolkit demo" in user.seen
    tiny.write_recipe(Path(), images, text=CONSTANT)
    user.types(RUN)
    for command in ("report runs", "evaluate runs/tiny", "export runs/latest/best.pt", "run --extend 2 --resume gone"):
        user.types(f"python -m toolkit {command}", code=2)
        user.follows(command.partition(" ")[0])


def test_more_epochs_of_a_run_that_can_be_continued(user: User, images: Path) -> None:
    tiny.write_recipe(Path(), images, text=CONSTANT)
    user.types(RUN)
    user.follows("--extend 2")
    assert "epoch 2/2" in user.seen
    assert "extended" in (latest_run() / "report.html").read_text("utf-8")


@pytest.mark.parametrize("asked", ["--extend 3", "--set train.epochs=3"])
def test_more_epochs_of_a_run_without_weights_to_start_from(user: User, images: Path, asked: str) -> None:
    tiny.write_recipe(Path(), images, text=WITHOUT_WEIGHTS)
    user.types(RUN)
    user.types(f"python -m toolkit run --resume runs/latest {asked}", code=2)
    user.follows("train.epochs=3")
    assert "epoch 3/3" in user.seen


def backbone(run: Path) -> dict[str, torch.Tensor]:
    """The trained tensors of a run's backbone: what batch norm counts moves whatever the rate."""
    weights: dict[str, torch.Tensor] = torch.load(run / "best.pt", weights_only=True)["network"]
    trained = (".weight", ".bias")
    return {key: value for key, value in weights.items() if ".backbone." in key and key.endswith(trained)}


def test_fine_tuning_from_a_run(user: User, images: Path, tmp_path: Path) -> None:
    tiny.write_recipe(Path(), images, text=BACKBONE)
    user.types(RUN)
    user.types("python -m toolkit run --resume runs/latest --extend 2", code=2)
    user.follows("model.weights=runs/tiny/")
    assert "starting from the weights of" in user.seen
    tiny.write_recipe(Path(), tiny.write_images(tmp_path / "others", ("day", "night")), text=BACKBONE, name="others")
    first = backbone(latest_run())
    still = "--set train.optimizer.lr=1e-12 --set train.optimizer.momentum=0"
    user.types(f"python -m toolkit run others.toml --set model.weights=runs/latest {still}")
    assert "the head starts at random weights" in " ".join(user.seen.split())
    second = backbone(latest_run())
    assert len(first) == 168  # 56 convolutions, and a scale and an offset of 56 batch norms
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], second[name], rtol=0, atol=1e-11) for name in first)


def test_own_weights_with_the_prefix_of_another_tool(user: User, images: Path) -> None:
    from torchvision.models import shufflenet_v2_x0_5

    weights = {f"module.{key}": value for key, value in shufflenet_v2_x0_5(num_classes=5).state_dict().items()}
    torch.save({"state_dict": weights}, "mine.pth")
    tiny.write_recipe(Path(), images, text=BACKBONE)
    user.types(f"{RUN} --set model.weights=mine.pth")
    assert "epoch 1/1" in user.seen


def test_a_stopped_run_goes_on_with_the_command_that_it_prints(user: User, images: Path) -> None:
    tiny.write_recipe(Path(), images, text=SHORT)
    words = [sys.executable, "-m", "toolkit", *shlex.split(RUN)[3:], "--set", "train.epochs=40"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        next(line for line in process.stdout if re.match(r"epoch +1/40 ", line))
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        user.seen = process.stderr.read()
        watchdog.cancel()
    assert process.returncode == 130
    assert "Traceback" not in user.seen
    user.follows("--resume")
    assert "epoch  1/40 " not in user.seen
    assert "epoch 40/40 " in user.seen


def test_the_header_names_what_was_changed_and_nothing_names_the_machine(
    user: User, images: Path, tmp_path: Path
) -> None:
    tiny.write_recipe(Path(), images, text=SHORT)
    user.types(f"{RUN} --set train.optimizer.lr=0.0125")
    user.follows("export")
    run = latest_run()
    page = (run / "report.html").read_text("utf-8")
    header = re.sub(r"<[^>]+>", " ", page[: page.index("Scores")])
    assert "train.optimizer.lr" in header
    assert "0.0125" in header
    assert "cnn" in header
    assert "cifar10" in header
    bundle = Path("exports/tiny")
    for shared in (run / "report.html", bundle / "bundle.json", bundle / "README.md"):
        text = shared.read_text("utf-8")
        assert str(tmp_path) not in text, shared
        assert str(images) not in text, shared


def test_a_log_without_a_terminal_has_whole_plain_lines(user: User, images: Path) -> None:
    tiny.write_recipe(Path(), images, text=CONSTANT)
    log = user.types(f"{RUN} --set train.epochs=2")
    assert not set(log) & {"\x1b", "\r", "\b"}
    assert len(re.findall(r"^epoch \d/2 .*$", log, re.MULTILINE)) == 2
    prose = [
        line
        for line in log.splitlines()
        if "python -m toolkit" not in line and not line.startswith(("verdict", "note"))
    ]
    assert max(map(len, prose)) <= 100


@pytest.mark.slow  # TensorBoard's server takes seconds to start
def test_the_command_that_shows_a_tracked_run(user: User, images: Path, request: pytest.FixtureRequest) -> None:
    tiny.write_recipe(Path(), images, text=SHORT)
    user.types(f"""{RUN} --set 'trackers=["tensorboard"]'""")
    (board,) = re.findall(r"^view (.*)$", user.seen, re.MULTILINE)
    (shown,) = json.loads(served(shlex.split(f"{board} --port 0"), "data/runs", request))
    assert shown == f"{latest_run().name}/tensorboard"


@pytest.mark.long  # imports MLflow and W&B, whose printed commands tests/plugins/test_trackers.py types
def test_the_commands_that_show_a_run_of_several_trackers(
    user: User, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    tiny.write_recipe(Path(), images, text=SHORT)
    user.types(f"""{RUN} --set 'trackers=["tensorboard", "mlflow", "wandb"]'""")
    _, flow, sync = re.findall(r"^view (.*)$", user.seen, re.MULTILINE)
    *words, store = shlex.split(flow)
    assert words == ["mlflow", "ui", "--backend-store-uri"]
    assert Path(store.removeprefix("sqlite:///")).is_file()
    (offline,) = Path().glob(sync.removeprefix("wandb sync "))
    assert offline.is_dir()


def served(words: list[str], page: str, request: pytest.FixtureRequest) -> str:
    """What the server that these words start answers for a page. It prints its address when it listens."""
    tool, *rest = words
    program = shutil.which(tool, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program is not None
    server = subprocess.Popen([program, *rest], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watchdog = threading.Timer(100, server.kill)
    watchdog.start()
    request.addfinalizer(lambda: (server.terminate(), server.communicate(), watchdog.cancel()))
    assert server.stdout is not None
    lines = []
    for line in server.stdout:
        lines.append(line)
        if address := re.search(r"http://(?:localhost|127\.0\.0\.1):(\d+)\b", line):
            with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/{page}", timeout=60) as answer:
                return str(answer.read().decode())
    raise AssertionError("".join(lines))


STUDY = (
    SHORT.replace('metric = "loss"\ndirection = "maximize"', 'metric = "accuracy"')
    + """
[tune]
trials = 2

[tune.space]
"train.optimizer.lr" = { choices = [0.01, 0.1] }
"""
)


def test_a_study(user: User, images: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    tiny.write_recipe(Path(), images, text=STUDY)
    user.types("python -m toolkit tune tiny.toml")
    view = re.search(r"^view (?:pip install optuna-dashboard && )?optuna-dashboard (.*)$", user.seen, re.MULTILINE)
    assert view is not None
    storage = JournalStorage(JournalFileBackend(view[1]))
    assert optuna.load_study(study_name=None, storage=storage).metric_names == ["accuracy"]
    user.follows("export runs/tiny/trial-")
    assert "exports/tiny" in user.seen


@pytest.mark.slow  # starts optuna-dashboard's server
def test_the_command_that_shows_a_study(user: User, images: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("optuna_dashboard", reason="needs optuna-dashboard")
    tiny.write_recipe(Path(), images, text=STUDY)
    user.types("python -m toolkit tune tiny.toml")
    view = re.search(r"^view (optuna-dashboard .*)$", user.seen, re.MULTILINE)
    assert view is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (shown,) = json.loads(served(shlex.split(f"{view[1]} --port {port}"), "api/studies", request))["study_summaries"]
    assert shown["study_name"] == "tiny"


def test_predict_with_a_recipe_leads_to_a_run_that_predicts(user: User, images: Path) -> None:
    tiny.write_recipe(Path(), images, text=SHORT)
    user.types(f"python -m toolkit predict tiny.toml '{next((images / 'test').rglob('*.png'))}'", code=2)
    user.follows("run tiny.toml")
    assert "mean confidence" in user.follows("predict")
