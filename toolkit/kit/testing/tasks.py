"""The rules of tasks, asked of their objectives with a network of one layer and items drawn by code."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from toolkit.api.contract_checks import shape_of
from toolkit.api.contracts import DataSpec, Multiview, Objective, Pretraining, Targets, Task
from toolkit.data.loader import target_tensor
from toolkit.kit.testing.case import Subject, once
from toolkit.kit.testing.forms import DRAWN, Drawn
from toolkit.kit.testing.models import BY_MODE
from toolkit.kit.testing.rulebook import DoesNotApply, Rulebook
from toolkit.kit.testing.side_effects import GlobalStates, no_waiting
from toolkit.training.answers import answers_of, logits_of
from toolkit.training.asked import Asked

RULES = Rulebook("task")

USUAL = DataSpec(("first", "second", "third", "fourth"), size=8)
FEATURES = 3 * 4 * 4
ITEMS = 12
VIEWS = 5
SEED = 20_260_101
CLOSE = 1e-4
"""Largest difference that reordered sums make, as a share of the numbers compared."""
SURE = 1e4
"""How large the logits of a network are whose training went wrong."""
HELD = ("loss", "weight", "score", "logits", "settle", "thresholds", "targets")


class Layer(nn.Module):
    """uint8 pixels of any size `[B, 3, H, W]` or `[B, T, 3, H, W]` to logits `[B, C]`, by one layer on features that a
    factor each is trained of."""

    def __init__(self, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.filters = nn.Parameter(torch.ones(FEATURES))
        self.drop = nn.Dropout(0.0)
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, pixels: Tensor, *, features: bool = False) -> Tensor:
        """Logits of pixels or of features; `features` asks for these, `[B, F]`."""
        found = pixels
        if pixels.ndim > 2:
            values = pixels.float() / 127.5 - 1
            frames = values if values.ndim == 4 else values.mean(1)
            found = self.filters * functional.adaptive_avg_pool2d(frames, 4).flatten(1)
        return found if features else self.scale * self.head(self.drop(found))


@dataclass(frozen=True, eq=False)
class Scene:
    """An objective with a network to ask and a batch, as the core would give them."""

    objective: Objective
    network: Layer
    pixels: Tensor
    """uint8 `[B, 3, S, S]` or `[B, T, 3, S, S]`; of an objective that compares V views `[B, V, ...]`."""
    targets: Tensor
    """int64 `[B]`, or float32 `[B, C]` where they are sets or numbers; every class occurs."""
    classes: int
    form: Drawn

    @property
    def module(self) -> nn.Module:
        """The objective as the module that it is."""
        if not isinstance(self.objective, nn.Module):
            raise TypeError(f"the factory made {type(self.objective).__name__}, not a torch.nn.Module")
        return self.objective

    @property
    def compares(self) -> bool:
        """Whether the loss of an item depends on the other items of its part, by batch norm."""
        return any(isinstance(one, _BatchNorm) and one.training for one in self.module.modules())

    @property
    def pretrains(self) -> bool:
        return isinstance(self.objective, Pretraining)

    @property
    def shown(self) -> Tensor:
        """float32 `[B, C]`: the right answers."""
        return self.form.right(self.targets, self.classes)

    @property
    def forward(self) -> Asked:
        """What an objective is given to ask."""
        return Asked(self.network)

    def loss(self, items: slice = slice(None), targets: Tensor | None = None) -> Tensor:
        """The summed loss of these items, by the same draws each time."""
        torch.manual_seed(SEED)
        given = self.targets if targets is None else targets
        return self.objective.loss(self.forward, self.pixels[items], given[items])

    def summed(self, size: int, targets: Tensor | None = None) -> float:
        """The sum of the losses of the batch in parts of this size."""
        starts = range(0, ITEMS, size)
        return sum(self.loss(slice(start, start + size), targets).item() for start in starts)

    def mean(self) -> Tensor:
        """The loss of the whole batch, as it is minimised."""
        return self.loss() / self.objective.weight(self.targets)

    def score(self) -> float:
        """The score of the network's answers to the batch; where it learns none, its loss."""
        with torch.no_grad():
            if self.pretrains:
                return self.mean().item()
            return self.objective.score(self.objective.logits(self.network(self.pixels)), self.targets).item()

    def train(self, steps: int) -> None:
        """Take steps of the network and of what the objective has trained; by hand, since torch's optimizers import its
        compiler, which takes longer than all rules."""
        every = [*self.network.parameters(), *self.objective.parameters()]
        trained = [one for one in every if one.requires_grad]
        for _ in range(steps):
            for one in trained:
                one.grad = None
            self.mean().backward()
            with torch.no_grad():
                for one in trained:
                    if one.grad is not None:
                        one.sub_(0.02 * one.grad)


