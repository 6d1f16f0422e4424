"""What a bundle says of itself: bundle.json, read with every claim checked before anything else is opened."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from toolkit.api.clips import Averaged, Clip, Sampling, Short
from toolkit.api.errors import BundleError, nearest
from toolkit.serving.bundle.regular import check_regular
from toolkit.serving.bundle.seal import sealed, without_seal
from toolkit.serving.bundle.trust import UNTOUCHED, Trust
from toolkit.serving.bundle.wire import AGAIN
from toolkit.system.checkpoints import BEST, run_of_bundle
from toolkit.system.choices import BUNDLE_PRECISIONS
from toolkit.system.segmentation import Segmentation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.api.contracts import Fit, TargetForm

SCHEMA = 6
"""Version of bundle.json; raised when a reader of the old one would misunderstand the new one."""
MANIFEST = "bundle.json"
INPUT = "frames"
"""Name of the graph's input."""
SIDES = ("H", "W")
"""Names of its height and width."""
OUTPUTS: Mapping[TargetForm, str] = {"index": "probabilities", "set": "probabilities", "number": "values"}
"""Name of its output, by the form of targets."""
MAPS = "maps"
"""Name of its output of heat maps, where it has one."""
_LARGEST = 8192
"""Pixels of a side, frames of a clip or views of a video that no model here has."""
_LARGEST_MANIFEST = 64 << 20
"""Bytes: a million names of classes need less."""
_CROPS = (1, 3)


@dataclass(frozen=True)
class Input:
    """What the graph takes: uint8 RGB `[N, H, W, 3]` (`[N, T, H, W, 3]` for clips) of any N, H and W, and makes of it:
    a `square` by `fit`, antialiased and bilinear, of which the central `size` pixels are seen."""

    square: int
    """Side, in pixels, that images are resized to. Images that are squares of this side already are not resampled."""
    size: int
    """Side, in pixels, of the central part the model sees."""
    fit: Fit
    frames: int | None = None
    """T of a clip; None for an image."""

    @property
    def clip_shape(self) -> tuple[int, ...]:
        """What the shape of an input begins with: `(T,)` of a clip, `()` of an image."""
        return () if self.frames is None else (self.frames,)

    @property
    def square_shape(self) -> tuple[int, ...]:
        """Of an input that is not resampled: `(S, S, 3)`, or `(T, S, S, 3)` of a clip."""
        return (*self.clip_shape, self.square, self.square, 3)


@dataclass(frozen=True)
class FrameSampling:
    """How a model of images answers a video: by the mean over frames."""

    frames: int
    """How many, from the middles of as many equal parts; of a shorter video all."""


@dataclass(frozen=True)
class ClipSampling:
    """How a model of clips answers a video: by the mean over the views of `clip`."""

    clip: Clip
    span: float
    """Seconds that one clip of a timeline sees: a strided one its own, segments as much as training videos last."""


VideoSampling: TypeAlias = FrameSampling | ClipSampling


@dataclass(frozen=True)
class Maps:
    """Heat maps that the graph gives: of each class, where in an input its answer comes from."""

    method: str
    layer: str
    """Of the network, whose features they sum."""
    extent: tuple[int, ...]
    """`(h, w)` of a map, or `(t, h, w)` of clips; it covers what the model sees."""


@dataclass(frozen=True)
class Searched:
    """How `export.precision = "auto"` chose the precision of the model."""

    precision: str
    float_layers: tuple[str, ...]
    """Layers of an int8 model that stay in float, besides the first."""
    layers: int
    """How many could be in integers."""
    speed: float | None
    """Inputs a second as a multiple of fp32's, on the machine of the export; None for fp32 itself."""
    seconds: float
    """That the search took."""
    reason: str = ""
    """Why the model stays in fp32."""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.precision}, because {self.reason}"
        count = len(self.float_layers)
        floats = f"{count} of {self.layers} layers in float" if count else f"all {self.layers} layers in integers"
        return f"{self.precision}, {floats}, {self.speed:g} times the speed of fp32 on the machine of the export"


