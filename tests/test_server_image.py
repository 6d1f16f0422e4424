"""The server's image and manifests, as far as they can be proved without the programs that run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from tests import resizing_bundle
from tests.blank import BLANK
from toolkit.cli.commands import parser
from toolkit.serving.client import Client

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "server"
LARGEST_MB = 900 - 150
"""Of the environment: the image may have 900 MB, of which its base, Debian with Python, takes less than 150."""
NOBODY = 10001


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile with its words, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def said(name: str) -> list[str]:
    return [words for instruction, words in instructions() if instruction == name]


def requirements() -> list[Requirement]:
    lines = (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_what_the_image_installs_has_the_ranges_of_the_project_and_is_not_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = [*map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["serve"]])]
    ranges = {(one.name, str(one.specifier)) for one in known}
    assert {(one.name, str(one.specifier)) for one in requirements()} <= ranges
    named = {one.name for one in requirements()}
    assert named >= {Requirement(text).name for text in project["optional-dependencies"]["serve"]}
    assert not named & {"torch", "torchvision", "onnxruntime-gpu"}
    (extra,) = project["optional-dependencies"]["openvino"]
    assert f'"{extra}"' in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_has_all_that_a_wheel_is_made_of() -> None:
    copied = {source for words in said("COPY") if "--from" not in words for source in words.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = built["tool"]["hatch"]["build"]["targets"]["wheel"]
    project = built["project"]
    assert {*wheel["only-include"], *wheel["sbom-files"], project["readme"], *project["license-files"]} <= copied


def test_the_image_runs_the_server_as_nobody() -> None:
    user, identity = said("USER")[0].split(":")
    assert int(user) == int(identity) == NOBODY
    assert [name for name, _ in instructions()].index("USER") < [name for name, _ in instructions()].index("ENTRYPOINT")
    (entry,) = map(json.loads, said("ENTRYPOINT"))
    assert entry[:3] == ["python", "-m", "toolkit"]
    options = parser().parse_args([*entry[3:], "/models/har", "--token", "/run/secrets/token"])
    assert (options.host, options.port) == ("0.0.0.0", int(said("EXPOSE")[0]))
    assert f":{options.port}/v2/health/ready" in said("HEALTHCHECK")[0]


STRING, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
INFERENCE_SERVICE = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["predictor"],
            "additionalProperties": False,
            "properties": {"predictor": {"type": "object", "required": ["containers"]}},
        },
    },
}
COMPONENT = {
    "batcher": {"type": "object"},
    "canaryTrafficPercent": COUNT,
    "containerConcurrency": COUNT,
    "logger": {"type": "object"},
    "maxReplicas": COUNT,
    "minReplicas": COUNT,
    "scaleMetric": {"enum": ["concurrency", "rps", "cpu", "memory"]},
    "scaleTarget": COUNT,
    "timeout": COUNT,
}
"""What version v1beta1 of KServe's API adds to the fields of a pod in a predictor."""


def test_the_manifest_fits_the_schemas_of_kserve_and_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    service = yaml.safe_load((FOLDER / "inferenceservice.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(json.dumps(service)), INFERENCE_SERVICE)
    predictor: dict[str, Any] = service["spec"]["predictor"]
    own = {name: value for name, value in predictor.items() if name in COMPONENT}
    jsonschema.validate(own, {"type": "object", "properties": COMPONENT})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "har"}}
    spec = {name: value for name, value in predictor.items() if name not in COMPONENT}
    validate({**pod, "spec": spec}, "1.31", strict=True)