@RULES.rule
def module(subject: Subject) -> Iterator[str]:
    """An objective is an `nn.Module` with all that the contract names; its tensors are parameters and buffers."""
    scene = build(subject)
    if lacking := [name for name in HELD if not hasattr(scene.objective, name)]:
        yield f"it has no {lacking[0]}"
    for name, inner in scene.module.named_modules():
        if own := [key for key, value in vars(inner).items() if isinstance(value, Tensor)]:
            yield f"{'.'.join(filter(None, (name, own[0])))} is a plain tensor"


@RULES.rule
def targets(subject: Subject) -> Iterator[str]:
    """`targets` says which form of targets it takes: "index", "set" or "number"."""
    form = build(subject).objective.targets
    if form not in DRAWN:
        yield f"targets is {form!r}"
    elif subject.case.spec is not None and form != subject.case.spec.targets:
        yield f'it takes "{form}", the data of the Case has "{subject.case.spec.targets}"'


@RULES.rule
def loss(subject: Subject) -> Iterator[str]:
    """The loss of any number of items is a finite scalar with a finite gradient, even where logits are huge."""
    for what, scene in (("", build(subject)), (f", with logits of {SURE:g}", build(subject, scale=SURE))):
        for count in (2, ITEMS) if scene.compares else (1, 2, ITEMS):
            if wrong := _wrong_loss(scene, scene.loss(slice(count))):
                yield f"of {count} items{what}: {wrong}"


@RULES.rule
def parts(subject: Subject) -> Iterator[str]:
    """The loss is summed over items: that of a batch is the sum of the losses of its parts."""
    scene = build(subject)
    if scene.compares:
        raise DoesNotApply("batch norm compares the items of a part")
    whole = scene.loss().item()
    for size in (1, 5):
        if not near(summed := scene.summed(size), whole):
            yield f"it is {whole:.6g} for {ITEMS} items, and {summed:.6g} in parts of {size}"


@RULES.rule
def weight(subject: Subject) -> Iterator[str]:
    """The loss divided by the weight, a finite number above 0, is a mean: a batch twice over has the same."""
    scene = build(subject)
    targets = torch.cat([scene.targets, scene.targets])
    twice = replace(scene, pixels=scene.pixels.repeat(2, *[1] * (scene.pixels.ndim - 1)), targets=targets)
    weights = [float(each.objective.weight(each.targets)) for each in (scene, twice)]
    if not all(0 < weight < float("inf") for weight in weights):
        yield f"the weight is {weights[0]:.6g}"
    elif not near(double := twice.mean().item(), mean := scene.mean().item()):
        yield f"the mean is {mean:.6g} for a batch, and {double:.6g} for it twice over"


@RULES.rule
def mixed(subject: Subject) -> Iterator[str]:
    """Targets mixed by mixup or cutmix, float32 [B, C], are taken: their loss is finite and summed over items."""
    scene = build(subject)
    share = torch.linspace(0.1, 0.9, ITEMS)[:, None]
    mixed = share * scene.shown + (1 - share) * scene.shown.flip(0)
    whole = scene.loss(targets=mixed)
    if wrong := _wrong_loss(scene, whole):
        yield wrong
    elif not scene.compares and not near(summed := scene.summed(5, mixed), whole.item()):
        yield f"it is {whole.item():.6g} for {ITEMS} items, and {summed:.6g} in parts of 5"
    if not 0 < float(scene.objective.weight(mixed)) < float("inf"):
        yield f"the weight is {float(scene.objective.weight(mixed)):.6g}"


@RULES.rule
def learns(subject: Subject) -> Iterator[str]:
    """Steps against the gradient of the loss lower the score on the same batch."""
    scene = build(subject)
    before = scene.score()
    scene.train(40)
    if not (after := scene.score()) < before:
        yield f"the score is {before:.6g} before 40 steps and {after:.6g} after them"


