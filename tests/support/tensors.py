"""Tensors of unusual kinds."""

import warnings

import torch
from torch import Tensor


def quantised(tensor: Tensor) -> Tensor:
    """A tensor with quantised elements, of which torch warns that it will not make them any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
