"""The rules of models."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec, Grouped, Headed, InputDesign, Layered, Model, Noted, Staged, Undecayed
from toolkit.api.errors import ToolkitError, counted
from toolkit.kit.testing.case import Subject, once
from toolkit.kit.testing.rulebook import DoesNotApply, Rulebook
from toolkit.kit.testing.side_effects import GlobalStates

RULES = Rulebook("model")

CLASSES = ("first", "second", "third")
SMALL, USUAL = 64, 224
"""Sides, in pixels, that are tried in turn where the case does not say what a model is built for."""
SEED = 20_260_101
LATE = 1_000_000
"""An epoch by which every layer has thawed."""
CLOSE = 1e-4
"""Largest difference that reordered sums make, as a share of the largest logit."""
BF16_CLOSE = 0.1
"""As `CLOSE`, for numbers of eight significant bits through many layers."""
BY_MODE = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU, nn.MultiheadAttention)
NAMED_BY_MODE = ("drop", "norm", "stochastic")
"""In the names of classes that may answer otherwise in training."""
IN = {True: "in training", False: "in evaluation"}


@RULES.rule
def logits(subject: Subject) -> Iterator[str]:
    """A batch of any size, in training (from 2 items) and in evaluation, gives finite floating-point logits [B, C]."""
    model, spec = build(subject), spec_of(subject)
    for training, batch in ((False, 1), (False, 2), (False, 3), (True, 2), (True, 3)):
        answers = run(model.train(training), inputs(spec, batch))
        if wrong := _wrong_logits(answers, (batch, len(spec.classes))):
            yield f"{wrong} for {counted(batch, 'item')} {IN[training]}"


@RULES.rule
def unnormalised(subject: Subject) -> Iterator[str]:
    """What a model gives are logits, in training and in evaluation: the loss makes probabilities of them."""
    model, spec = build(subject), spec_of(subject)
    for training in (False, True):
        answers = run(model.train(training), inputs(spec, 4)).float()
        if (answers >= 0).all() and torch.allclose(answers.sum(dim=1), torch.ones(4), atol=1e-3):
            yield f"{IN[training]} every row sums to 1: these are probabilities"


@RULES.rule
def classes(subject: Subject) -> Iterator[str]:
    """There is one logit for each class of the data, whatever their number."""
    for count in (2, 7):
        spec = replace(spec_of(subject), classes=tuple(f"class {number}" for number in range(count)))
        answers = run(build(subject, spec).eval(), inputs(spec, 2))
        if answers.shape[1:] != (count,):
            yield f"{list(answers.shape)} for 2 items of {count} classes"


@RULES.rule
def sizes(subject: Subject) -> Iterator[str]:
    """A model that is built for data of another size works with it, or says at once that it cannot."""
    spec = spec_of(subject)
    others = [replace(spec, size=side, stored=None) for side in (spec.size + 32, spec.size - 3)]
    if spec.clip is not None:
        others.append(replace(spec, clip=replace(spec.clip, frames=2 * spec.clip.frames)))
    for other in others:
        try:
            model = build(subject, other)
        except (ToolkitError, ValueError):
            continue
        if wrong := _wrong_logits(run(model.eval(), inputs(other, 2)), (2, len(spec.classes))):
            frames = "" if other.frames is None else f"{other.frames} frames of "
            yield f"{wrong} where it is built for {frames}{other.size} px"


@RULES.rule
def gradients(subject: Subject) -> Iterator[str]:
    """The gradient of the loss is finite and reaches every trainable parameter, once all that thaws has thawed."""
    model, spec = build(subject).train(), spec_of(subject)
    if isinstance(model, Staged):
        model.begin_epoch(LATE)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trainable:
        yield "no parameter is trainable"
        return
    targets = torch.arange(4) % len(spec.classes)
    functional.cross_entropy(model(inputs(spec, 4)).float(), targets).backward()
    for name, parameter in trainable.items():
        if parameter.grad is None:
            yield f"{name} gets no gradient"
        elif not parameter.grad.isfinite().all():
            yield f"the gradient of {name} is not finite"


@RULES.rule
def modes(subject: Subject) -> Iterator[str]:
    """Training and evaluation differ only by modules that drop, draw or normalise."""
    model, pixels = build(subject), inputs(spec_of(subject), 3)
    expected = run(model.eval(), pixels)
    model.train()
    for module in model.modules():
        name = type(module).__name__.lower()
        if isinstance(module, BY_MODE) or any(word in name for word in NAMED_BY_MODE):
            module.training = False
    found, other = (run(model, pixels, seed=SEED + number) for number in (0, 1))
    if apart(found, other) > CLOSE:
        return  # it draws by itself, so the difference says nothing
    yield from differing("with these in evaluation, logits still differ", found, expected)


@RULES.rule
def items(subject: Subject) -> Iterator[str]:
    """In evaluation an item's answer does not depend on the other items of its batch."""
    model, pixels = evaluating(subject), inputs(spec_of(subject), 3)
    together = run(model, pixels)
    alone = torch.cat([run(model, pixels[item : item + 1]) for item in range(3)])
    yield from differing("alone and in a batch of 3, logits differ", alone, together)


