"""The kinds of components: one row each, from which every other module takes what it needs to know of them."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of component."""

    word: str
    """What one of them is called in messages, in the singular."""
    hook: str
    """The hook by which plugins offer them."""
    place: str
    """Their key in a recipe."""
    several: bool = False
    """Whether that key holds an array of tables."""
    has: tuple[str, ...] = ()
    """Attributes that what a factory builds must have."""
    given: tuple[str, ...] = ()
    """Arguments of a factory, besides its first, that the core gives: a recipe cannot."""
    usual: tuple[str, ...] = ()
    """Names of what is used where a recipe names none."""
    any_case: bool = False
    """Whether a recipe may write the name in any case, as `AdamW` for `adamw`."""


KINDS = {
    kind.word: kind
    for kind in (
        Kind(
            *("dataset", "toolkit_datasets", "data"),
            has=("spec", "train", "valid", "test"),
            given=("clips", "cache_bytes"),
        ),
        Kind("model", "toolkit_models", "model", has=("forward", "parameters"), given=("examples",)),
        Kind("augmentation", "toolkit_augmentations", "augment", several=True, has=("__call__",)),
        Kind(
            *("metric", "toolkit_metrics", "metrics"),
            several=True,
            has=("update", "compute"),
            usual=("accuracy", "precision", "recall", "f1", "confusion_matrix", "log_loss", "calibration"),
        ),
        Kind(
            *("task", "toolkit_tasks", "task"),
            has=("loss", "weight", "score", "logits", "settle", "thresholds", "targets", "state_dict"),
            given=("targets", "network_of", "feature_size"),
            usual=("classification",),
        ),
        Kind("tracker", "toolkit_trackers", "trackers", several=True, has=("track", "close")),
        Kind(
            *("optimizer", "toolkit_optimizers", "train.optimizer"),
            has=("param_groups", "defaults", "step", "zero_grad", "state_dict", "load_state_dict"),
            given=("lr",),
            any_case=True,
        ),
        Kind(
            *("schedule", "toolkit_schedules", "train.schedule"),
            has=("factor", "observe", "state_dict", "load_state_dict"),
            given=("direction",),
            usual=("constant",),
        ),
    )
}
"""By the singular word, in the order in which they are listed."""
