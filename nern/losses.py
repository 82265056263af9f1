"""The losses (arXiv 2212.13554, sections 4.1 and 4.2). None of them needs a label.

B is the batch, C the classes; a feature map is any tensor whose first dimension is the batch.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def reconstruction(errors: Sequence[Tensor], weights: int) -> Tensor:
    """L_rec: the root of the summed squared `errors` of all represented weights over their number."""
    return torch.cat([error.flatten() for error in errors]).square().sum().div(weights).sqrt()


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
    pairs = zip(_normalised(student, eps), _normalised(teacher, eps), strict=True)
    return torch.stack([F.mse_loss(ours, theirs, reduction="sum") for ours, theirs in pairs]).sum() / len(student[0])


def smoothness(tiles_FTW: Tensor, eps: float = 1e-6) -> Tensor:
    """The sum of the cosines of neighbouring tiles along both axes: F filters of T tiles of W weights each.

    Tiles of less than `eps` of the largest norm, such as pruned ones, have no direction: their cosines are 0 and constant.
    """
    norms = tiles_FTW.norm(dim=2, keepdim=True)
    unit = tiles_FTW / norms.where(norms > eps * norms.detach().amax(), torch.inf)
    total: Tensor = (unit[1:] * unit[:-1]).sum() + (unit[:, 1:] * unit[:, :-1]).sum()
    return total


def _normalised(maps: Sequence[Tensor], eps: float) -> Iterator[Tensor]:
    # Not flattened, which would copy maps that have their channels last in memory.
    norms = [torch.linalg.vector_norm(map, dim=tuple(range(1, map.ndim)), keepdim=True) for map in maps]
    # Together, since a GPU takes as long to be told of an operation on few numbers as of one on many.
    factors = (torch.cat([norm.flatten() for norm in norms]) + eps).reciprocal().split([len(map) for map in maps])
    return (map * factor.view_as(norm) for map, factor, norm in zip(maps, factors, norms, strict=True))