@RULES.rule
def state(subject: Subject) -> Iterator[str]:
    """The state dict holds all that training changes: loaded into a fresh model, it gives the same answers."""
    first, spec = build(subject), spec_of(subject)
    run(first.train(), inputs(spec, 4))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    second = build(subject, seed=SEED + 1, bare=True)
    second.load_state_dict(first.state_dict())
    found, expected = (run(model.eval(), inputs(spec, 2)) for model in (first, second))
    yield from differing("after load_state_dict, logits differ", found, expected)


@RULES.rule
def copies(subject: Subject) -> Iterator[str]:
    """A deep copy answers alike and shares nothing that training changes: averages of weights are kept in one."""
    model = evaluating(subject)
    twin = copy.deepcopy(model)
    if apart(run(twin, inputs(spec_of(subject), 2)), answers_of_two(subject)) > CLOSE:
        yield "the copy gives other logits"
    own = {value.data_ptr() for value in model.state_dict().values() if value.numel()}
    if shared := [name for name, value in twin.state_dict().items() if value.numel() and value.data_ptr() in own]:
        yield f"the copy shares {shared[0]} with the model"


@RULES.rule
def seeds(subject: Subject) -> Iterator[str]:
    """The same seed of torch gives the same weights, and no global seed is set: draws come from torch's generator."""
    spec, first = spec_of(subject), unused(subject).state_dict()
    torch.manual_seed(SEED)
    before = GlobalStates.now()
    model = _built(subject, spec)
    second = model.state_dict()
    if changed := [name for name, value in first.items() if not torch.equal(value, second[name])]:
        yield f"two models built with one seed differ in {changed[0]}"
    run(model.train(), inputs(spec, 2), seed=None)
    if torch.initial_seed() != SEED:
        yield "torch's global generator was seeded"
    others = (whose for whose in before.used() if whose != "torch's")
    yield from (f"{whose} global generator was used or seeded" for whose in others)


@RULES.rule
def untouched(subject: Subject) -> Iterator[str]:
    """A model leaves the batch it is given as it was."""
    model, pixels = build(subject), inputs(spec_of(subject), 2)
    before = pixels.clone()
    for training in (False, True):
        run(model.train(training), pixels)
        if not torch.equal(pixels, before):
            yield f"the batch was changed {IN[training]}"
            return


@RULES.rule
def moves(subject: Subject) -> Iterator[str]:
    """Every tensor a module keeps is a parameter or a buffer, so that it moves to a device with the model."""
    for name, module in unused(subject).named_modules():
        if own := [key for key, value in vars(module).items() if isinstance(value, Tensor)]:
            yield f"{'.'.join(filter(None, (name, own[0])))} is a plain tensor"


@RULES.rule
def bf16(subject: Subject) -> Iterator[str]:
    """Under autocast to bfloat16 the logits are finite and near those of float32."""
    with torch.autocast("cpu", torch.bfloat16):
        found = run(evaluating(subject), inputs(spec_of(subject), 2)).float()
    if not found.isfinite().all():
        yield "logits are not finite"
    else:
        yield from differing("logits differ", found, answers_of_two(subject), BF16_CLOSE)


@RULES.rule
def channels_last(subject: Subject) -> Iterator[str]:
    """Batches and weights whose channels lie innermost in memory, as the core lays them out, give the same logits."""
    model, spec = build(subject).eval(), spec_of(subject)
    pixels = inputs(spec, 2)
    expected = run(model, pixels)
    if spec.clip is None:
        model = model.to(memory_format=torch.channels_last)
    yield from differing("logits differ", run(model, pixels.movedim(-3, -1).contiguous().movedim(-1, -3)), expected)


