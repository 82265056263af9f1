"""Two ways to find a path through unit vectors along which neighbours are similar. Permutations are made from such paths.

A *path* visits every vector once. It is an int64 tensor (n,) of row numbers, in the order of the visits.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nern.cancellation import Cancellation, never
from nern.randomness import generator
from nern.request.options import PathKind

# The nearest-neighbour path calls its cancellation once in so many steps.
CANCELLATION_STEPS = 256

# The fragment path considers so many nearest neighbours of each vector. Up to EXACT_VECTORS vectors, the search for them is
# exact. For more vectors, the search looks into the PROBED_CELLS nearest cells, each of about CELL_VECTORS vectors.
NEIGHBOURS = 5
EXACT_VECTORS = 4096
CELL_VECTORS = 64
PROBED_CELLS = 96

# The search computes the similarities of so many vectors at a time. This bounds its memory.
BATCH_ROWS = 2048

# Standard deviation of the noise that is added to each element of a unit vector. For each element, the noise lowers the
# cosine of two equal vectors by about 1e-5. float32 resolves such a difference.
JITTER_NORM = 3e-3

# Marks pairs that must not be joined.
BELOW_EVERY_COSINE = -2.0


def nearest_path(vectors: Tensor, cancellation: Cancellation = never) -> Tensor:
    """The nearest-neighbour path through unit vectors (n, d), as the authors of NeRN build it: int64 (n,).

    The path starts at row 0. Each step goes to the row of largest dot product that was not visited yet; among rows of equal
    dot product, to the lowest. A path takes n matrix-vector products: time grows with n squared, and memory with n.
    `cancellation` is called once in CANCELLATION_STEPS steps.
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
    """The multiple-fragment path through vectors (n, d): int64 (n,).

    The heuristic is from Bentley, "Fast algorithms for geometric traveling salesman problems", 1992. Every vector begins as a
    path of its own, a *fragment*. The ends of fragments are joined, the most similar pair first, until one path is left. A
    pair is skipped if joining it would make a fork or a ring. The candidates of an end are the nearest ends of other
    fragments. When all candidates have been tried, new ones are searched for among the ends that are left. With more than
    4,096 vectors, the search goes by cells and misses some candidates.

    This path is smoother than the nearest-neighbour path, whose last steps are long. Time grows little faster than n.
    `cancellation` is called during the searches. Raises ValueError for vectors that are not finite.
    """
    if not vectors.isfinite().all():
        raise ValueError("there is no path through vectors that are not finite")
    # Equal vectors, such as the zeros of a pruned layer, would all have the same candidates. Each search would then join very
    # few of them. The noise makes their candidates differ.
    rows = F.normalize(vectors.float() + JITTER_NORM * torch.randn(vectors.shape, generator=generator(0, "jitter")), dim=1)
    fragments = _Fragments(len(rows))
    while fragments.joins_left:
        ends = fragments.ends()
        left, right = _closest_pairs(rows[ends], fragments.owners(ends), cancellation)
        fragments.join(ends[left].tolist(), ends[right].tolist())
    return fragments.path()


PATHS: dict[PathKind, Callable[[Tensor, Cancellation], Tensor]] = {"fragments": fragment_path, "nearest": nearest_path}


class _Fragments:
    """Paths that cover all vertices 0, 1, …: at first one path for each vertex, later longer and fewer paths."""

    def __init__(self, count: int) -> None:
        self.joins_left = count - 1
        # The two neighbours of each vertex on its path; -1 where there is none yet. `_one` is set before `_two`.
        self._one = [-1] * count
        self._two = [-1] * count
        # For each end of a path: the other end of the same path.
        self._other = list(range(count))

    def ends(self) -> Tensor:
        """The vertices that have fewer than two neighbours: int64 (ends,)."""
        return (torch.tensor(self._two) < 0).nonzero()[:, 0]

    def owners(self, ends: Tensor) -> Tensor:
        """The number of the path of each end, which is the lower of its two ends: int64 (ends,)."""
        return torch.minimum(torch.tensor(self._other)[ends], ends)

    def join(self, left: list[int], right: list[int]) -> None:
        """Joins left[i] to right[i], in this order. Skips pairs that would make a fork or a ring."""
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
        """The only path that is left, from its lower end: int64 (n,)."""
        before, current = -1, int(self.ends()[0])
        path = [current]
        while len(path) < len(self._one):
            following = self._one[current] if self._one[current] != before else self._two[current]
            before, current = current, following
            path.append(current)
        return torch.tensor(path)


def _closest_pairs(ends: Tensor, owner: Tensor, cancellation: Cancellation) -> tuple[Tensor, Tensor]:
    """Pairs of each end with its nearest ends of other fragments, the most similar pair first.

    `ends` are unit vectors (ends, d), and `owner` has the fragment of each end. Returns two int64 tensors (pairs,) of rows.
    """
    neighbours = min(NEIGHBOURS, len(ends) - 1)
    lefts, rights, cosines = [], [], []
    for rows, candidates in _searches(ends):
        cancellation()
        for batch in rows.split(BATCH_ROWS):
            similarity = ends[batch] @ ends[candidates].T
            similarity.masked_fill_(owner[batch][:, None] == owner[candidates], BELOW_EVERY_COSINE)
            nearest = similarity.topk(min(neighbours, len(candidates)))
            lefts.append(batch[:, None].expand_as(nearest.indices).flatten())
            rights.append(candidates[nearest.indices].flatten())
            cosines.append(nearest.values.flatten())
    left, right, cosine = torch.cat(lefts), torch.cat(rights), torch.cat(cosines)
    allowed = cosine > BELOW_EVERY_COSINE
    left, right, cosine = left[allowed], right[allowed], cosine[allowed]
    # Pairs of equal similarity are ordered by their rows, so that the path does not depend on how the search is split up.
    low, high = torch.minimum(left, right), torch.maximum(left, right)
    pair = (low * len(ends) + high).unique(return_inverse=True)
    first = torch.empty_like(pair[0]).scatter_(0, pair[1], torch.arange(len(low)))
    order = cosine[first].argsort(descending=True, stable=True)
    return low[first[order]], high[first[order]]


def _searches(vectors: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The searches that together find the candidates of every vector: (rows, rows among which their candidates are found).

    Every row is in one search.
    """
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