@RULES.rule
@torch.no_grad()
def score(subject: Subject) -> Iterator[str]:
    """The score is the mean over items of a finite loss, even where logits are huge."""
    scene = build(subject)
    for scale in (1.0, SURE):
        logits = scale * drawn(ITEMS, scene.classes)
        whole = scene.objective.score(logits, scene.targets)
        if not isinstance(whole, Tensor) or whole.ndim:
            yield f"it is {shape_of(whole) if isinstance(whole, Tensor) else type(whole).__name__}, not a scalar"
            return
        each = [scene.objective.score(logits[item : item + 1], scene.targets[item : item + 1]) for item in range(ITEMS)]
        mean = float(torch.stack(each).mean())
        if not whole.isfinite():
            yield f"it is {float(whole)} for logits of {scale:g}"
        elif not near(mean, float(whole)):
            yield f"it is {float(whole):.6g} for {ITEMS} items, and {mean:.6g} the mean of theirs"


@RULES.rule
def right(subject: Subject) -> Iterator[str]:
    """Right answers have a lower score than wrong ones, and logits that follow its gradient give right answers."""
    scene = build(subject)
    objective, shown = scene.objective, scene.shown
    form, others = spec_of(subject).targets, scene.form.wrong(shown)
    good, bad = (objective.score(logits_of(each, form), scene.targets).item() for each in (shown, others))
    if not good < bad:
        yield f"it is {good:.6g} for right answers and {bad:.6g} for wrong ones"
    logits = torch.zeros(ITEMS, scene.classes, requires_grad=True)
    for _ in range(100):
        (gradient,) = torch.autograd.grad(objective.score(logits, scene.targets), logits)
        with torch.no_grad():
            logits -= 0.1 * gradient.sign()
    found = answers_of(logits.detach(), form)
    if wrong := int((~scene.form.agree(found, shown)).sum()):
        yield f"after 100 steps {wrong} of {ITEMS} answers are wrong"


@RULES.rule
@torch.no_grad()
def logits(subject: Subject) -> Iterator[str]:
    """Logits of what a network puts out [..., C] are finite float32 [..., C], even where that is huge."""
    scene = build(subject)
    for shape in ((1,), (ITEMS,), (ITEMS, VIEWS)):
        for scale in (0.0, 1.0, SURE):
            outputs = scale * drawn(*shape, scene.classes)
            found: Any = scene.objective.logits(outputs)
            what = f"for {[*outputs.shape]} of {scale:g}"
            if not isinstance(found, Tensor) or found.dtype != torch.float32 or found.shape != outputs.shape:
                yield f"logits are {shape_of(found) if isinstance(found, Tensor) else type(found).__name__} {what}"
            elif not found.isfinite().all():
                yield f"logits are not finite {what}"


@RULES.rule
@torch.no_grad()
def rows(subject: Subject) -> Iterator[str]:
    """The logits of an item do not depend on the other items, nor on how often they are asked for."""
    scene = build(subject)
    outputs = drawn(ITEMS, scene.classes)
    together, again = scene.objective.logits(outputs), scene.objective.logits(outputs)
    alone = torch.cat([scene.objective.logits(row[None]) for row in outputs])
    yield from unlike("alone, logits differ", alone, together)
    yield from unlike("asked again, logits differ", again, together)


@RULES.rule
def thresholds(subject: Subject) -> Iterator[str]:
    """`thresholds` is float32 [C] between 0 and 1 where an item has a set of classes, and None otherwise."""
    scene = build(subject)
    if wrong := _wrong_thresholds(scene):
        yield wrong


@RULES.rule
@torch.no_grad()
def settle(subject: Subject) -> Iterator[str]:
    """`settle` takes any validation split, with classes that none of its items shows, and changes thresholds alone."""
    scene = build(subject)
    logits = drawn(ITEMS, scene.classes)
    before = {name: value.clone() for name, value in scene.module.named_parameters()}
    expected = scene.objective.logits(logits).clone()
    for what, items in (
        ("", slice(None)),
        (" of one item", slice(1)),
        (" of two items", slice(0, None, 6)),
    ):
        scene.objective.settle(logits[items], scene.targets[items])
        if wrong := _wrong_thresholds(scene):
            yield f"after a split{what}: {wrong}"
    if moved := [name for name, value in scene.module.named_parameters() if not torch.equal(value, before[name])]:
        yield f"it changes the parameter {moved[0]}"
    yield from unlike("after it, logits differ", scene.objective.logits(logits), expected)


