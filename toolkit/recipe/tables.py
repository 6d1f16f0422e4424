"""The tables of a recipe, as frozen models. What a component takes besides its name is kept unchanged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)

from toolkit.api.clips import Averaged, Sampling, Short
from toolkit.api.contracts import Direction
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.plain import plain
from toolkit.system.choices import BundlePrecision, Precision, TrustScore
from toolkit.system.segmentation import Segmentation


def _not_empty(value: object) -> object:
    """An empty path would be the working folder, which nobody means who writes nothing."""
    if value == "":
        raise ValueError('must name a folder or a file, got ""; remove the key to use the default')
    return value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"has no home folder for {path.parts[0]}; write the whole path") from error


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", name):
        raise ValueError(f'no device is called "{name}" (use "auto", "cpu", "cuda" or "cuda:1")')
    return name


T = TypeVar("T")
TomlArray: TypeAlias = Annotated[tuple[T, ...], Strict(False)]
Place: TypeAlias = Annotated[Path, Strict(False), BeforeValidator(_not_empty), AfterValidator(_expanded)]

# What no machine can do is refused here, where the key is known, not in the middle of a run.
_Mean: TypeAlias = Annotated[float, Field(ge=-1000, le=1000)]
_Std: TypeAlias = Annotated[float, Field(ge=1e-6, le=1000)]
Side: TypeAlias = Annotated[int, Field(ge=8, le=8192)]
Items: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
Threads: TypeAlias = Annotated[int, Field(ge=1, le=1024)]
Frames: TypeAlias = Annotated[int, Field(ge=1, le=10_000)]
Gigabytes: TypeAlias = Annotated[float, Field(ge=0, le=1e6)]


_CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)
_OPEN = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False, defer_build=True)


class Use(BaseModel):
    """A component by name, with arguments: every further key of its table. A name alone is short for the table."""

    model_config = _OPEN
    name: Annotated[str, Field(min_length=1)]
    """Name of the component; `distribution:component` where two plugins offer one name."""

    @property
    def args(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class DataTable(Use):
    """The dataset and the folder of its files; `root` unset: the default place, else the dataset's built-in sample."""

    root: Place | None = None
    """Folder of the data; unset: `data/<name>`, and if that is empty, the dataset's built-in sample."""
    exclude: Place | None = None
    """CSV that names items to exclude, such as the `issues.csv` of `data check` once it is reviewed."""
    relabel: Place | None = None
    """CSV with the columns `item` and `label`, such as the `labels.csv` of `data check` once it is reviewed."""
    metadata: Place | None = None
    """CSV with a column `item` and others, such as `light` or `camera`: scores are given for each of their values."""
    unknown: Annotated[TomlArray[str], Field(min_length=1)] | None = None
    """Classes that the model never learns; their test items show whether it recognises what it does not know."""
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the training items to learn from, drawn by `seed`, with all classes and whole sources; unset: all."""


class PartRates(BaseModel):
    """Settings of one part of the model, such as `backbone` or `head`."""

    model_config = _CLOSED
    lr_scale: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the learning rate of this part."""


class TaskTable(Use):
    """What is learned: the loss, and how a network's outputs become answers."""

    name: Annotated[str, Field(min_length=1)] = KINDS["task"].usual[0]
    """Name of the task; `distribution:component` where two plugins offer one name."""


class OptimizerTable(Use):
    """The optimizer; `parts` scales the learning rate of named parts of the model (`backbone`, `head`)."""

    lr: Annotated[float, Field(gt=0)]
    """Learning rate, which the schedule multiplies."""
    decay_norms_and_biases: bool = True
    """Whether weight decay applies to biases and norms (parameters of one dimension) too, and to what else the model
    lists, such as positions and tokens."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor on the learning rate from each layer to the one before it, starting at the head; unset: one rate."""
    parts: dict[str, PartRates] = Field(default_factory=dict)
    """Settings of named parts of the model; models with pretrained weights have `backbone` and `head`."""


class ScheduleTable(Use):
    """How the learning rate moves after a linear warm-up."""

    name: Annotated[str, Field(min_length=1)] = KINDS["schedule"].usual[0]
    """Name of the schedule; `distribution:component` where two plugins offer one name."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs, or a part of one, in which the rate first rises from near 0."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """The same in optimizer steps; unset: `warmup_epochs`."""


class FixresTable(BaseModel):
    """Small training items, and larger ones in the last epochs (FixRes, arXiv 1906.06423)."""

    model_config = _CLOSED
    size: Side
    """Side, in pixels, of training items before the last epochs; those and evaluation see `input.size`."""
    epochs: Items = 1
    """Last epochs, which train at `input.size`."""
    layers: Annotated[int, Field(ge=0)] = 1
    """How many of the model's last layers they train with its head."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of all their steps; unset: as the schedule goes on."""