@dataclass(frozen=True)
class Manifest:
    """The contents of bundle.json."""

    name: str
    created: str
    """ISO 8601, with the offset from UTC."""
    classes: tuple[str, ...]
    """Of a model that answers with numbers, the names of these."""
    sample: bool
    """Whether the model was trained on a built-in sample: its answers then say nothing about real data."""
    input: Input
    sampling: VideoSampling
    models: Mapping[str, str]
    """Precision to file name, in order of preference."""
    files: Mapping[str, str]
    """Name of every other file of the bundle to its SHA-256 in hexadecimal."""
    recipe: str
    """The recipe, as TOML, with every default filled in."""
    digest: str
    """The recipe's."""
    protocol: Mapping[str, Any]
    """How the scores were made."""
    trained_on: Mapping[str, Any]
    """Dataset, items of each split, best epoch, notes."""
    scores: Mapping[str, Mapping[str, float]]
    """Scores on the validation split of the trained model ("torch") and of each precision."""
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the run scored, by split (`valid`, `test`): `role` (what the split had to do with the weights), number of
    `items`, `precision` of the model, `scores`, and `intervals` of 95 %. Empty where the run has no such scores."""
    gate: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the export gate found, by precision."""
    versions: Mapping[str, str] = field(default_factory=dict)
    form: TargetForm = "index"
    """What an answer is: one class, whose probabilities sum to 1, a set of classes, or numbers."""
    thresholds: tuple[float, ...] | None = None
    """The probability of each class from which it counts as present, in a model that answers with sets of classes."""
    trust: Trust = UNTOUCHED
    """How far answers go."""
    segments: Segmentation = field(default_factory=Segmentation)
    """How answers to a long video become events."""
    searched: Searched | None = None
    """How the precision was chosen, where the recipe left that to the export."""
    maps: Maps | None = None
    """The heat maps that the graph gives, if any."""
    schema: int = SCHEMA

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that say something of the answers, these first."""
        return (self.output, *self.trust.outputs)

    @property
    def graph_outputs(self) -> tuple[str, ...]:
        """Names of all outputs of the graph, in its order."""
        return (*self.outputs, *(() if self.maps is None else (MAPS,)))

    @property
    def columns(self) -> int:
        """Of what a session gives for an input: an answer of C numbers, and behind it the score that the model declines
        by where there is one."""
        return len(self.classes) + self.trust.score_columns

    def parted(self, row: NDArray[np.float32]) -> tuple[NDArray[np.float32], float | None]:
        """The answer `[C]` and the score, if the graph gives one, of one row of a session."""
        count = len(self.classes)
        return row[:count], float(row[count]) if self.trust.scored else None

    @property
    def output(self) -> str:
        """Name of the graph's output."""
        return OUTPUTS[self.form]

    @property
    def clip(self) -> Clip | None:
        """How a video becomes clips; None for a model of images."""
        return self.sampling.clip if isinstance(self.sampling, ClipSampling) else None

    def to_json(self) -> str:
        return json.dumps(sealed(asdict(self)), indent=2, ensure_ascii=False) + "\n"


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of the bundle at `bundle`. Raises BundleError where it is missing, damaged, of
    another schema version, was changed, or contradicts itself."""
    path = bundle / MANIFEST
    try:
        check_regular(path, largest=_LARGEST_MANIFEST)
        claimed = json.loads(path.read_bytes(), object_pairs_hook=_without_repeats)
    except FileNotFoundError as error:
        raise BundleError(f"{bundle}: not a bundle (it has no {MANIFEST})", next_step=_nearby(bundle)) from error
    except NotADirectoryError as error:
        raise BundleError(f"{bundle}: a bundle is a folder, this is a file", next_step=_nearby(bundle)) from error
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not valid JSON: {error}") from error
    if not isinstance(claimed, dict):
        raise _damaged(path, "not a JSON object")
    version = claimed.get("schema")
    if type(version) is not int or version != SCHEMA:
        raise BundleError(
            f"{path}: schema version {version!r}; this toolkit reads version {SCHEMA}", next_step=_other_schema(version)
        )
    manifest = _built(without_seal(claimed, path), path)
    problem = next(_contradictions(manifest), None)
    if problem:
        raise _damaged(path, problem)
    return manifest


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Of a key that is there twice the last would count, and its seal would not show the first."""
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f'the key "{repeated}" is there twice')
    return found


def _other_schema(version: object) -> str:
    if type(version) is not int:
        return AGAIN
    if version > SCHEMA:
        return f"install a newer toolkit; {MANIFEST} says under versions which one wrote it"
    return "export the run again: python -m toolkit export RUN"