@RULES.rule
def state(subject: Subject) -> Iterator[str]:
    """`state_dict` holds all that training and `settle` change: a fresh objective that loads it does the same."""
    first, second = build(subject), build(subject, seed=SEED + 1)
    first.train(3)
    with torch.no_grad():
        first.objective.settle(drawn(ITEMS, first.classes), first.targets)
    saved = io.BytesIO()
    torch.save(first.objective.state_dict(), saved)
    saved.seek(0)
    second.objective.load_state_dict(torch.load(saved, weights_only=True))
    second = replace(second, network=first.network)
    logits = drawn(ITEMS, first.classes)
    yield from unlike("logits differ", second.objective.logits(logits), first.objective.logits(logits))
    for what, values in (
        ("the loss", [scene.loss().item() for scene in (first, second)]),
        ("the score", [scene.objective.score(logits, first.targets).item() for scene in (first, second)]),
    ):
        if not near(*values):
            yield f"{what} is {values[1]:.6g}, not {values[0]:.6g}"
    chosen, loaded = first.objective.thresholds, second.objective.thresholds
    if chosen is not None and (loaded is None or not torch.equal(chosen, loaded)):
        yield "thresholds differ"


@RULES.rule
def owned(subject: Subject) -> Iterator[str]:
    """Of what it owns, trainable parameters get a gradient; frozen modules stay as they are, in evaluation mode."""
    scene = build(subject)
    frozen, trained = _owned(scene.module)
    if not frozen and not trained:
        raise DoesNotApply("it owns no parameters")
    before = {name: value.clone() for name, value in frozen.items()}
    scene.train(3)
    for name, parameter in trained.items():
        if parameter.grad is None:
            yield f"{name} gets no gradient"
    if moved := [name for name, value in frozen.items() if not torch.equal(value, before[name])]:
        yield f"{moved[0]} is frozen and changes"
    for name, inner in scene.module.named_children():
        held = [*inner.parameters()]
        late = [one for one in inner.modules() if isinstance(one, BY_MODE) and one.training]
        if held and late and not any(one.requires_grad for one in held):
            yield f"{name} is frozen, and a {type(late[0]).__name__} in it is in training mode"


@RULES.rule
def untouched(subject: Subject) -> Iterator[str]:
    """Pixels, targets, logits and the network that is asked are left as they were, its mode too."""
    scene = build(subject)
    logits = drawn(ITEMS, scene.classes)
    given = {"pixels": scene.pixels, "targets": scene.targets, "logits": logits, "weights": scene.network.head.weight}
    before = {name: tensor.detach().clone() for name, tensor in given.items()}
    for training in (True, False):
        scene.network.train(training)
        scene.loss()
        if any(inner.training != training for inner in scene.network.modules()):
            yield f"the network is in {'training' if training else 'evaluation'} mode before the loss, not after it"
    scene.objective.weight(scene.targets)
    scene.objective.score(logits, scene.targets)
    scene.objective.logits(logits)
    scene.objective.settle(logits, scene.targets)
    yield from (f"{name} changed" for name, tensor in given.items() if not torch.equal(tensor, before[name]))


@RULES.rule
def draws(subject: Subject) -> Iterator[str]:
    """Only the loss draws, and only from torch's global generator, which the core seeds at each step."""
    scene = build(subject)
    scene.loss()
    torch.manual_seed(SEED)
    before = GlobalStates.now()
    scene.objective.loss(scene.forward, scene.pixels, scene.targets)
    yield from (f"the loss uses {whose} global generator" for whose in before.used() if whose != "torch's")
    if torch.initial_seed() != SEED:
        yield "the loss seeds torch's global generator"
    logits = drawn(ITEMS, scene.classes)
    before = GlobalStates.now()
    scene.objective.score(logits, scene.targets)
    scene.objective.logits(logits)
    scene.objective.settle(logits, scene.targets)
    yield from (f"scores or answers use {whose} global generator" for whose in before.used())