@RULES.slow_rule
def onnx(subject: Subject) -> Iterator[str]:
    """The model exports to ONNX with a dynamic batch, and the graph answers batches of 1 and of 3 as the model does."""
    import onnxruntime

    from toolkit.data.store.resampling import centre_crop
    from toolkit.export.graph import Deployed, quiet, to_onnx
    from toolkit.serving.bundle.manifest import INPUT, OUTPUTS
    from toolkit.training.network import Network

    spec = spec_of(subject)
    network = Network(build(subject), spec).eval()

    def logits(outputs: Tensor) -> Tensor:
        return outputs

    graph = to_onnx(network, logits, spec, {})
    with quiet():
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        raw = (*inputs(spec, batch).shape[:-3], spec.stored_size, spec.stored_size, 3)
        frames = torch.randint(0, 256, raw, dtype=torch.uint8, generator=torch.Generator().manual_seed(SEED))
        with torch.no_grad():
            squares = centre_crop(frames.movedim(-1, -3), spec.size)
            (expected,) = Deployed(network, logits, spec).eval()(squares)
        found = torch.from_numpy(session.run([OUTPUTS[spec.targets]], {INPUT: frames.numpy()})[0])
        if found.shape != expected.shape:
            yield f"the graph gives {list(found.shape)} for a batch of {batch}"
        elif (difference := float((found - expected).abs().max())) > CLOSE:
            yield f"for a batch of {batch}, probabilities differ by {difference:.2g}"


@RULES.rule
def parts(subject: Subject) -> Iterator[str]:
    """`parts()`, where a model has it, gives disjoint submodules that together hold every parameter."""
    model: nn.Module = unused(subject)
    if not isinstance(model, Grouped):
        raise DoesNotApply("the model names no parts")
    held = [id(parameter) for part in model.parts().values() for parameter in part.parameters()]
    if len(set(held)) < len(held):
        yield "a parameter is in two parts"
    if absent := [name for name, parameter in model.named_parameters() if id(parameter) not in set(held)]:
        yield f"{absent[0]} is in no part"


@RULES.rule
def features(subject: Subject) -> Iterator[str]:
    """`answer(features(pixels))`, where a model has both, is what it returns; its parts are `backbone` and `head`."""
    model: nn.Module = evaluating(subject)
    if not isinstance(model, Headed):
        raise DoesNotApply("the model has no features and answer")
    if set(model.parts()) != {"backbone", "head"}:
        yield f"parts are {', '.join(model.parts())}"
    with torch.no_grad():
        answers = model.answer(model.features(inputs(spec_of(subject), 2)))
    yield from differing("by features and at once, logits differ", answers, answers_of_two(subject))


@RULES.rule
def layers(subject: Subject) -> Iterator[str]:
    """`layers()` and `no_weight_decay()`, where a model has them, name parameters that exist, each in one layer."""
    model: nn.Module = unused(subject)
    if not isinstance(model, Layered | Undecayed):
        raise DoesNotApply("the model names no layers")
    names = [name for name, _ in model.named_parameters()]
    if isinstance(model, Layered):
        for prefix in (prefix for layer in model.layers() for prefix in layer):
            if not any(_below(name, prefix) for name in names):
                yield f'no parameter is below "{prefix}"'
        for name in names:
            if sum(_below(name, prefix) for layer in model.layers() for prefix in layer) > 1:
                yield f"{name} is in two layers"
    if isinstance(model, Undecayed) and (unknown := sorted(set(model.no_weight_decay()) - set(names))):
        yield f'no parameter is called "{unknown[0]}"'


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


@RULES.rule
def epochs(subject: Subject) -> Iterator[str]:
    """`begin_epoch`, where a model has it, may be called again with the same number and leaves the same trainable."""
    model = build(subject)
    if not isinstance(model, Staged):
        raise DoesNotApply("the model has no begin_epoch")
    for epoch in range(3):
        model.begin_epoch(epoch)
        once = _trainable(model)
        model.begin_epoch(epoch)
        if _trainable(model) != once:
            yield f"begin_epoch({epoch}) called twice makes other parameters trainable"


@RULES.rule
def notes(subject: Subject) -> Iterator[str]:
    """`notes`, where a model has it, is a sequence of texts."""
    model: nn.Module = unused(subject)
    if not isinstance(model, Noted):
        raise DoesNotApply("the model has no notes")
    if isinstance(model.notes, str) or not all(isinstance(note, str) and note for note in model.notes):
        yield f"notes is {model.notes!r}"


@RULES.rule
def takes(subject: Subject) -> Iterator[str]:
    """`takes`, where a `Model` has it, is or returns an `InputDesign` of positive numbers, `stored` at least `size`; it
    has both `frames` and `rate`, or neither."""
    design = _takes(subject)
    if design is None:
        raise DoesNotApply("the model does not say what it was designed for")
    if not isinstance(design, InputDesign):
        yield f"takes is {type(design).__name__}"
        return
    clip = [] if design.frames is design.rate is None else [design.frames or 0, design.rate or 0]
    if min(*clip, design.size, *design.std) <= 0 or design.stored < design.size:
        yield f"takes is {design}"


