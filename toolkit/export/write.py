"""From a trained run to a bundle: exported, held against the trained model, put in place whole or not at all."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from toolkit.api.clips import duration
from toolkit.api.contracts import Split, VideoSplit
from toolkit.api.errors import DataError, ParityError, UsageError, counted
from toolkit.api.files import as_utf8, naming, replaced_folder
from toolkit.build.assemble import Assembly
from toolkit.export.bom import BOM, bill_of_materials
from toolkit.export.card import card_of
from toolkit.export.folders import require_replaceable
from toolkit.export.gate import Ask, Reference, Verdict, judge, reference
from toolkit.export.graph import metadata, to_onnx
from toolkit.export.kept import is_whole, place_of
from toolkit.export.maps import check_maps, found_map
from toolkit.export.rescore import evaluate_bundle
from toolkit.export.results import results
from toolkit.export.triton import place_in, write_triton
from toolkit.export.trust import asks_for_trust, chosen_trust, lines, measured, warnings
from toolkit.export.web import check_place, runtime, write_web
from toolkit.recipe.places import places, shared, shared_toml
from toolkit.recipe.tables import Limits, Recipe
from toolkit.recipe.write import to_toml
from toolkit.runs.directory import RunDirectory
from toolkit.runs.evaluation import Scored
from toolkit.runs.reopen import Trained, open_answering, planned_again
from toolkit.runs.rows import ROWS
from toolkit.runs.scores import score_text
from toolkit.runs.trust import measure_similarity
from toolkit.serving.bundle import (
    MANIFEST,
    UNTOUCHED,
    Bundle,
    ClipSampling,
    FrameSampling,
    Input,
    Manifest,
    Maps,
    Searched,
    Trust,
    VideoSampling,
    read_manifest,
)
from toolkit.serving.bundle.signature import check_key, sign
from toolkit.serving.predict.summary import labels
from toolkit.system.environment import versions
from toolkit.system.notices import note, say
from toolkit.system.segmentation import Segmentation

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from rich.status import Status
    from torch import nn

__all__ = ["evaluate_bundle", "export_run", "write_bundle", "write_models"]

CALIBRATION_BATCH = 32
"""Ranges of values are averaged over batches: the fewer frames in each, the less a rare extreme stretches them."""
FRAMES_OF_A_VIDEO = 8
"""Frames of a video that the answer is averaged over, where the dataset has no videos to say how many."""
GATED = ("openvino", "litert")
"""Formats that other libraries compute, so that each export asks them and the trained model."""
CONVERTED: Mapping[str, Callable[[Path, Manifest, Path], Path]] = {"triton": write_triton, "web": write_web}
"""Formats that are made of a bundle, its manifest and a place."""
MEASURED = 100
"""Training videos, evenly spaced, that the length of the others is judged by."""
SINGLE_FILE = 2**31 - 2**20
"""Bytes that fit into one protobuf message, with room for the graph next to the weights."""


def export_run(
    run: Path,
    *,
    name: str | None,
    exports: Path,
    overrides: Sequence[str],
    console: Console,
    key: Path | None = None,
    form: str = "bundle",
) -> Path:
    """Write `exports/<name>`, a bundle of the run's best checkpoint, over a bundle of that name. Where the run keeps
    the same bundle, because `predict` has exported it, that one is copied.

    A private `key` signs it. `form` adds to it: "triton" a model repository, "openvino" a model of OpenVINO, "litert"
    one of LiteRT, and "web" a page that answers in the browser.

    Raises ParityError, and writes nothing, where an exported model does not answer as the trained one does; UsageError
    where something else than a bundle has that name."""
    place = exports / _checked_name(RunDirectory(run).recipe_name if name is None else name)
    another = "give another name with --name NAME, or another folder with --exports DIR"
    require_replaceable(place, kind="a bundle", mark=MANIFEST, next_step=another)
    more = place.with_name(f"{place.name}.html" if form == "web" else f"{place.name}-{form}")
    _check_form(form, more, place.name)  # what would be refused in the end is refused first
    if key is not None:
        check_key(key)
    shown = partial(say, console=console)
    if form in GATED or not _reused(RunDirectory(run), overrides, place, console, key):
        trained = open_answering(run, overrides)
        for text in Scored.of_run(trained.assembly).screen_notes():
            note(text, console)
        written = write_bundle(trained, place, overrides, name=place.name, console=console, say=shown, key=key)
        if form in GATED:
            shown(f"{form} {_write_gated(form, more, place, written, console, shown)}")
    if form in CONVERTED:
        shown(f"{form} {CONVERTED[form](place, read_manifest(place), more)}")
    return place


def _reused(run: RunDirectory, overrides: Sequence[str], place: Path, console: Console, key: Path | None) -> bool:
    """Copy the bundle that the run keeps to `place` and sign it, if there is one and nothing about it would differ."""
    if place.name != run.recipe_name or not (run.recipe.is_file() and run.best.is_file()):
        return False
    kept = place_of(run, overrides)
    if not is_whole(kept):
        return False
    with replaced_folder(place) as folder:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        if key is not None:
            sign(folder, key)
    for text in labels(read_manifest(place)):
        note(text, console)
    note(f"reused {kept}: same checkpoint, recipe and settings; it has passed the gate", console)
    return True


def _check_form(form: str, place: Path, name: str) -> None:
    if form == "triton":
        place_in(place, name)
    elif form == "web":
        check_place(place)
        runtime()
    elif form == "openvino":
        from toolkit.export.openvino import check_openvino

        check_openvino(place)
    elif form == "litert":
        from toolkit.export.litert import check_litert

        check_litert(place)


def _write_gated(
    form: str, place: Path, bundle: Path, written: Written, console: Console, say: Callable[[str], None]
) -> Path:
    manifest = written.manifest

    def gate(candidate: Bundle) -> Verdict:
        return _judge_each([candidate], written.expected, console, say)[0]

    if form == "litert":
        from toolkit.export.litert import write_litert

        return write_litert(bundle, manifest, written.expected, place, gate)
    from toolkit.export.openvino import write_openvino

    return write_openvino(bundle, manifest, place, gate)


@dataclass(frozen=True)
class Written:
    """A bundle that is in its place."""

    manifest: Manifest
    expected: Reference
    """What it was held against."""


def write_bundle(
    trained: Trained,
    place: Path,
    overrides: Sequence[str],
    *,
    name: str,
    console: Console,
    say: Callable[[str], None],
    key: Path | None = None,
) -> Written:
    """Write the bundle of a trained run at `place`, whole or not at all. `overrides` are those that it was
    opened with. `console` shows how far it is; `say` gets a line of each precision's gate.

    Raises ParityError where an exported model does not answer as the trained one does."""
    with replaced_folder(place) as folder:  # before the slow part: it may not be possible there
        expected = _reference(trained.assembly, console, say)
        unproved, verdicts = _judged(trained, name, folder, expected, console, say)
        _refuse_failed(verdicts, place, trained, overrides)
        manifest = _proved(unproved, verdicts, trained, expected, _maps(unproved, folder, expected))
        _write_papers(manifest, folder, expected)
        Bundle.load(folder, device="cpu")
        if key is not None:
            sign(folder, key)
    return Written(manifest, expected)


def _judged(
    trained: Trained, name: str, folder: Path, expected: Reference, console: Console, say: Callable[[str], None]
) -> tuple[Manifest, list[Verdict]]:
    """The bundle's models, and what the gate says of them. Where it refuses one whose precision was searched, there is
    one in fp32 instead."""

    def written(searched: Searched | None) -> tuple[Manifest, list[Verdict]]:
        manifest = write_models(
            trained.assembly,
            name,
            folder,
            console,
            digest=trained.digest,
            trained_on=_trained_on(trained),
            expected=expected,
            searched=searched,
        )
        if manifest.searched is not None:
            _show_search(manifest.searched, say)
        return manifest, _judge(manifest, folder, expected, console, say)

    manifest, verdicts = written(None)
    found = manifest.searched
    if found is None or found.precision == "fp32" or not verdicts[0].problems:
        return manifest, verdicts
    return written(replace(found, precision="fp32", float_layers=(), speed=None, reason="int8 fails the gate"))


def _reference(assembly: Assembly, console: Console, say: Callable[[str], None]) -> Reference:
    """The trained model's answers, with what the recipe asks for to say how far they go."""
    with console.status("asking the trained model"):
        reject = assembly.recipe.export.reject
        if reject is not None and reject.score == "similarity":
            measure_similarity(assembly)
        expected = reference(assembly)
        if not asks_for_trust(assembly.recipe.export):
            return expected
        valid = expected.evaluation if expected.split == "valid" else None
        trust = chosen_trust(assembly, valid)
        trust = measured(trust, assembly, expected.evaluation)
    for line in lines(trust):
        say(line)
    for text in warnings(trust):
        note(text, console)
    return expected.trusting(trust)


