"""By a vision learner of fastai."""

from __future__ import annotations

from functools import partial

from fastai.callback.tracker import SaveModelCallback
from fastai.data.transforms import Normalize
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from fastai.vision.augment import Flip, RandomResizedCrop
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import vision_learner
from torchvision.models import resnet18

from bench.peers.setting import BATCH, DECAY, MEAN, MOMENTUM, RATE, SCALE, SIDE, STD, WORKERS, Setting


def main(setting: Setting) -> None:
    loaders = ImageDataLoaders.from_folder(
        setting.data,
        item_tfms=RandomResizedCrop(SIDE, min_scale=SCALE[0]),
        batch_tfms=[Flip(), Normalize.from_stats(MEAN, STD)],
        bs=BATCH,
        num_workers=WORKERS,
        device="cpu",
    )
    learner = vision_learner(
        loaders,
        resnet18,
        pretrained=False,
        normalize=False,
        concat_pool=False,
        lin_ftrs=[],
        ps=0.0,
        opt_func=partial(SGD, mom=MOMENTUM),
        wd=DECAY,
        metrics=accuracy,
        path=setting.output,
        cbs=SaveModelCallback(fname="last", every_epoch=True),
    )
    learner.fit(setting.epochs, RATE)


if __name__ == "__main__":
    main(Setting.given())