def _built(claimed: Mapping[str, Any], path: Path) -> Manifest:
    wrong = [key for key, kind in _KINDS.items() if not isinstance(claimed.get(key), kind)]
    if wrong:
        raise _damaged(path, f"{wrong[0]}: missing or of a wrong type")
    try:
        return Manifest(
            **{
                **claimed,
                "classes": tuple(claimed["classes"]),
                "input": Input(**claimed["input"]),
                "sampling": _sampling(claimed["sampling"]),
                "thresholds": None if claimed.get("thresholds") is None else tuple(claimed["thresholds"]),
                "trust": Trust.read(claimed["trust"]),
                "segments": Segmentation(**claimed.get("segments", {})),
                "searched": _searched(claimed.get("searched")),
                "maps": _maps(claimed.get("maps")),
            }
        )
    except TypeError as error:
        raise _damaged(path, str(error)) from error


def _sampling(claimed: Mapping[str, Any]) -> VideoSampling:
    """Raises TypeError for keys that are too many or too few."""
    if "clip" not in claimed:
        return FrameSampling(**claimed)
    clip = claimed["clip"]
    if not isinstance(clip, dict) or set(clip) != set(Clip.__dataclass_fields__):
        raise TypeError(f"sampling.clip: must have {', '.join(Clip.__dataclass_fields__)}")
    return ClipSampling(**{**claimed, "clip": Clip(**clip)})


def _searched(claimed: Mapping[str, Any] | None) -> Searched | None:
    """Raises TypeError for keys that are too many or too few."""
    return None if claimed is None else Searched(**{**claimed, "float_layers": tuple(claimed.get("float_layers", ()))})


def _maps(claimed: Mapping[str, Any] | None) -> Maps | None:
    """Raises TypeError for keys that are too many or too few."""
    return None if claimed is None else Maps(**{**claimed, "extent": tuple(claimed.get("extent", ()))})


_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("name", "created", "recipe", "digest", "form"), str),
    "sample": bool,
    "classes": list,
    **dict.fromkeys(("input", "sampling", "models", "files", "protocol", "trained_on", "scores", "trust"), dict),
}


def _contradictions(manifest: Manifest) -> Iterator[str]:
    shape = manifest.input
    if manifest.name in ("", ".", "..") or set(manifest.name) & set("/\\\0"):
        yield f"name: must name a folder, got {manifest.name!r}"
    if not manifest.classes or not all(isinstance(name, str) for name in manifest.classes):
        yield "classes: must be names"
    if manifest.form not in OUTPUTS:
        yield f"form: must be {' or '.join(OUTPUTS)}, got {manifest.form!r}"
    if (manifest.thresholds is None) == (manifest.form == "set"):
        yield "thresholds: required for a model of label sets, and only for such a model"
    if manifest.thresholds is not None and not _are_thresholds(manifest.thresholds, len(manifest.classes)):
        yield "thresholds: must be numbers between 0 and 1, one for each class"
    sides = (shape.size, shape.square, 1 if shape.frames is None else shape.frames)
    if not all(map(_is_count, sides)) or shape.size > shape.square:
        yield f"input: sizes must be from 1 to {_LARGEST}, and size at most square"
    if shape.fit not in ("crop", "stretch"):
        yield f'input.fit: must be "crop" or "stretch", got {shape.fit!r}'
    yield from manifest.trust.contradictions(manifest.form)
    yield from _wrong_sampling(manifest.sampling, shape)
    yield from _wrong_segments(manifest.segments)
    yield from _wrong_models(manifest)
    if manifest.maps is not None and (
        not all(map(_is_count, manifest.maps.extent)) or len(manifest.maps.extent) != (2 if shape.frames is None else 3)
    ):
        yield f"maps.extent: must be sizes of a map, got {list(manifest.maps.extent)}"


def _wrong_segments(rule: Segmentation) -> Iterator[str]:
    numbers = (rule.smooth, rule.high, rule.low, rule.shortest)
    if not all(type(number) in (int, float) and 0 <= number < _LARGEST**2 for number in numbers):
        yield "segments: must be numbers from 0"
    elif not 0 < rule.low <= rule.high <= 1:
        yield "segments: low and high must be probabilities above 0, and low at most high"