def _checked_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise UsageError(f'export: "{name}" cannot name a bundle', next_step="give a plain name with --name NAME")
    return name


def write_models(
    assembly: Assembly,
    name: str,
    folder: Path,
    console: Console,
    *,
    digest: str = "",
    trained_on: Mapping[str, Any] = MappingProxyType({}),
    expected: Reference | None = None,
    searched: Searched | None = None,
) -> Manifest:
    """Every precision's model, and a manifest that claims nothing of them yet: `digest` is that of the recipe by which
    the weights were trained, empty where they were not. `expected` is what a precision that is searched is held
    against, unless it was `searched` and found to be fp32."""
    trust = UNTOUCHED if expected is None else expected.trust
    table, manifest = assembly.recipe.export, _without_models(assembly, name, digest, trained_on, trust)
    with console.status("exporting the graph"):
        maps = found_map(assembly) if table.maps else None
        objective = cast("nn.Module", assembly.objective).cpu()
        about = metadata(assembly.spec, manifest.thresholds, manifest.protocol, digest, trust)
        model = to_onnx(assembly.network, assembly.objective.logits, assembly.spec, about, trust, maps)
    if maps is not None:
        manifest = replace(manifest, maps=Maps("Grad-CAM", maps.layer, maps.extent))
    if searched is not None:
        manifest = _written(replace(manifest, searched=searched), folder, "fp32", model)
    elif table.precision == "auto":
        manifest = _write_searched(model, manifest, folder, expected, console)
    else:
        for precision in table.precisions:
            with console.status(f"writing {precision}"):
                manifest = _written(manifest, folder, precision, _in_precision(model, precision, assembly))
    assembly.network.to(assembly.device)
    objective.to(assembly.device)
    return manifest