def _takes(subject: Subject) -> Any:
    """What the model was designed for, with the case's arguments; of a function, what it returns for them."""
    declared = subject.declared
    if not isinstance(declared, Model) or not isinstance(declared.takes, str):
        return declared.takes if isinstance(declared, Model) else None
    return pkgutil.resolve_name(declared.takes)(**subject.args)


@once
def spec_of(subject: Subject) -> DataSpec:
    """What the models of a case are built for: where it does not say, the smallest of a few specs that the model takes;
    the smallest of all where it takes none."""
    if subject.case.spec is not None:
        return subject.case.spec
    design = _takes(subject)
    if isinstance(design, InputDesign) and design.frames and design.rate:
        clip = Clip(design.frames, design.rate)
        tried = [DataSpec(CLASSES, size=size, clip=clip) for size in (SMALL, design.size)]
    else:
        usual = design.size if isinstance(design, InputDesign) else USUAL
        tried = [DataSpec(CLASSES, size=size) for size in (SMALL, usual)]
    for spec in tried:
        try:
            run(_built(subject, spec).eval(), inputs(spec, 2))
        except Exception:  # noqa: S112 - a rule shows what it raises for the first of them
            continue
        return spec
    return tried[0]


def build(subject: Subject, spec: DataSpec | None = None, *, seed: int = SEED, bare: bool = False) -> nn.Module:
    """A fresh model. `bare`: as the core asks for one whose weights will be loaded."""
    torch.manual_seed(seed)
    return _built(subject, spec or spec_of(subject), bare=bare)


@once
def unused(subject: Subject) -> nn.Module:
    """A model that no rule runs or changes: what is only looked at."""
    return build(subject)


@once
def evaluating(subject: Subject) -> nn.Module:
    """A model in evaluation mode that rules run and leave so."""
    return build(subject).eval()


@once
def answers_of_two(subject: Subject) -> Tensor:
    """What it answers for two items, in evaluation: float `[2, C]`."""
    return run(evaluating(subject), inputs(spec_of(subject), 2))


def _built(subject: Subject, spec: DataSpec, *, bare: bool = False) -> nn.Module:
    others = {"weights": "none"} if bare and "weights" in subject.args else {}
    model = subject.build(spec, **others)
    if not isinstance(model, nn.Module):
        raise TypeError(f"the factory made {type(model).__name__}, not a torch.nn.Module")
    return model


def inputs(spec: DataSpec, batch: int) -> Tensor:
    """A normalised batch, float32 `[B, 3, S, S]` or `[B, T, 3, S, S]`, the same each time."""
    return torch.randn((batch, *spec.item_shape), generator=torch.Generator().manual_seed(SEED))


def run(model: nn.Module, pixels: Tensor, *, seed: int | None = SEED) -> Tensor:
    """The model's answers `[B, C]` to normalised pixels, without gradients; what it draws comes from `seed`. Raises
    TypeError where it gives no tensor."""
    if seed is not None:
        torch.manual_seed(seed)
    with torch.no_grad():
        answers = model(pixels)
    if not isinstance(answers, Tensor):
        raise TypeError(f"the model gave {type(answers).__name__}, not a tensor")
    return answers


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest number expected; infinite for other shapes and NaN."""
    if found.shape != expected.shape:
        return float("inf")
    difference = (found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-6)
    return float(difference.nan_to_num(nan=float("inf")))


def differing(what: str, found: Tensor, expected: Tensor, close: float = CLOSE) -> Iterator[str]:
    """That `what` differ, by more than rounding."""
    if (difference := apart(found, expected)) > close:
        yield f"{what} by {difference:.2g} of the largest"


def _wrong_logits(answers: Tensor, shape: tuple[int, int]) -> str | None:
    if answers.shape != shape:
        return f"the model gave {list(answers.shape)}, not {list(shape)},"
    if not answers.is_floating_point():
        return f"logits are {str(answers.dtype).removeprefix('torch.')}"
    return None if answers.isfinite().all() else "logits are not finite"


def _trainable(model: nn.Module) -> list[tuple[str, bool]]:
    return [
        *((name, parameter.requires_grad) for name, parameter in model.named_parameters()),
        *((name, module.training) for name, module in model.named_modules()),
    ]