def _wrong_models(manifest: Manifest) -> Iterator[str]:
    if not manifest.models:
        yield "models: must name at least one"
    if not all(isinstance(text, str) for text in (*manifest.models.values(), *manifest.files.values())):
        yield "models and files: must be names and digests"
    for precision, name in manifest.models.items():
        if precision not in BUNDLE_PRECISIONS:
            yield f'models: unknown precision "{precision}"'
        if name not in manifest.files:
            yield f"models.{precision}: {name} is not among files"
        if "/" in name:
            yield f"models.{precision}: invalid name {name!r}: expected a file, not a folder's"
    for name in manifest.files:
        if not _inside(name):
            yield f"files: invalid path {name!r}: expected one inside the bundle, such as model.onnx"


def _wrong_sampling(sampling: VideoSampling, shape: Input) -> Iterator[str]:
    if isinstance(sampling, FrameSampling):
        if shape.frames is not None or not _is_count(sampling.frames):
            yield f"sampling: expected a clip for a model of clips, else from 1 to {_LARGEST} frames"
        return
    clip = sampling.clip
    if clip.frames != shape.frames:
        yield f"sampling.clip.frames: {clip.frames!r}, where input.frames is {shape.frames!r}"
    for name in ("frames", "rate", "clips", "clips_per_video"):
        if not _is_count(getattr(clip, name)):
            yield f"sampling.clip.{name}: must be from 1 to {_LARGEST}, got {getattr(clip, name)!r}"
    for name, known in (*_WORDS.items(), ("crops", _CROPS)):
        if getattr(clip, name) not in known:
            yield f"sampling.clip.{name}: must be {' or '.join(map(str, known))}, got {getattr(clip, name)!r}"
    for name, number in (("clip.fps", clip.fps), ("span", sampling.span)):
        if type(number) not in (int, float) or not 0 < number < _LARGEST**2:
            yield f"sampling.{name}: must be a number above 0, got {number!r}"


_WORDS = {"sampling": get_args(Sampling), "average": get_args(Averaged), "short": get_args(Short)}


def _are_thresholds(values: tuple[object, ...], count: int) -> bool:
    return len(values) == count and all(type(value) in (int, float) and 0 < value < 1 for value in values)  # type: ignore[operator]


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


def _inside(name: str) -> bool:
    """Whether a path is written in the one way that names a file inside the bundle: no `./a`, `a/` or `a//b`."""
    path = PurePosixPath(name)
    plain = path.as_posix() == name and not path.is_absolute() and ".." not in path.parts
    return plain and name != "." and not set(name) & set("\\:\0")


def _damaged(path: Path, problem: str) -> BundleError:
    return BundleError(f"{path}: {problem}", next_step=AGAIN)


def export_command(bundle: Path, manifest: Manifest) -> str:
    """The command that exports the run again that a bundle came from: where it is, or where it was."""
    run = str(manifest.trained_on.get("run", "RUN"))
    place = run_of_bundle(bundle, manifest.name, run) or Path("runs") / manifest.name / run
    return f"python -m toolkit export {shlex.quote(str(place))}"


def bundle_near(path: Path) -> str | None:
    """The next step where `path` is not a bundle but a bundle near it must have been meant."""
    folder = path.parent if path.is_file() else path
    if (folder / MANIFEST).is_file():
        return f"give its folder: {folder}"
    if found := _bundles_in(folder):
        return f"name one of its bundles: {', '.join(map(str, found[:3]))}"
    if any(folder.glob("*.onnx")):
        return AGAIN
    near = nearest(folder.name, [bundle.name for bundle in _bundles_in(folder.parent)])
    return f"did you mean {folder.parent / near}?" if near else None


def _nearby(path: Path) -> str:
    if (path / BEST).is_file():
        return f"export it first: python -m toolkit export {shlex.quote(str(path))}"
    return bundle_near(path) or _run_below(path) or "make one with: python -m toolkit export RUN"


def _run_below(path: Path) -> str | None:
    """What to give instead of a folder of runs: the latest of them."""
    runs = [best.parent for pattern in ("*", "*/*") for best in path.glob(f"{pattern}/{BEST}")]
    if not runs:
        return None
    return f"name one of its runs, the latest is {shlex.quote(str(max(runs, key=lambda run: run.name)))}"


def _bundles_in(folder: Path) -> list[Path]:
    """Without hidden ones: these were never finished."""
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))