def test_the_manifest_runs_the_image_as_it_is() -> None:
    service = yaml.safe_load((FOLDER / "inferenceservice.yaml").read_text(encoding="utf-8"))
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["name"] == "kserve-container"  # KServe looks for this name
    (entry,) = map(json.loads, said("ENTRYPOINT"))
    options = parser().parse_args([*entry[3:], *container["args"]])
    assert [str(path) for path in options.bundles] == ["/mnt/models"]
    (port,) = container["ports"]
    assert port["containerPort"] == options.port
    assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} == {options.port}
    security = container["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] == NOBODY
    assert security["readOnlyRootFilesystem"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


def megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that other users can read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def without_rights(folder: Path, python: Path) -> dict[str, Any]:
    """Options of a process whose own temporary folder is the one that it writes to: as another user, where this process
    may start one and that user can read the interpreter."""
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = {"PATH": os.defpath, "HOME": str(temporary), "TOOLKIT_CACHE": f"{temporary}/toolkit"}
    options = {"env": {**environment, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}}
    other = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    try:
        subprocess.run([python, "-c", ""], check=True, **other)
    except PermissionError:
        return options
    os.chown(temporary, NOBODY, NOBODY)
    return {**options, **other}


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def command(*words: object) -> None:
    subprocess.run([*map(str, words)], check=True, timeout=400, stdout=subprocess.DEVNULL)


@pytest.mark.long
def test_the_image_s_lines_make_an_environment_that_serves_without_torch(readable: Path) -> None:
    """Without docker: the same packages and wheel in a new environment, and the same command, which writes to the
    temporary folder alone."""
    made = readable / "environment"
    python = made / "bin" / "python"
    command(sys.executable, "-m", "venv", made)
    command(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", readable, ROOT)
    command(python, "-m", "pip", "install", "-q", "--no-compile", "-r", FOLDER / "requirements.txt")
    command(python, "-m", "pip", "install", "-q", "--no-compile", "--no-deps", *readable.glob("*.whl"))
    assert megabytes(made) < LARGEST_MB
    bundle = resizing_bundle.write(readable / "har")
    (entry,) = map(json.loads, said("ENTRYPOINT"))
    words = [str(python), *entry[1:], "--port", "0", str(bundle)]
    before = files(made)
    options = without_rights(readable, python)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd="/", **options) as server:
        try:
            assert server.stderr is not None
            lines = iter(server.stderr.readline, "")
            place = next(line for line in lines if line.startswith("http://"))
            (readable / "photo.png").write_bytes(BLANK)
            with Client(place.split()[0].replace("0.0.0.0", "127.0.0.1")) as client:
                (answer,) = client.predict([readable / "photo.png"])
            assert answer["prediction"] == ["bright"]
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
    assert files(made) == before
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert b"No module named 'torch'" in missing.stderr


def docker(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *map(str, words)], text=True, capture_output=True, check=False, **options)


def docker_missing() -> str:
    """Why docker does not run here; empty where it does."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    return "" if docker("info").returncode == 0 else "docker's daemon does not run"


@pytest.mark.long
def test_the_image_is_built_and_answers(readable: Path) -> None:
    if reason := docker_missing():
        pytest.skip(reason)
    name = "toolkit-serve-test"
    built = docker("build", "-f", FOLDER / "Dockerfile", "-t", name, ROOT, timeout=590)
    assert built.returncode == 0, built.stderr
    assert int(docker("image", "inspect", "-f", "{{.Size}}", name).stdout) < 900e6
    resizing_bundle.write(readable / "har")
    limits = shlex.split("--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --memory 2g")
    mounted = f"{readable / 'har'}:/models/har:ro"
    started = docker("run", "-d", "--rm", *limits, "-v", mounted, "-p", "127.0.0.1::8000", name, "/models/har")
    assert started.returncode == 0, started.stderr
    container = started.stdout.strip()
    try:
        port = docker("port", container, "8000").stdout.strip().rpartition(":")[2]
        (readable / "photo.png").write_bytes(BLANK)
        asked = docker("exec", container, "python", "-c", WAIT, timeout=120)
        assert asked.returncode == 0, asked.stderr
        with Client(f"http://127.0.0.1:{port}") as client:
            (answer,) = client.predict([readable / "photo.png"])
        assert answer["prediction"] == ["bright"]
        assert docker("exec", container, "id", "-u").stdout.strip() == str(NOBODY)
    finally:
        docker("stop", container)


WAIT = """
import time, urllib.request
for _ in range(100):
    try:
        urllib.request.urlopen("http://127.0.0.1:8000/v2/health/ready")
        break
    except OSError:
        time.sleep(0.5)
else:
    raise SystemExit("it does not become ready")
"""