def _without_models(
    assembly: Assembly, name: str, digest: str, trained_on: Mapping[str, Any], trust: Trust
) -> Manifest:
    spec, known, thresholds = assembly.spec, places(to_toml(assembly.recipe)), assembly.objective.thresholds
    return Manifest(
        name=name,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        classes=spec.classes,
        sample=spec.sample,
        input=Input(square=spec.stored_size, size=spec.size, fit=spec.fit, frames=spec.frames),
        sampling=_sampling(assembly),
        models={},
        files={},
        recipe=shared_toml(assembly.recipe),
        digest=digest,
        protocol=shared({**Scored.of_run(assembly).protocol(), "precision": "fp32"}, known),
        trained_on=shared(trained_on, known),
        scores={},
        versions=versions(),
        form=spec.targets,
        thresholds=None if thresholds is None else tuple(thresholds.tolist()),
        trust=trust,
        segments=Segmentation(**assembly.recipe.export.segments.model_dump()),
    )


def _written(manifest: Manifest, folder: Path, precision: str, model: onnx.ModelProto) -> Manifest:
    """The manifest, with a further model that is now in the folder."""
    name = f"model.{precision}.onnx" if manifest.models else "model.onnx"
    files = {path.name: _sha256(path) for path in _save(model, folder / name)}
    found = replace(manifest, models={**manifest.models, precision: name}, files={**manifest.files, **files})
    (folder / MANIFEST).write_bytes(as_utf8(found.to_json()))
    return found


def _write_searched(
    model: onnx.ModelProto, manifest: Manifest, folder: Path, expected: Reference | None, console: Console
) -> Manifest:
    from toolkit.export.precision import search

    if expected is None:
        raise AssertionError("a precision that is searched is held against the trained model")

    def opened(candidate: onnx.ModelProto, precision: str) -> Ask:
        with tempfile.TemporaryDirectory(prefix="candidate-") as place, naming(Path(tempfile.gettempdir())):
            _written(manifest, Path(place), precision, candidate)
            return Bundle.load(place, device="cpu").session.run

    assembly = expected.assembly
    with console.status("searching the precision") as status:
        report = partial(_report, status)
        found = search(model, _calibration(assembly), expected, opened, report=report)
        report(f"writing {found.searched.precision}")
        return _written(replace(manifest, searched=found.searched), folder, found.searched.precision, found.model)


