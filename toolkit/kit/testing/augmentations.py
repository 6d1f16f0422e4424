"""The rules of augmentations."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from toolkit.api.clips import Clip
from toolkit.api.contracts import Augmentation, Batch, DataSpec, Draws, Mirroring, Visit
from toolkit.api.errors import PluginError, UsageError
from toolkit.kit.testing.case import Subject
from toolkit.kit.testing.forms import DRAWN
from toolkit.kit.testing.rulebook import DoesNotApply, Rulebook
from toolkit.kit.testing.samples import draws as draws_of
from toolkit.kit.testing.side_effects import GlobalStates, no_waiting
from toolkit.system.draws import GROUP, draws_of_each, groups_of

RULES = Rulebook("augmentation")

USUAL = DataSpec(("first", "second", "third", "fourth", "fifth"), size=24)
BATCH = 6
GROUPS = 3
"""In a batch of which a share is taken."""
ALIKE = 32
"""Copies of one image: a draw that hides from so many is one a batch, not one a sample."""
TRIALS = 8
"""Seeds tried before an augmentation is held to draw nothing."""
FRAMES = 3
ROUNDING = 1
"""Levels by which a pixel may differ where only the order of sums does."""


@dataclass(frozen=True)
class Scene:
    """What an augmentation is built for, and batches of it."""

    what: str
    spec: DataSpec

    def batch(self, count: int = BATCH) -> Batch:
        """uint8 noise, the same each time."""
        side = self.spec.stored_size
        rng = torch.Generator().manual_seed(1)
        drawn = torch.randint(0, 256, (count, *self.spec.clip_shape, 3, side, side), dtype=torch.uint8, generator=rng)
        targets = DRAWN[self.spec.targets].batch(count, len(self.spec.classes))
        return Batch(drawn, targets, torch.arange(count))


@RULES.rule
def pixels(subject: Subject) -> Iterator[str]:
    """Pixels stay uint8 of as many items, frames and channels on their device, square and no smaller than the model
    sees them."""
    for scene, augment in _all(subject):
        for count in (1, BATCH):
            given = scene.batch(count)
            if wrong := _wrong_pixels(_applied(augment, given).pixels, given.pixels, scene.spec.size):
                yield f"{scene.what}, {count} of them: {wrong}"


@RULES.rule
def targets(subject: Subject) -> Iterator[str]:
    """Targets stay int64 [B] in range or become float32 [B, C] rows of probabilities; where targets are sets, they stay
    float32 [B, C] of 0..1, where they are numbers, finite float32 [B, C]."""
    for scene, augment in _all(subject):
        batch, count, form = scene.batch(), len(scene.spec.classes), DRAWN[scene.spec.targets]
        for what, given in form.changed(batch.targets, count).items():
            found = _applied(augment, replace(batch, targets=given)).targets
            if wrong := form.wrong_batch(found, len(given), count):
                yield f"{scene.what} with targets as {what}: {wrong}"


@RULES.rule
def index(subject: Subject) -> Iterator[str]:
    """The index, by which items are known, is kept."""
    for scene, augment in _all(subject):
        batch = scene.batch()
        found = _applied(augment, batch).index
        if not (isinstance(found, Tensor) and torch.equal(found.cpu(), batch.index)):
            yield f"{scene.what}: {found} from {batch.index}"


@RULES.rule
def untouched(subject: Subject) -> Iterator[str]:
    """The batch that is given is left as it was: where items are kept in memory, they are what a batch shows."""
    for scene, augment in _all(subject):
        for seed in range(TRIALS):
            batch, before = scene.batch(), scene.batch()
            _applied(augment, batch, seed)
            for name in ("pixels", "targets", "index"):
                if not torch.equal(getattr(batch, name), getattr(before, name)):
                    yield f"{scene.what}: {name} of the given batch changed"
                    return


@RULES.rule
def repeatable(subject: Subject) -> Iterator[str]:
    """The same draws give the same batch: a run resumes exactly."""
    for scene, augment in _all(subject):
        once, again = (_applied(augment, scene.batch()) for _ in range(2))
        if not _alike(once, again):
            yield f"{scene.what}: two calls with the same draws differ"


@RULES.rule
def global_state(subject: Subject) -> Iterator[str]:
    """All draws come from those that are given, none from torch's, NumPy's or Python's global generator."""
    for scene, augment in _all(subject):
        for seed in range(TRIALS):
            before = GlobalStates.now()
            _applied(augment, scene.batch(), seed)
            if used := list(before.used()):
                yield f"{scene.what}: {' and '.join(used)} global generator was used"
                return