@RULES.slow_rule
def onnx(subject: Subject) -> Iterator[str]:
    """A network and its logits export to ONNX with a dynamic batch, and the graph gives the same answers."""
    import onnxruntime

    from toolkit.data.store.resampling import centre_crop
    from toolkit.export.graph import Deployed, quiet, to_onnx
    from toolkit.serving.bundle.manifest import INPUT, OUTPUTS
    from toolkit.training.network import Network

    scene, spec = build(subject), spec_of(subject)
    if scene.pretrains:
        raise DoesNotApply("it learns features, which are not exported")
    network = Network(Flat(spec), spec).eval()
    graph = to_onnx(network, scene.objective.logits, spec, {})
    with quiet():
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        shape = (batch, *spec.clip_shape, spec.stored_size, spec.stored_size, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(SEED))
        with torch.no_grad():
            squares = centre_crop(frames.movedim(-1, -3), spec.size)
            (expected,) = Deployed(network, scene.objective.logits, spec).eval()(squares)
        found = torch.from_numpy(session.run([OUTPUTS[spec.targets]], {INPUT: frames.numpy()})[0])
        yield from unlike(f"for a batch of {batch}, answers differ", found, expected)


@RULES.rule
def device(subject: Subject) -> Iterator[str]:
    """On a GPU it works there, and its loss and weight do not wait for the device."""
    if not torch.cuda.is_available():
        raise DoesNotApply("there is no CUDA device here")
    here = build(subject)
    there = replace(
        build(subject),
        objective=cast("Objective", build(subject).module.cuda()),
        network=Layer(here.classes).cuda(),
        pixels=here.pixels.cuda(),
        targets=here.targets.cuda(),
    )
    there.network.load_state_dict(here.network.state_dict())
    expected = here.mean().item()
    there.mean()
    with no_waiting():
        found = there.objective.loss(there.forward, there.pixels, there.targets) / there.objective.weight(there.targets)
    if not near(found.item(), expected, 1e-3):
        yield f"the loss is {found.item():.6g} on the GPU and {expected:.6g} on the CPU"
    logits = drawn(ITEMS, here.classes).cuda()
    there.objective.settle(logits, there.targets)
    for name, tensor in (
        ("score", there.objective.score(logits, there.targets)),
        ("logits", there.objective.logits(logits)),
    ):
        if not tensor.is_cuda:
            yield f"{name} came back on {tensor.device}"


@RULES.rule
@torch.no_grad()
def projected(subject: Subject) -> Iterator[str]:
    """Of features that are pretrained, what the loss compares is finite float32 [N, D], the same each time."""
    scene = build(subject)
    if not isinstance(scene.objective, Pretraining):
        raise DoesNotApply("it learns answers")
    if scene.objective.classes != scene.classes:
        yield f"classes is {scene.objective.classes}, the data has {scene.classes}"
    features = drawn(ITEMS, FEATURES)
    found: Any = scene.objective.projected(features)
    if not isinstance(found, Tensor) or found.dtype != torch.float32 or found.ndim != 2 or len(found) != ITEMS:
        yield f"it is {shape_of(found) if isinstance(found, Tensor) else type(found).__name__} for {ITEMS} items"
    elif not found.isfinite().all():
        yield "it is not finite"
    else:
        yield from unlike("asked again, it differs", scene.objective.projected(features), found)


@RULES.rule
def labels(subject: Subject) -> Iterator[str]:
    """A task that is declared to learn without labels has the same loss whatever they are."""
    declared = subject.declared
    if not isinstance(declared, Task) or declared.labels:
        raise DoesNotApply("it learns from labels")
    scene = build(subject)
    if not near(other := scene.loss(targets=scene.targets.flip(0)).item(), whole := scene.loss().item()):
        yield f"it is {whole:.6g} with some labels, and {other:.6g} with others"


@RULES.rule
def views(subject: Subject) -> Iterator[str]:
    """An objective that compares views says how many, at least 2, and its loss depends on each of them."""
    scene = build(subject)
    if not isinstance(scene.objective, Multiview):
        raise DoesNotApply("it sees one view of each item")
    if scene.objective.views < 2:
        yield f"views is {scene.objective.views}"
        return
    whole = scene.loss().item()
    for view in range(scene.objective.views):
        changed = scene.pixels.clone()
        changed[:, view] = changed[:, view].flip(0)
        if near(replace(scene, pixels=changed).loss().item(), whole):
            yield f"its loss is the same for other pixels of view {view}"


