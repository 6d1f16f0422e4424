"""The torchvision classifiers by name, written down so that listing them imports nothing."""

from __future__ import annotations

BACKBONES = (
    "alexnet",
    "convnext_base",
    "convnext_large",
    "convnext_small",
    "convnext_tiny",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_v2_l",
    "efficientnet_v2_m",
    "efficientnet_v2_s",
    "maxvit_t",
    "mnasnet0_5",
    "mnasnet0_75",
    "mnasnet1_0",
    "mnasnet1_3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "regnet_x_16gf",
    "regnet_x_1_6gf",
    "regnet_x_32gf",
    "regnet_x_3_2gf",
    "regnet_x_400mf",
    "regnet_x_800mf",
    "regnet_x_8gf",
    "regnet_y_16gf",
    "regnet_y_1_6gf",
    "regnet_y_32gf",
    "regnet_y_3_2gf",
    "regnet_y_400mf",
    "regnet_y_800mf",
    "regnet_y_8gf",
    "resnet101",
    "resnet152",
    "resnet34",
    "resnet50",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "swin_b",
    "swin_s",
    "swin_t",
    "swin_v2_b",
    "swin_v2_s",
    "swin_v2_t",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg19",
    "vgg19_bn",
    "vit_b_16",
    "vit_b_32",
    "vit_l_16",
    "vit_l_32",
    "wide_resnet101_2",
    "wide_resnet50_2",
)
"""Offered as they are; `resnet18` and `vgg16_bn` have factories of their own."""

RESNETS = (
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
"""Those of them whose residual branches can be shifted in time."""

DROPPING = ("convnext", "efficientnet", "maxvit", "swin")
"""Beginnings of the names of those whose residual branches are dropped in training (stochastic depth)."""

LEFT_OUT = {
    "googlenet": "trains with auxiliary classifiers, so it returns several logits",
    "inception_v3": "trains with auxiliary classifiers, so it returns several logits",
    "regnet_y_128gf": "its ImageNet weights (2.5 GB, for 384 px) may not be used commercially",
    "squeezenet1_0": "ends in a convolution: there is no last fully connected layer to replace",
    "squeezenet1_1": "ends in a convolution: there is no last fully connected layer to replace",
    "vit_h_14": "its ImageNet weights (2.5 GB, for 518 px) may not be used commercially",
}
"""Classifiers of torchvision that are not offered, and why."""

LICENCES = {"imagenet": "bsd-3-clause"}
"""Of torchvision's weights, by their word: that of torchvision, which states no other one for them."""