@RULES.rule
def mirrored(subject: Subject) -> Iterator[str]:
    """One that has `mirrored` exchanges left and right of exactly the items that it names, and changes nothing else."""
    for scene, augment in _all(subject):
        if not isinstance(augment, Mirroring):
            raise DoesNotApply("it has no mirrored")
        for seed in range(TRIALS):
            given = scene.batch(ALIKE)
            its = augment.mirrored(draws_of(given.index.tolist(), seed))
            wanted = torch.where(its.view(-1, *[1] * (given.pixels.ndim - 1)), given.pixels.flip(-1), given.pixels)
            found = _applied(augment, given, seed)
            if not torch.equal(found.pixels, wanted) or not torch.equal(found.targets, given.targets):
                yield f"{scene.what}: it changes other items, or something else"
                return


@RULES.rule
def draws(subject: Subject) -> Iterator[str]:
    """Another epoch gives another batch, where identical samples do not come out alike."""
    found = _of_identical(subject)
    if not _uniform(found[0]) and all(_alike(found[0], other) for other in found[1:]):
        yield f"identical samples come out different, but the same for each of {TRIALS} seeds"


@RULES.rule
def samples(subject: Subject) -> Iterator[str]:
    """Each sample has a draw of its own: identical ones do not all come out alike, where they come out by chance."""
    found = _of_identical(subject)
    if all(_alike(found[0], other) for other in found[1:]):
        raise DoesNotApply("no draw changes identical samples: there is nothing to compare")
    if all(_uniform(batch) for batch in found):
        yield f"{ALIKE} identical samples came out alike for each of {TRIALS} seeds, though seeds differ"


@RULES.rule
def shares(subject: Subject) -> Iterator[str]:
    """An item gets the same result in a batch of another size and order, if its whole group is there: ranks and batch
    sizes change nothing."""
    for scene, augment in _all(subject):
        whole = scene.batch(GROUPS * GROUP)
        visit, groups = _visit(whole), groups_of(len(whole.index))
        wanted = augment(whole, _drawn(visit))
        for without in range(GROUPS):
            again = scene.batch(len(whole.index))  # if the first was changed, another rule finds it
            share = (groups != without).nonzero().flatten().flip(0)
            part = Batch(again.pixels[share], again.targets[share], share)
            found = augment(part, _drawn(Visit(share, share, len(groups))))
            if not _close(found, wanted, share):
                yield f"{scene.what}: {len(share)} items of a batch of {len(whole.index)} come out different alone"
                return


@RULES.rule
def clips(subject: Subject) -> Iterator[str]:
    """All frames of a clip get the same draw: identical ones stay identical."""
    scene, augment = next((scene, augment) for scene, augment in _all(subject) if scene.spec.frames is not None)
    moving = scene.batch()
    still = moving.pixels[:, :1].expand_as(moving.pixels).contiguous()
    for seed in range(TRIALS):
        found = _applied(augment, replace(moving, pixels=still), seed).pixels
        if not torch.equal(found, found[:, :1].expand_as(found)):
            yield "the frames of a still clip came out different"
            return


@RULES.rule
def layout(subject: Subject) -> Iterator[str]:
    """How pixels lie in memory changes no result: the core gives them with channels innermost."""
    for scene, augment in _all(subject):
        batch = scene.batch()
        inner = replace(batch, pixels=batch.pixels.movedim(-3, -1).contiguous().movedim(-1, -3))
        one, other = (_applied(augment, each).pixels for each in (batch, inner))
        if one.shape != other.shape or int((one.int() - other.int()).abs().max()) > ROUNDING:
            yield f"{scene.what}: pixels differ where only their order in memory does"


@RULES.rule
def identity(subject: Subject) -> Iterator[str]:
    """At zero strength a batch comes out as it went in."""
    args = _at_zero(subject)
    shown = ", ".join(f"{name} = {value}" for name, value in args.items())
    for scene in _scenes(subject):
        if scene.spec.stored_size > scene.spec.size:
            continue
        batch, classes = scene.batch(), len(scene.spec.classes)
        found = _applied(_built(subject, scene.spec, **args), batch)
        if not _same(found.pixels, batch.pixels):
            yield f"{scene.what}: pixels change at {shown}"
        if not _same(_mixed(found.targets, classes), _mixed(batch.targets, classes)):
            yield f"{scene.what}: targets change at {shown}"


@RULES.rule
def device(subject: Subject) -> Iterator[str]:
    """On a GPU it gives what it gives on the CPU, and neither copies to the host nor waits for the device."""
    if not torch.cuda.is_available():
        raise DoesNotApply("there is no CUDA device here")
    for scene, augment in _all(subject):
        batch = scene.batch()
        there = Batch(batch.pixels.cuda(), batch.targets.cuda(), batch.index)
        visit = _visit(batch)
        augment(there, _drawn(visit, torch.device("cuda")))
        with no_waiting():
            found = augment(there, _drawn(visit, torch.device("cuda")))
        if not (found.pixels.is_cuda and found.targets.is_cuda):
            yield f"{scene.what}: the batch came back on {found.pixels.device} and {found.targets.device}"
        elif not _close(Batch(found.pixels.cpu(), found.targets.cpu(), found.index), _applied(augment, batch)):
            yield f"{scene.what}: the batch comes out different on the CPU"