class Flat(nn.Module):
    """Normalised pixels to logits, for a graph: one layer on the mean of all pixels."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.head = nn.Linear(3, len(spec.classes))

    def forward(self, pixels: Tensor) -> Tensor:
        means = pixels.mean(dim=(-2, -1))
        logits: Tensor = self.head(means if means.ndim == 2 else means.mean(1))
        return logits


@once
def spec_of(subject: Subject) -> DataSpec:
    """What the objectives of a case are built for: where it does not say, something small with targets of the form that
    the task takes."""
    if subject.case.spec is not None:
        return subject.case.spec
    for form in DRAWN:
        spec = replace(USUAL, targets=form)
        with suppress(Exception):  # what it raises for every form is raised again where a rule builds it
            if _built(subject, spec).targets == form:
                return spec
    return USUAL


def build(subject: Subject, *, scale: float = 1.0, seed: int = SEED) -> Scene:
    """A fresh objective that has been asked once, with a network whose logits are `scale` times as large as usual."""
    spec = spec_of(subject)
    torch.manual_seed(seed)
    objective = _built(subject, spec)
    torch.manual_seed(SEED)
    network = Layer(len(spec.classes), scale)
    views = (objective.views,) if isinstance(objective, Multiview) else ()
    shape = (ITEMS, *views, *spec.item_shape)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(SEED))
    targets = target_tensor(_targets(spec), spec)
    scene = Scene(objective, network, pixels, targets, len(spec.classes), DRAWN[spec.targets])
    with suppress(Exception), torch.random.fork_rng(devices=[]):  # the rules ask again, and report what is raised
        torch.manual_seed(seed)
        scene.loss(slice(2))
    return scene


def drawn(*shape: int) -> Tensor:
    """Logits, the same each time."""
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(SEED))


def near(one: float, other: float, close: float = CLOSE) -> bool:
    """Whether two numbers differ by no more than rounding."""
    return abs(one - other) <= close * max(1.0, abs(one), abs(other))


def unlike(what: str, found: Tensor, expected: Tensor) -> Iterator[str]:
    """That `what`, by more than rounding."""
    if found.shape != expected.shape:
        yield f"{what}: {list(found.shape)}, not {list(expected.shape)}"
    elif not (difference := (found - expected).abs().max().item()) <= CLOSE:
        yield f"{what} by {difference:.2g}"


def _built(subject: Subject, spec: DataSpec) -> Objective:
    known = {
        "targets": _targets(spec),
        "network_of": lambda path: _teacher(len(spec.classes)),  # noqa: ARG005
        "feature_size": FEATURES,
    }
    given = {name: value for name, value in known.items() if subject.takes(name)}
    objective: Objective = subject.build(spec, **given)
    return objective


def _teacher(classes: int) -> nn.Module:
    """What stands for the network of any run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED + 1)
        return Layer(classes).eval().requires_grad_(False)


def _targets(spec: DataSpec) -> Targets:
    return DRAWN[spec.targets].targets(ITEMS, len(spec.classes))


def _owned(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, nn.Parameter]]:
    """Frozen parameters with the buffers of the same modules, and the trainable ones."""
    parameters = dict(module.named_parameters())
    trained = {name: one for name, one in parameters.items() if one.requires_grad}
    frozen: dict[str, Tensor] = {name: one for name, one in parameters.items() if not one.requires_grad}
    for name, inner in module.named_modules():
        held = [*inner.parameters()]
        if held and not any(one.requires_grad for one in held):
            frozen |= {f"{name}.{own}": tensor for own, tensor in inner.named_buffers()}
    return frozen, trained


def _wrong_loss(scene: Scene, found: Any) -> str | None:
    if not isinstance(found, Tensor):
        return f"it is {type(found).__name__}, not a tensor"
    if found.ndim or not found.requires_grad:
        return f"it is {list(found.shape)}, not a scalar" if found.ndim else "it has no gradient"
    if not found.isfinite():
        return f"it is {float(found)}"
    gradients = torch.autograd.grad(found, list(scene.network.parameters()), allow_unused=True)
    if all(gradient is None for gradient in gradients):
        return "its gradient does not reach the network"
    finite = all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    return None if finite else "its gradient is not finite"


def _wrong_thresholds(scene: Scene) -> str | None:
    found: Any = scene.objective.thresholds
    if scene.objective.targets != "set":
        return None if found is None else f"thresholds are {found}, where an item has no set of classes"
    if not isinstance(found, Tensor) or found.dtype != torch.float32 or found.shape != (scene.classes,):
        return f"thresholds are {found}"
    return None if ((found > 0) & (found < 1)).all() else f"thresholds are {found.tolist()}"
