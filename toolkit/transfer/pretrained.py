"""Where the weights of a model come from: random, published, a file or a run; and whether its backbone is frozen.

A factory with the arguments `weights`, `freeze`, `thaw_epoch` and `licences` needs three lines for them:

    start = Transfer(weights, freeze, thaw_epoch, licences).start(PUBLISHED, spec, "my_model")
    start.load(backbone, ignore=("fc.",))
    return start.classifier(backbone, head)

`PUBLISHED` is a `Published` where a publisher has the weights at an address, or anything else that is `Pretrained`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias

from pydantic import Field
from torch import nn

from toolkit.api.contracts import DataSpec, Provenance
from toolkit.api.errors import WeightsError, nearest, setting
from toolkit.transfer.classifier import Classifier
from toolkit.transfer.files import read_content, state_dict_of
from toolkit.transfer.hub import Repository
from toolkit.transfer.licences import check_licence
from toolkit.transfer.published import UnreachableError
from toolkit.transfer.trained import trained_run, weights_at
from toolkit.transfer.weights import INTERPOLATED, NOTHING, Known, Weights, load_weights

ThawEpoch: TypeAlias = Annotated[
    int, Field(ge=1), "the epoch, counted from 0, from which a frozen backbone is trained too; unset: never."
]
"""Type of an argument `thaw_epoch`, and what it means where a docstring does not say it."""
Dropout: TypeAlias = Annotated[
    float, Field(ge=0, lt=1), "share of features zeroed before the last fully connected layer."
]
"""Type of an argument `dropout`."""
DropPath: TypeAlias = Annotated[
    float,
    Field(ge=0, lt=1),
    "greatest probability with which a residual branch is dropped (arXiv 1603.09382); unset: as published.",
]
"""Type of an argument `drop_path`."""
Hidden: TypeAlias = Annotated[
    int,
    Field(ge=1),
    "width of a hidden fully connected layer with batch norm and ReLU in the head; unset: none.",
]
"""Type of an argument `hidden`, a number of units."""

HUB = "hub:"
"""Before the name of a repository of the Hugging Face Hub, where other weights are a path."""
TIMEOUT = 10.0
SAMPLE_TIMEOUT = 3.0
"""Seconds to wait for the server: a run on the sample continues without the weights, so it waits less."""


class Pretrained(Protocol):
    """Weights that a recipe can name by a word."""

    @property
    def word(self) -> str:
        """What a recipe writes: `imagenet`, say."""

    @property
    def title(self) -> str:
        """Their name on screen: "ImageNet weights", say."""

    @property
    def licence(self) -> str | None:
        """As model hubs name it, known before they are fetched; None for the user's own. Raises UnreachableError where
        a server has to say it and cannot be reached."""

    @property
    def provenance(self) -> Provenance | None:
        """Where they came from, None for the user's own: asked for once they are fetched."""

    def fetch(self, timeout: float) -> Weights:
        """The weights. Waits at most `timeout` seconds for each answer of a server. Raises UnreachableError where the
        weights are not on this machine and the server cannot be reached, WeightsError where they are damaged."""


