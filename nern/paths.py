"""Paths through unit vectors along which neighbours are similar: the two that permutations are made of."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nern.cancellation import Cancellation, never
from nern.randomness import generator
from nern.request.options import PathKind

# Steps of the nearest-neighbour path between two calls of the cancellation.
CANCELLATION_STEPS = 256

# Candidates for each vector. Up to EXACT_VECTORS vectors the search is exact. Beyond, it looks into the PROBED_CELLS
# nearest cells of about CELL_VECTORS vectors each.
NEIGHBOURS = 5
EXACT_VECTORS = 4096
CELL_VECTORS = 64
PROBED_CELLS = 96

# Rows of similarities held at a time.
BATCH_ROWS = 2048

# Of the length of a vector; changes cosines by some 1e-5, which float32 can still tell apart.
JITTER_NORM = 3e-3

# Below every cosine.
BELOW_EVERY_COSINE = -2.0


def nearest_path(vectors: Tensor, cancellation: Cancellation = never) -> Tensor:
    """The nearest-neighbour path, as the authors of NeRN build it; int64 (n,).

    Starts at row 0 and always goes on to the unvisited row of largest dot product (ties: the lowest). Takes n
    matrix-vector products, so time grows with n squared and memory with n.
    """
    rows: npt.NDArray[np.float32] = vectors.float().numpy()
    path = np.zeros(len(rows), dtype=np.int64)
    visited = np.zeros(len(rows), dtype=np.float32)
    for position in range(1, len(rows)):
        if position % CANCELLATION_STEPS == 0:
            cancellation()
        current = path[position - 1]
        visited[current] = -np.inf
        path[position] = np.argmax(rows @ rows[current] + visited)
    return torch.from_numpy(path)


def fragment_path(vectors: Tensor, cancellation: Cancellation = never) -> Tensor:
    """The multiple-fragment path (Bentley, "Fast algorithms for geometric traveling salesman problems", 1992); int64 (n,).

    The most similar pairs are joined first, as long as that leaves paths: it ends up smoother than the nearest-neighbour
    path, whose last steps are long, and its time grows little faster than n. Candidates for joining are each end's nearest
    other ends; when these are used up, they are looked for again among the ends that are left. Beyond 4,096 vectors they
    are found by cells, which misses some. Raises ValueError for vectors that are not finite.
    """
    if not vectors.isfinite().all():
        raise ValueError("vectors that are not finite have no path")
    # Equal vectors, such as a pruned layer's zeros, would all have the same nearest ones and be joined one by one.
    rows = F.normalize(vectors.float() + JITTER_NORM * torch.randn(vectors.shape, generator=generator(0, "jitter")), dim=1)
    fragments = _Fragments(len(rows))
    while fragments.joins_left:
        ends = fragments.ends()
        left, right = _closest_pairs(rows[ends], fragments.owners(ends), cancellation)
        fragments.join(ends[left].tolist(), ends[right].tolist())
    return fragments.path()


PATHS: dict[PathKind, Callable[[Tensor, Cancellation], Tensor]] = {"fragments": fragment_path, "nearest": nearest_path}


class _Fragments:
    """Vertices joined into paths."""

    def __init__(self, count: int) -> None:
        self.joins_left = count - 1
        # Neighbours of a vertex on its path; -1 where there is none yet. `one` is filled first.
        self._one = [-1] * count
        self._two = [-1] * count
        # Of an end: the other end of its path.
        self._other = list(range(count))

    def ends(self) -> Tensor:
        """Vertices that can be joined to one more."""
        return (torch.tensor(self._two) < 0).nonzero()[:, 0]

    def owners(self, ends: Tensor) -> Tensor:
        """A number for the path of each end: the same for both ends of a path."""
        return torch.minimum(torch.tensor(self._other)[ends], ends)

    def join(self, left: list[int], right: list[int]) -> None:
        """Joins the pairs in this order, except those that would make a fork or a ring."""
        one, two, other = self._one, self._two, self._other
        for u, v in zip(left, right, strict=True):
            if two[u] < 0 and two[v] < 0 and other[u] != v:
                for vertex, neighbour in ((u, v), (v, u)):
                    if one[vertex] < 0:
                        one[vertex] = neighbour
                    else:
                        two[vertex] = neighbour
                far_u, far_v = other[u], other[v]
                other[far_u], other[far_v] = far_v, far_u
                self.joins_left -= 1

    def path(self) -> Tensor:
        """The one path that is left, from its lower end."""
        before, current = -1, int(self.ends()[0])
        path = [current]
        while len(path) < len(self._one):
            following = self._one[current] if self._one[current] != before else self._two[current]
            before, current = current, following
            path.append(current)
        return torch.tensor(path)


def _closest_pairs(ends: Tensor, owner: Tensor, cancellation: Cancellation) -> tuple[Tensor, Tensor]:
    """Pairs of ends of different fragments, most similar first: every end with its nearest ones."""
    neighbours = min(NEIGHBOURS, len(ends) - 1)
    lefts, rights, cosines = [], [], []
    for rows, candidates in _searches(ends):
        cancellation()
        mates = owner[candidates]
        for some in rows.split(BATCH_ROWS):
            similarity = ends[some] @ ends[candidates].T
            similarity.masked_fill_(owner[some][:, None] == mates, BELOW_EVERY_COSINE)
            found = similarity.topk(min(neighbours, len(candidates)))
            lefts.append(some[:, None].expand_as(found.indices).flatten())
            rights.append(candidates[found.indices].flatten())
            cosines.append(found.values.flatten())
    left, right, cosine = torch.cat(lefts), torch.cat(rights), torch.cat(cosines)
    allowed = cosine > BELOW_EVERY_COSINE
    left, right, cosine = left[allowed], right[allowed], cosine[allowed]
    # By falling similarity, then by number, so that the path does not depend on how the search is split up.
    low, high = torch.minimum(left, right), torch.maximum(left, right)
    pair = (low * len(ends) + high).unique(return_inverse=True)
    first = torch.empty_like(pair[0]).scatter_(0, pair[1], torch.arange(len(low)))
    order = cosine[first].argsort(descending=True, stable=True)
    return low[first[order]], high[first[order]]


def _searches(vectors: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows, and the candidates among which their nearest ones are looked for; together all rows once."""
    if len(vectors) <= EXACT_VECTORS:
        yield torch.arange(len(vectors)), torch.arange(len(vectors))
        return
    cells = len(vectors) // CELL_VECTORS
    centres = vectors[torch.randperm(len(vectors), generator=generator(0, "centres"))[:cells]]
    nearest = torch.cat([(rows @ centres.T).argmax(1) for rows in vectors.split(BATCH_ROWS)])
    members = nearest.argsort(stable=True).split(nearest.bincount(minlength=cells).tolist())
    for rows, cell in zip(members, centres, strict=True):
        if len(rows):
            near = (centres @ cell).topk(min(PROBED_CELLS, cells)).indices.tolist()
            yield rows, torch.cat([members[other] for other in near])
