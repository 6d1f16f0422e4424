"""The parts, in the order of their value."""

from __future__ import annotations

from bench.gpu.schedule import Part

PARTS = (
    Part("tests", "all tests marked `gpu`", "bench.gpu.suite:marked", 120),
    Part("cifar10_94", "seconds to 94 % on CIFAR-10", "bench.gpu.records:cifar10_94", 200),
    Part("epochs", "epochs of the small CNN against the bare step", "bench.gpu.training:cnn", 60),
    Part("airbench94", "the same against the recipe it follows", "bench.gpu.records:against_reference", 200),
    Part("record_epochs", "epochs of cifar10_94 against the bare step", "bench.gpu.training:record", 60),
    Part("resnet50", "training ResNet-50", "bench.gpu.training:resnet50", 90),
    Part("predict_fp16", "`predict` in fp16 against torch, compiled and eager", "bench.gpu.answers:fp16", 200),
    Part("predict_fp32", "`predict` in fp32 against torch, compiled and eager", "bench.gpu.answers:fp32", 200),
    Part("x3d_m", "training X3D-M", "bench.gpu.training:x3d_m", 90),
    Part("slow_r50", "training Slow R50", "bench.gpu.training:slow_r50", 90),
    Part("slowfast_r50", "training SlowFast R50", "bench.gpu.training:slowfast_r50", 90),
    Part("videomae_s", "training VideoMAE-S", "bench.gpu.training:videomae_s", 90),
    Part("loader", "batches of images from files", "bench.gpu.feeding:images", 90),
    Part("decoder", "clips from video files", "bench.gpu.feeding:clips", 90),
    Part("predict_int8", "`predict` in int8 against torch, eager in fp16", "bench.gpu.answers:int8", 90),
)