def _report(status: Status, text: str) -> None:
    status.update(f"searching the precision: {text}")


def _show_search(found: Searched, say: Callable[[str], None]) -> None:
    say(f"precision {found} (searched in {found.seconds:.0f} s)")
    if found.float_layers:
        say(f"in float: {', '.join(found.float_layers)}")


def _sampling(assembly: Assembly) -> VideoSampling:
    """How the bundle answers a video: by clips as evaluation saw them, or by as many frames as the dataset took of
    each, where it did."""
    clip = assembly.spec.clip
    if clip is None:
        return FrameSampling(assembly.spec.frames_per_video or FRAMES_OF_A_VIDEO)
    return ClipSampling(clip, clip.span if clip.sampling == "strided" else _usual_length(assembly.data.train))


def _usual_length(split: Split | VideoSplit) -> float:
    """Seconds of a training video: the median."""
    if not isinstance(split, VideoSplit):
        raise AssertionError("clips are taken of videos")
    lengths = []
    for index in range(0, len(split), max(len(split) // MEASURED, 1)):
        with suppress(DataError):  # one that cannot be read was reported or skipped in training
            lengths.append(duration(split.times(index)))
    return median(lengths)


def _trained_on(trained: Trained) -> dict[str, Any]:
    assembly, weights = trained.assembly, trained.directory.read_json(trained.directory.facts).get("weights")
    return {
        **({"weights": weights} if weights else {}),
        "dataset": assembly.recipe.data.name,
        "sample": assembly.spec.sample,
        "items": {name: len(loader.store) for name, loader in assembly.loaders().items()},
        "model": assembly.recipe.model.name,
        "best_epoch": trained.best_epoch,
        "run": trained.directory.path.name,
        "notes": Scored.of_run(assembly).notes(),
    }


def _in_precision(model: onnx.ModelProto, precision: str, assembly: Assembly) -> onnx.ModelProto:
    match precision:
        case "fp16":
            from toolkit.export.half import to_fp16

            return to_fp16(model)
        case "int8":
            from toolkit.export.integers import to_int8

            return to_int8(model, _calibration(assembly))
    return model


def _calibration(assembly: Assembly) -> Iterator[NDArray[np.uint8]]:
    """Evenly spaced training items as the graph sees them, uint8 `[B, S, S, 3]` or `[B, T, S, S, 3]`."""
    import numpy as np
    import torch

    train = assembly.train
    count = min(assembly.recipe.export.calibration, len(train.store))
    batch = max(CALIBRATION_BATCH // (assembly.spec.frames or 1), 1)
    for items in torch.linspace(0, len(train.store) - 1, count).long().split(batch):
        pixels = train.at(items.tolist()).pixels
        yield np.ascontiguousarray(pixels.movedim(-3, -1).cpu().numpy())


def _save(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The files written: one, or two where protobuf cannot hold the weights."""
    import onnx

    if model.ByteSize() <= SINGLE_FILE:
        onnx.save(model, path)
        return [path]
    weights = f"{path.name}.data"
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=weights)
    return [path, path.with_name(weights)]


def _judge(
    manifest: Manifest, folder: Path, expected: Reference, console: Console, say: Callable[[str], None]
) -> list[Verdict]:
    bundles = (Bundle.load(folder, device="cpu", precision=precision) for precision in manifest.models)
    return _judge_each(bundles, expected, console, say)


def _judge_each(
    bundles: Iterable[Bundle], expected: Reference, console: Console, say: Callable[[str], None]
) -> list[Verdict]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    verdicts = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for bundle in bundles:
            by = "" if bundle.runtime == "onnxruntime" else f" by {bundle.runtime}"
            task = progress.add_task(f"gate {bundle.precision}{by}", total=2 * len(expected.evaluation.index))
            limits: Limits = getattr(expected.assembly.recipe.export, bundle.precision)
            verdict = judge(bundle, expected, limits, progress=_Advance(progress, task))
            verdicts.append(verdict)
            say(_line(verdict, by))
    return verdicts


@dataclass(frozen=True)
class _Advance:
    progress: Progress
    task: Any

    def __call__(self, items: int) -> None:
        self.progress.advance(self.task, items)


def _line(verdict: Verdict, by: str) -> str:
    raw = verdict.raw
    ties = f" and {counted(len(raw.flips) - raw.changed, 'tie')}" if len(raw.flips) > raw.changed else ""
    flips = f", {counted(raw.changed, 'prediction')} flipped{ties}" if verdict.judging.flips else ""
    paired = f" ({raw.paired})" if raw.paired.worse + raw.paired.better else ""
    exported, trained = (score_text(verdict.metric, one) for one in (raw.scores[verdict.metric], verdict.trained))
    return (
        f"gate {verdict.precision}{by}: {'passed' if not verdict.problems else 'FAILED'}, "
        f"{verdict.items} {verdict.split} items, {verdict.metric} {exported} "
        f"(trained {trained}), largest difference {verdict.squares.difference:.2g}"
        f"{verdict.judging.unit} ({raw.difference:.2g} from raw files){flips}{paired}"
    )


def _refuse_failed(verdicts: Sequence[Verdict], place: Path, trained: Trained, overrides: Sequence[str]) -> None:
    failed = [verdict for verdict in verdicts if verdict.problems]
    if failed:
        findings = [f"{verdict.precision}: {finding}" for verdict in failed for finding in verdict.findings()]
        raise ParityError(
            f"{place}: not written: the exported model differs from the trained one",
            details=findings,
            next_step=_accepted(failed, trained, overrides),
        )


def _accepted(failed: Sequence[Verdict], trained: Trained, overrides: Sequence[str]) -> str:
    """The command that exports in spite of what was found, or the one that looks at the run where no limit would do."""
    run = shlex.quote(str(trained.directory.path))
    if not all(verdict.accepting for verdict in failed):
        return f"evaluate the run: python -m toolkit evaluate {run}"
    limits = [
        f"--set export.{verdict.precision}.{key}={value}"
        for verdict in failed
        for key, value in verdict.accepting.items()
    ]
    given = [f"--set {shlex.quote(override)}" for override in overrides]
    return f"to accept this: python -m toolkit export {' '.join([run, *given, *limits])}"


def _maps(manifest: Manifest, folder: Path, expected: Reference) -> dict[str, dict[str, Any]]:
    """What was found of the heat maps of each precision."""
    if manifest.maps is None:
        return {}
    bundles = {name: Bundle.load(folder, device="cpu", precision=name) for name in manifest.models}
    return {name: {"maps": check_maps(bundle, expected)} for name, bundle in bundles.items()}


def _proved(
    manifest: Manifest,
    verdicts: Sequence[Verdict],
    trained: Trained,
    expected: Reference,
    maps: Mapping[str, Mapping[str, Any]],
) -> Manifest:
    exported = {verdict.precision: dict(verdict.raw.scores) for verdict in verdicts}
    return replace(
        manifest,
        recipe=shared_toml(_trained_recipe(trained)),
        results=results(trained),
        scores={"torch": expected.evaluation.scalars(), **exported},
        gate={verdict.precision: {**verdict.summary(), **maps.get(verdict.precision, {})} for verdict in verdicts},
    )


def _trained_recipe(trained: Trained) -> Recipe:
    """The tables that made the weights as they were in training, despite overrides; the rest as in the export."""
    made, now = planned_again(trained.directory, None, ()).resolved, trained.assembly.recipe
    return made.model_copy(update={key: getattr(now, key) for key in ("data", "input", "clip", "metrics", "export")})


def _write_papers(manifest: Manifest, folder: Path, expected: Reference) -> None:
    """The card and the bill of materials, then the manifest with the hash of every other file."""
    rows = ROWS[manifest.form].of(expected.evaluation, expected.loader.store.split.ids, expected.assembly.spec)
    page = card_of(manifest, rows)
    (folder / "README.md").write_bytes(as_utf8(page))
    (folder / BOM).write_bytes(as_utf8(bill_of_materials(manifest)))
    files = {**manifest.files, **{name: _sha256(folder / name) for name in ("README.md", BOM)}}
    (folder / MANIFEST).write_bytes(as_utf8(replace(manifest, files=files).to_json()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