def table_of(kind: str) -> type[Use]:
    """The table of a component of this kind; its fields are keys of the core's own, the rest the component's."""
    tables: dict[str, type[Use]] = {
        "dataset": DataTable,
        "task": TaskTable,
        "optimizer": OptimizerTable,
        "schedule": ScheduleTable,
    }
    return tables.get(kind, Use)


class InputTable(BaseModel):
    """How items are decoded and kept; unset keys are the dataset's choice."""

    model_config = _CLOSED
    size: Side | None = None
    """Side, in pixels, of the square that the model sees."""
    stored: Side | None = None
    """Side, in pixels, of the square that is kept and cropped by augmentations; unset: as a `size` that is given."""
    fit: Literal["crop", "stretch"] | None = None
    """How an image becomes a square: short side resized then centre crop, or both sides resized."""
    mean: Annotated[tuple[_Mean, _Mean, _Mean], Strict(False)] | None = None
    """Mean of red, green and blue, of pixels scaled to 0..1."""
    std: Annotated[tuple[_Std, _Std, _Std], Strict(False)] | None = None
    """Standard deviations of red, green and blue, of pixels scaled to 0..1."""
    memory_gb: Gigabytes | None = None
    """Memory, in GiB, for decoded images of all splits together; unset: half of what is free."""
    cache_gb: Gigabytes = 50.0
    """Largest size, in GiB, of the cache of decoded pixels on disk."""
    workers: Threads | None = None
    """Threads that decode; unset: as many as torch computes with."""
    on_corrupt: Literal["error", "skip"] = "error"
    """What to do with an item that cannot be decoded."""
    corrupt_limit: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Largest share of a split that may be skipped."""
    damaged_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a video's frames that cannot be decoded from which on `on_corrupt` applies to it."""


class ClipTable(BaseModel):
    """How videos become clips. Its presence, or a model of clips, makes the model see clips instead of images."""

    model_config = _CLOSED
    frames: Frames | None = None
    """Frames of a clip; unset: the model's choice."""
    rate: Frames | None = None
    """Frames from one frame of a clip to the next, counted at `fps`; unset: the model's choice."""
    fps: Annotated[float, Field(gt=0, le=10_000)] = 30.0
    """Frames a second that `rate` counts, whatever a file has."""
    sampling: Sampling = "strided"
    """strided: frames `rate` apart from a random start; segments: one of each of `frames` equal parts of the video."""
    clips: Frames = 1
    """Clips of a video at evaluation, evenly spread over it."""
    crops: Literal[1, 3] = 1
    """Squares of a clip at evaluation: the centre, or both ends of the long side too."""
    average: Averaged = "probabilities"
    """What is averaged over clips and crops."""
    short: Short = "loop"
    """How a video shorter than the clip goes on: from its first frame again, or with its last one held."""
    clips_per_video: Frames = 1
    """Training clips drawn from a video each time it is opened."""


class TrainTable(BaseModel):
    """How the model is trained."""

    model_config = _CLOSED
    epochs: Items
    """Passes over the training split."""
    batch: Items | Literal["auto"]
    """Items of one optimizer step; the last, smaller batch of an epoch is skipped. `auto`: the largest that fits."""
    eval_batch: Items | None = None
    """Items of one batch in evaluation (of videos: views); unset: as `batch`."""
    device: Annotated[str, AfterValidator(_device)] = "auto"
    """`auto` (the first CUDA device, else the CPU), `cpu`, `cuda` or `cuda:1`."""
    threads: Threads | None = None
    """CPU threads that compute; unset: torch's own choice, one per core. Another number rounds differently."""
    precision: Literal["auto", Precision] = "auto"
    """Arithmetic of the forward and backward pass (mixed precision)."""
    channels_last: bool = True
    """Memory layout of images and convolutions."""
    compile: bool = False
    """Compile the network with `torch.compile`."""
    accumulate: Items = 1
    """Parts into which a batch is cut, one after the other, to save memory (gradient accumulation)."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of all gradients together (gradient clipping); unset: no limit."""
    batch_norm: Literal["global", "local"] = "global"
    """Whose mean and variance batch norm uses on several ranks: the whole batch's, or those of each rank's share."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """What each of several ranks keeps: all weights (ddp), or its part of weights, gradients and the optimizer's state
    (fsdp)."""
    rank_timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds after which a rank that does not answer is lost."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay, at each step, of averaged weights, which are then evaluated and kept; unset: no average."""
    trained_layers: Annotated[int, Field(ge=0)] | None = None
    """How many of the model's last layers are trained with its head; the others are frozen. Unset: all are trained."""
    thaw_every: Annotated[int, Field(ge=1)] | None = None
    """Epochs after which one more of the frozen layers is trained (gradual unfreezing); unset: never."""
    fixres: FixresTable | None = None
    """Small training items first, larger ones in the last epochs; unset: one size."""
    feature_views: Annotated[int, Field(ge=0)] | None = None
    """Augmented views of each item of which a frozen backbone computes the features once, for all epochs. 0: features
    are computed in each step. Unset: one view where nothing augments images, else 0."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better score before training stops (early stopping); unset: never."""
    metric: Annotated[str, Field(min_length=1)] = "accuracy"
    """Validation score that decides which epoch is best: a number that a metric gives, or `loss`."""
    direction: Direction = "maximize"
    """Which scores are better."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Longest time between two checkpoints within an epoch."""
    deterministic: bool = False
    """Refuse operations that may give other results on the next try."""
    optimizer: OptimizerTable
    """The optimizer and its learning rate."""
    schedule: ScheduleTable = ScheduleTable()
    """The learning-rate schedule."""

    @property
    def batch_size(self) -> int:
        """`batch` as a number, which a run chooses before it builds anything."""
        if self.batch == "auto":
            raise AssertionError("train.batch is auto: toolkit.build.batch_size chooses a number first")
        return self.batch