def _scenes(subject: Subject) -> list[Scene]:
    spec = subject.case.spec or USUAL
    images = replace(spec, clip=None)
    margin = max(images.stored_size, images.size + 8)
    return [
        Scene("images", replace(images, stored=None)),
        Scene("images stored larger than the model sees them", replace(images, stored=margin)),
        Scene("clips", replace(images, stored=None, clip=spec.clip or Clip(frames=FRAMES))),
    ]


def _all(subject: Subject) -> Iterator[tuple[Scene, Augmentation]]:
    return ((scene, _built(subject, scene.spec)) for scene in _scenes(subject))


def _built(subject: Subject, spec: DataSpec, **args: Any) -> Augmentation:
    built: Augmentation = subject.build(spec, **args)
    signature = inspect.signature(built)
    if any("Generator" in str(one.annotation) for one in signature.parameters.values()):
        found = str(signature).replace("'", "")
        raise PluginError(f"expected an augmentation (batch: Batch, draws: Draws), got {found}")
    return built


def _applied(augment: Augmentation, batch: Batch, seed: int = 0) -> Batch:
    """What becomes of a batch, by the draws of its items."""
    return augment(batch, draws_of(batch.index.tolist(), seed))


def _visit(batch: Batch) -> Visit:
    """Of a batch that is a global one."""
    return Visit(batch.index, batch.index, len(batch.index))


def _drawn(visit: Visit, device: torch.device | None = None) -> Draws:
    return draws_of_each(1, visit, 0, device or torch.device("cpu"))[0]


def _at_zero(subject: Subject) -> dict[str, Any]:
    """The case's identity, or what every augmentation with such an argument must not change anything at."""
    asked: Mapping[str, Any] | None = subject.case.identity
    if asked is None:
        asked = {name: 0.0 for name in ("p", "strength") if subject.takes(name)}
    if not asked:
        raise DoesNotApply("it has no argument p or strength, and the Case names no identity")
    try:
        return subject.checked({**subject.case.args, **asked})
    except UsageError as error:
        if subject.case.identity is not None:
            raise
        shown = ", ".join(f"{name} = {value}" for name, value in asked.items())
        raise DoesNotApply(f"{shown} is not allowed") from error


def _wrong_pixels(found: Tensor, given: Tensor, size: int) -> str | None:
    if found.dtype != torch.uint8:
        return f"pixels are {str(found.dtype).removeprefix('torch.')}"
    if found.device != given.device:
        return f"pixels went from {given.device} to {found.device}"
    if found.shape[:-2] != given.shape[:-2] or found.ndim != given.ndim:
        return f"the shape went from {list(given.shape)} to {list(found.shape)}"
    if found.shape[-1] != found.shape[-2] or found.shape[-1] < size:
        return f"{found.shape[-2]} x {found.shape[-1]} px came out, where the model sees {size} x {size}"
    return None


def _mixed(targets: Tensor, classes: int) -> Tensor:
    """float32 `[B, C]` of targets in either form."""
    return targets if targets.ndim == 2 else torch.eye(classes)[targets]


def _of_identical(subject: Subject) -> list[Batch]:
    """What becomes of copies of one sample, by each of some seeds."""
    scene, augment = next(_all(subject))
    found = []
    for seed in range(TRIALS):
        one = scene.batch(1)
        copies = one.pixels.expand(ALIKE, *one.pixels.shape[1:]).contiguous()
        targets = one.targets.expand(ALIKE, *one.targets.shape[1:])
        found.append(_applied(augment, Batch(copies, targets, torch.arange(ALIKE)), seed))
    return found


def _uniform(batch: Batch) -> bool:
    """Whether all samples are the same."""
    return all(torch.equal(whole, whole[:1].expand_as(whole)) for whole in (batch.pixels, batch.targets))


def _close(found: Batch, wanted: Batch, share: Tensor | slice = slice(None)) -> bool:
    """Whether these are the items `share` of `wanted`, but for the order of sums."""
    pixels, targets = wanted.pixels[share], wanted.targets[share]
    if found.pixels.shape != pixels.shape or found.targets.shape != targets.shape:
        return False
    near = int((found.pixels.int() - pixels.int()).abs().max()) <= ROUNDING
    return near and torch.allclose(found.targets.float(), targets.float(), atol=1e-6)


def _alike(one: Batch, other: Batch) -> bool:
    return _same(one.pixels, other.pixels) and _same(one.targets, other.targets)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