@dataclass(frozen=True)
class Transfer:
    """The arguments that say where a backbone's weights come from and whether they are trained.

    Raises ValueError for a `thaw_epoch` without `freeze`.
    """

    weights: str = "none"
    """`none`, the word of the pretrained weights, `hub:ORGANISATION/NAME` or `hub:ORGANISATION/NAME@REVISION` of the
    Hugging Face Hub, or the path of a weights file, a run or a bundle."""
    freeze: bool = False
    """Whether the head alone is trained."""
    thaw_epoch: int | None = None
    """The epoch, counted from 0, from which a frozen backbone is trained too; None: never."""
    licences: Sequence[str] | None = None
    """The licences that published weights may have; None: those of `toolkit.transfer.licences.FREE`."""

    def __post_init__(self) -> None:
        if self.thaw_epoch is not None and not self.freeze:
            raise ValueError("thaw_epoch: needs freeze = true")

    def start(self, pretrained: Pretrained | None, spec: DataSpec, name: str, known: Known = NOTHING) -> Start:
        """Get these weights. A run on the built-in sample continues without pretrained ones that cannot be downloaded,
        and then freezes nothing.

        pretrained: None where nobody publishes any.
        name: of the model, for messages.
        known: what the plugin knows of files with other names, and of files that do not fit.

        Raises:
            LicenceError: `licences` does not have that of the weights, of which nothing was fetched.
            WeightsError: the weights cannot be downloaded or read.
        """
        if self.weights == "none":
            chosen = f'= "{pretrained.word}" or a path' if pretrained else "to a run or a weights file"
            kept = f"the backbone is frozen at random weights: set model.weights {chosen}"
            return Start(None, "", self.freeze, self.thaw_epoch, (kept,) if self.freeze else ())
        if self.weights.startswith(HUB):
            pretrained = Repository.named(self.weights.removeprefix(HUB))
        elif pretrained is None or self.weights != pretrained.word:
            if pretrained is None and self.weights.isidentifier() and not Path(self.weights).exists():
                raise WeightsError(
                    f'model.weights = "{self.weights}": nobody publishes weights of {name}',
                    next_step=f"start from random weights: {setting('model.weights', 'none')}",
                )
            path, content = self._from_file(() if pretrained is None else (pretrained.word,))
            start = Start(None, f"{self.weights} for {name}", self.freeze, self.thaw_epoch, known=known)
            if run := trained_run(content, path):
                return replace(start, run=partial(run.load_into, name=name, classes=spec.classes, known=known))
            return replace(start, weights=state_dict_of(content, path), path=path)
        title = f"{pretrained.title} of {name}"
        try:
            if licence := pretrained.licence:
                check_licence(licence, self.licences, title)
            weights = pretrained.fetch(SAMPLE_TIMEOUT if spec.sample else TIMEOUT)
            found = pretrained.provenance
        except UnreachableError:
            if not spec.sample:
                raise
            kept = "; the backbone is not frozen" if self.freeze else ""
            note = f"{pretrained.title} could not be downloaded: starting from random weights (sample run){kept}"
            return Start(None, "", freeze=False, notes=(note,))
        source = replace(found, title=title) if found else None
        notes = (f"starting from {source or title}",)
        return Start(weights, title, self.freeze, self.thaw_epoch, notes, known=known, provenance=source)

    def _from_file(self, words: Sequence[str]) -> tuple[Path, Any]:
        try:
            path = Path(self.weights).expanduser()
        except RuntimeError as error:  # ~name of an unknown user
            raise WeightsError(f"{self.weights}: {error}", next_step="write the whole path") from error
        meant = nearest(self.weights, ("none", *words))
        if meant and not path.exists():
            raise WeightsError(f"{self.weights}: no such weights file", next_step=f'did you mean weights = "{meant}"?')
        path = weights_at(path)
        return path, read_content(path)


@dataclass(frozen=True)
class Start:
    """The weights that a model starts from, and whether its backbone is frozen."""

    weights: Weights | None
    """None: random ones."""
    source: str
    """Where the weights come from, for messages."""
    freeze: bool = False
    thaw_epoch: int | None = None
    notes: tuple[str, ...] = ()
    """What a user must know: weights that could not be downloaded, a backbone frozen at random weights."""
    run: Callable[[Classifier], str] | None = None
    """Loads the weights of a run into the whole model, and returns a note on what it took."""
    path: Path | None = None
    """The user's own file that the weights come from."""
    known: Known = NOTHING
    provenance: Provenance | None = None
    """Of published weights."""
    _taken: list[str] = field(default_factory=list)
    """Notes on what was taken from the user's own file, and on positions that were interpolated."""

    def load(self, module: nn.Module, *, ignore: Sequence[str] = ()) -> None:
        """Copy the weights into `module`, all or nothing; without weights, the module stays as it is.

        ignore: prefixes of names left alone, both in the weights and in `module`: of the last layer, say.

        Raises:
            WeightsError: lists every missing, unexpected and mis-shaped name; the module is then unchanged.
        """
        if self.weights is None:
            return
        changes = load_weights(module, self.weights, ignore=ignore, source=self.source, known=self.known)
        if self.path:
            self._taken.append("; ".join([f"starting from the weights of {self.path}", *changes]))
        else:
            self._taken.extend(change for change in changes if change.startswith(INTERPOLATED))

    def classifier(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        notes: Sequence[str] = (),
        layers: Sequence[Sequence[str]] | None = None,
        undecayed: Iterable[str] | None = None,
    ) -> Classifier:
        """The two parts as one model, frozen as requested. `notes` are added to its own; `layers` and `undecayed` are
        those of `Classifier`."""
        model = Classifier(
            backbone,
            head,
            freeze=self.freeze,
            thaw_epoch=self.thaw_epoch,
            layers=layers,
            undecayed=undecayed,
        )
        taken = (self.run(model),) if self.run else ()
        model.provenance = self.provenance
        model.notes = (*self.notes, *self._taken, *taken, *notes)
        return model