class Limits(BaseModel):
    """How far a model exported in one precision may be from the trained one on the validation split."""

    model_config = _CLOSED
    max_difference: Annotated[float, Field(ge=0, le=1)] = 1e-4
    """Largest difference of a probability; of a number in standard deviations of the training targets."""
    tie: Annotated[float, Field(ge=0, le=1)] = 0.02
    """A prediction that flips is a tie if the numerical difference that was measured explains it, and its two classes
    are this close. So is a set of classes where each class that comes or goes is this close to its threshold."""
    max_drop: Annotated[float, Field(ge=0)] = 0.5
    """Points (hundredths) by which `train.metric` may be worse, if that is more than chance; of numbers, hundredths of
    the standard deviation of the training targets."""
    max_flips: Annotated[int, Field(ge=0)] | None = 0
    """Predictions that may flip, ties not counted."""


LIMITS = {"fp32": Limits(), "fp16": Limits(max_difference=0.02), "int8": Limits(max_difference=1.0, max_flips=None)}
"""What is usual for each precision: int8 is judged by its score, which is what its speed is paid with."""


class RejectTable(BaseModel):
    """When the model declines to answer: below a score that validation chooses."""

    model_config = _CLOSED
    rate: Annotated[float, Field(gt=0, lt=1)]
    """Largest share of right answers that may be declined."""
    score: TrustScore = "confidence"
    """What is compared: the confidence (the probability of the likeliest class), the energy of the logits, or the
    similarity of the features to those of a class, added to the confidence."""


class ConformalTable(BaseModel):
    """Sets of classes that hold the truth as often as asked for."""

    model_config = _CLOSED
    error: Annotated[float, Field(gt=0, lt=1)]
    """Largest share of items whose set lacks the truth."""


USUAL = Segmentation()


class SegmentsTable(BaseModel):
    """How a bundle finds events in long videos with `predict --segments`."""

    model_config = _CLOSED
    smooth: Annotated[float, Field(ge=0, le=3600)] = USUAL.smooth
    """Seconds over which answers are averaged."""
    high: Annotated[float, Field(gt=0, le=1)] = USUAL.high
    """Probability that an event reaches; for label sets, the threshold of the class takes its place."""
    low: Annotated[float, Field(gt=0, le=1)] = USUAL.low
    """Probability at which an event begins and ends."""
    shortest: Annotated[float, Field(ge=0, le=3600)] = USUAL.shortest
    """Seconds of the shortest event."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low: must be at most high ({self.high:g}), got {self.low:g}")
        return self


class ExportTable(BaseModel):
    """What is exported, and how exact it must be."""

    model_config = _CLOSED
    precision: Literal["auto", BundlePrecision] | Annotated[TomlArray[BundlePrecision], Field(min_length=1)] = "fp32"
    """One or several; a bundle uses the first by default. `auto`: int8 but for the layers that cost accuracy, if that
    is faster than fp32 on this machine, else fp32."""
    maps: bool = False
    """Let the graph give a heat map of each class (Grad-CAM) too; the layers behind the feature maps must be linear."""
    license: Annotated[str, Field(min_length=1)] = "unknown"
    """The licence of the weights on the model card, as model hubs name it: `apache-2.0`, `mit`, `cc-by-nc-4.0`."""
    calibration: Items = 128
    """Training items that int8 takes the ranges of values from."""
    calibrate: bool = False
    """Divide logits by a temperature that validation chooses, so that probabilities say how often answers are right."""
    reject: RejectTable | None = None
    """When the model declines to answer; unset: never."""
    conformal: ConformalTable | None = None
    """Sets of classes that hold the truth as often as asked for; unset: none."""
    segments: SegmentsTable = SegmentsTable()
    """How `predict --segments` finds events."""
    fp32: Limits = LIMITS["fp32"]
    """Limits of fp32."""
    fp16: Limits = LIMITS["fp16"]
    """Limits of fp16."""
    int8: Limits = LIMITS["int8"]
    """Limits of int8."""

    @field_validator(*LIMITS, mode="before")
    @classmethod
    def _rest_as_usual(cls, given: Any, info: ValidationInfo) -> Any:
        """A table that gives one limit leaves the others as they are for this precision."""
        usual = LIMITS[info.field_name or ""].model_dump()
        return {**usual, **given} if isinstance(given, Mapping) else given

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that are written whatever is found; none for `auto`."""
        if self.precision == "auto":
            return ()
        return (self.precision,) if isinstance(self.precision, str) else tuple(dict.fromkeys(self.precision))


