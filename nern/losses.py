"""The losses (arXiv 2212.13554, sections 4.1 and 4.2). None of them needs a label.

B is the batch, C the classes; a feature map is any tensor whose first dimension is the batch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def reconstruction(errors: Sequence[Tensor], weights: int) -> Tensor:
    """L_rec: the root of the summed squared `errors` of all represented weights over their number."""
    return torch.stack([error.square().sum() for error in errors]).sum().div(weights).sqrt()


def distillation(teacher_BC: Tensor, student_BC: Tensor, eps: float = 0.0) -> Tensor:
    """L_kd: KL(teacher || student) of the softmax of logits, mean over the batch, temperature 1.

    `eps` is added to the student's probabilities, as the authors do with 1e-4, so that it bounds the loss.
    """
    teacher, student = teacher_BC.log_softmax(1), student_BC.log_softmax(1)
    if eps:
        student = (student.exp() + eps).log()
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def feature_maps(teacher: Sequence[Tensor], student: Sequence[Tensor], eps: float = 1e-3) -> Tensor:
    """L_fmd: squared distance of each sample's normalised maps, summed over maps, mean over the batch."""
    distances = [
        (_normalised(ours, eps) - _normalised(theirs, eps)).square().sum(1).mean()
        for theirs, ours in zip(teacher, student, strict=True)
    ]
    return torch.stack(distances).sum()


def smoothness(tiles_FTW: Tensor, eps: float = 1e-6) -> Tensor:
    """The sum of the cosines of neighbouring tiles along both axes: F filters of T tiles of W weights each.

    Tiles of less than `eps` of the largest norm, such as pruned ones, have no direction: their cosines are 0 and constant.
    """
    norms = tiles_FTW.norm(dim=2, keepdim=True)
    unit = tiles_FTW / norms.where(norms > eps * norms.detach().amax(), torch.inf)
    total: Tensor = (unit[1:] * unit[:-1]).sum() + (unit[:, 1:] * unit[:, :-1]).sum()
    return total


def _normalised(map: Tensor, eps: float) -> Tensor:
    flat = map.flatten(1)
    norms: Tensor = flat.norm(dim=1, keepdim=True)
    return flat / (norms + eps)
