"""The losses of the method (arXiv 2212.13554, sections 4.1 and 4.2). None of them needs labels. Each result is a scalar.

In the shapes, B is the batch and C the classes.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def reconstruction(errors: Sequence[Tensor], weights: int) -> Tensor:
    """L_rec: the root mean square of the errors of so many represented weights. The errors may have any shapes."""
    return torch.cat([error.flatten() for error in errors]).square().sum().div(weights).sqrt()


def distillation(teacher: Tensor, student: Tensor, eps: float = 0.0) -> Tensor:
    """L_kd: KL(teacher || student) of the softmax of the logits (B, C, ...), at temperature 1: the mean over all but axis 1.

    `eps` is added to the student's probabilities, which bounds the loss. The authors' code adds 1e-4.
    """
    positions = teacher.numel() // teacher.shape[1]
    teacher, student = teacher.log_softmax(1), student.log_softmax(1)
    if eps:
        student = (student.exp() + eps).log()
    return F.kl_div(student, teacher, reduction="sum", log_target=True) / positions


def logits(probabilities: Tensor) -> Tensor:
    """Logits that have these probabilities: their logarithms. A probability of 0 becomes the least normal number."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def relative_square(teacher: Tensor, student: Tensor, spread: float) -> Tensor:
    """The mean squared error of outputs (B, ...), divided by the square of their spread (see `nern.measures.Moments`)."""
    return F.mse_loss(student, teacher) / spread**2


def feature_maps(teacher: Sequence[Tensor], student: Sequence[Tensor], eps: float = 1e-3) -> Tensor:
    """L_fmd: the squared distance of the normalised feature maps, summed over all maps: the mean over the batch.

    Every map has a shape (B, ...). The map of each input is divided by its norm plus `eps`.
    """
    pairs = zip(_normalised(student, eps), _normalised(teacher, eps), strict=True)
    return torch.stack([F.mse_loss(of_student, of_teacher, reduction="sum") for of_student, of_teacher in pairs]).sum() / len(
        student[0]
    )


def smoothness(tiles_FTW: Tensor, eps: float = 1e-6) -> Tensor:
    """The sum of the cosines of neighbouring tiles along both axes, for F filters of T tiles of W weights each.

    A tile whose norm is at most `eps` times the largest norm, such as a pruned tile, has no direction. The cosines of such a
    tile are 0, and so are their gradients.
    """
    norms = tiles_FTW.norm(dim=2, keepdim=True)
    unit = tiles_FTW / norms.where(norms > eps * norms.detach().amax(), torch.inf)
    total: Tensor = (unit[1:] * unit[:-1]).sum() + (unit[:, 1:] * unit[:, :-1]).sum()
    return total


def _normalised(maps: Sequence[Tensor], eps: float) -> Iterator[Tensor]:
    # Flattening would copy the maps whose channels come last in memory.
    norms = [torch.linalg.vector_norm(map, dim=tuple(range(1, map.ndim)), keepdim=True) for map in maps]
    # One operation for all maps: on a GPU, the launch of an operation takes longer than the operation on so few numbers.
    factors = (torch.cat([norm.flatten() for norm in norms]) + eps).reciprocal().split([len(map) for map in maps])
    return (map * factor.view_as(norm) for map, factor, norm in zip(maps, factors, norms, strict=True))