class SamplerTable(Use):
    """Which sampler of Optuna proposes a trial's values; further keys are its arguments."""

    name: Annotated[str, Field(min_length=1)]
    """`tpe`, `gp`, `cmaes`, `random`, `grid`, `nsga2` or a class of `optuna.samplers`."""


class PrunerTable(Use):
    """Which pruner of Optuna ends a trial early; further keys are its arguments."""

    name: Annotated[str, Field(min_length=1)]
    """`hyperband`, `asha`, `median`, `wilcoxon`, `none` or a class of `optuna.pruners`."""


class TuneTable(BaseModel):
    """How a study looks for better values of the recipe's keys. Says nothing of what one run computes."""

    model_config = _CLOSED
    trials: Annotated[int, Field(ge=1)]
    """Trials that must be finished or pruned; failed ones are not counted."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which a worker begins no further trial; unset: never."""
    metric: Annotated[str, Field(min_length=1)] | None = None
    """Score on the validation split, of a trial's best epoch; unset: `train.metric`."""
    direction: Direction | None = None
    """Which scores are better; unset: `train.direction`, where the metric is `train.metric`."""
    metrics: TomlArray[str] = ()
    """Several scores, each with its own of `directions`, in place of one; no trial is pruned then."""
    directions: TomlArray[Direction] = ()
    """Which scores are better, one for each of `metrics`."""
    sampler: SamplerTable = SamplerTable(name="tpe")
    """What proposes values: `tpe`, `gp`, `cmaes`, `random`, `grid`, `nsga2` or a class of `optuna.samplers`."""
    pruner: PrunerTable = PrunerTable(name="hyperband")
    """What ends poor trials early: `hyperband`, `asha`, `median`, `wilcoxon`, `none` or a class of `optuna.pruners`."""
    seeds_per_trial: Annotated[int, Field(ge=1, le=1000)] = 1
    """Runs of a trial, with the recipe's seed and those that follow it; its score is their mean."""
    max_failures: Annotated[int, Field(ge=1)] = 5
    """Failed trials that end the study."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe, each with a value that all trials have in place of the recipe's own."""
    space: dict[str, Any]
    """Keys of the recipe, each with a range (`low`, `high`) or `choices`."""


class Recipe(BaseModel):
    """A valid recipe. `name` is that of its file."""

    model_config = _CLOSED
    name: Annotated[str, Field(exclude=True)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Start of every random draw of training: initial weights, order, augmentation, dropout."""
    data: DataTable
    """The dataset and where its files are."""
    input: InputTable = InputTable()
    """How items are decoded and kept."""
    clip: ClipTable | None = None
    """How videos become clips; with it the model sees clips instead of images."""
    model: Use
    """The model."""
    task: TaskTable = TaskTable()
    """What is learned: the loss, and how logits become answers."""
    augment: TomlArray[Use] = ()
    """Augmentations of training batches, in this order."""
    metrics: TomlArray[Use] = tuple(Use(name=name) for name in KINDS["metric"].usual)
    """What is computed on the validation and test splits."""
    trackers: TomlArray[Use] = ()
    """What else logs the run's progress, such as TensorBoard or MLflow."""
    train: TrainTable
    """How the model is trained."""
    export: ExportTable = ExportTable()
    """What is exported, and how exact it must be."""
    tune: TuneTable | None = None
    """Which keys a study tries other values of, and how."""

    def tables(self) -> dict[str, Any]:
        """Everything but the name as plain TOML values; keys that are None are omitted."""
        return {key: plain(value) for key, value in self.model_dump(exclude_none=True).items()}

    def replace(self, tables: Mapping[str, Any]) -> Self:
        """This recipe's name with other tables; they must be valid."""
        return type(self).model_validate({**tables, "name": self.name})
