"""Layers that networks for CIFAR share."""

from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """A convolution whose output has the size of its input divided by the stride, rounded up."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)


def normed(convolution: nn.Conv2d, *activation: nn.Module) -> nn.Sequential:
    """A convolution, its batch norm and perhaps an activation, numbered from 0."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), *activation)


def shuffled(x_BCHW: Tensor, groups: int) -> Tensor:
    """The channels in another order, of the same shape: the first of every group, then the second of every group, …"""
    batch, channels, height, width = x_BCHW.shape
    grouped = x_BCHW.view(batch, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(batch, channels, height, width)
