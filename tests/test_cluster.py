"""The scripts and manifests for clusters, with stand-ins for what a cluster brings."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from toolkit.api.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"
STAND_INS = {
    "srun": """
while [[ $1 == --* ]]; do shift; done
worst=0
for ((SLURM_PROCID = 0; SLURM_PROCID < SLURM_NTASKS; SLURM_PROCID++)); do
  export SLURM_PROCID SLURM_LOCALID=$((SLURM_PROCID % SLURM_NTASKS_PER_NODE))
  "$@"
  code=$?
  if [ $code -gt $worst ]; then worst=$code; fi
done
exit $worst
""",
    "scontrol": """
if [ "$1" = show ]; then printf 'first\\nsecond\\n'; else echo "scontrol $*" >> calls; fi
""",
    "python": """
echo "$* ${RANK:-} ${WORLD_SIZE:-} ${LOCAL_RANK:-} ${LOCAL_WORLD_SIZE:-} ${MASTER_ADDR:-} ${MASTER_PORT:-}" >> calls
exit $CODE
""",
}
TRAINED = "-m toolkit run cifar10_cnn --runs runs/job-7"
RESUMED = "-m toolkit run --resume runs/job-7/latest"


def called(folder: Path, script: str, *words: str, code: int, **variables: str) -> tuple[int, list[str]]:
    """The exit code of a script, and what it has called; its own command ends with `code`."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash{text}")
        (programs / name).chmod(0o755)
    (folder / "calls").write_text("")
    environment = {**os.environ, **variables, "PATH": f"{programs}:{os.environ['PATH']}", "CODE": str(code)}
    done = subprocess.run(["bash", str(FOLDER / script), *words], cwd=folder, env=environment, check=False)
    return done.returncode, [line.strip() for line in (folder / "calls").read_text().splitlines()]


JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "nodes",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
}


@pytest.mark.parametrize("code", [EXIT_DONE, EXIT_FAILED, EXIT_STOPPED])
@pytest.mark.parametrize("begun", [False, True])
def test_a_job_starts_or_resumes_its_run_and_is_queued_again_when_it_was_stopped(
    tmp_path: Path, code: int, begun: bool
) -> None:
    if begun:
        (tmp_path / "runs" / "job-7" / "latest").mkdir(parents=True)
        (tmp_path / "runs" / "job-7" / "latest" / "last.pt").touch()
    ended, calls = called(tmp_path, "train.sbatch", "cifar10_cnn", code=code, **JOB)
    assert ended == code
    words = RESUMED if begun else TRAINED
    ranks = [f"{words} {rank} 4 {rank % 2} 2 first 20007" for rank in range(4)]
    assert calls == [*ranks, *(["scontrol requeue 7"] if code == EXIT_STOPPED else [])]


ARRAY = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_NTASKS": "1"}
ONE = {**ARRAY, "SLURM_NTASKS_PER_NODE": "1"}


@pytest.mark.parametrize(("code", "queued"), [(EXIT_DONE, []), (EXIT_STOPPED, ["scontrol requeue 7_3"])])
def test_a_worker_of_a_study_is_queued_again_when_it_was_stopped(tmp_path: Path, code: int, queued: list[str]) -> None:
    ended, calls = called(tmp_path, "study.sbatch", "cifar10_cnn", "grpc://login:13000", code=code, **ONE)
    assert (ended, calls) == (code, ["-m toolkit tune cifar10_cnn --storage grpc://login:13000", *queued])


def test_each_task_of_an_array_answers_its_part(tmp_path: Path) -> None:
    ended, calls = called(tmp_path, "predict.sbatch", "exports/har", "photos", code=0, **ONE)
    assert ended == 0
    assert calls == ["-m toolkit predict exports/har photos --part 3/8 --output answers-3.jsonl"]


def manifest(name: str) -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return table


def test_the_job_fits_the_schema_of_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    validate(manifest("job.yaml"), "1.31", strict=True)


REPLICA = {
    "type": "object",
    "required": ["template"],
    "additionalProperties": False,
    "properties": {
        "replicas": {"type": "integer", "minimum": 1},
        "restartPolicy": {"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
        "template": {"type": "object", "required": ["spec"]},
    },
}
PYTORCHJOB = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "kubeflow.org/v1"},
        "kind": {"const": "PyTorchJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["pytorchReplicaSpecs"],
            "additionalProperties": False,
            "properties": {
                "runPolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "activeDeadlineSeconds": {"type": "integer"},
                        "backoffLimit": {"type": "integer"},
                        "cleanPodPolicy": {"enum": ["All", "Running", "None"]},
                        "suspend": {"type": "boolean"},
                        "ttlSecondsAfterFinished": {"type": "integer"},
                    },
                },
                "pytorchReplicaSpecs": {
                    "type": "object",
                    "required": ["Master"],
                    "additionalProperties": False,
                    "properties": {"Master": REPLICA, "Worker": REPLICA},
                },
            },
        },
    },
}
"""The fields that this manifest may use, as version 1 of the training operator's API has them."""


def test_the_pytorchjob_fits_the_schema_of_its_operator() -> None:
    job = manifest("pytorchjob.yaml")
    jsonschema.validate(json.loads(json.dumps(job)), PYTORCHJOB)
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        template = {**replica["template"], "spec": {**replica["template"]["spec"], "restartPolicy": "Never"}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train"}, "spec": template["spec"]}
        validate(pod, "1.31", strict=True)
        (container,) = template["spec"]["containers"]
        assert container["name"] == "pytorch"  # the operator looks for this name
        assert {one["name"]: one["value"] for one in container["env"]} == {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
