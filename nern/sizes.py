"""An estimate of the bytes of an artefact, from the plan of its training."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nern import ranking, tensorfile
from nern.layers import Described
from nern.plan import Plan


@dataclass(frozen=True)
class Sizes:
    """Numbers of bytes: of all tensors of a network, of the represented ones, and an estimate of the artefact's parts."""

    original: int
    represented: int
    predictor: int
    permutation: int

    @property
    def kept(self) -> int:
        """The bytes of the tensors that are not represented."""
        return self.original - self.represented

    @property
    def artefact(self) -> int:
        """The estimate of the bytes of the artefact, without its header."""
        return self.predictor + self.permutation + self.kept


def estimate(plan: Plan, tensors: Mapping[str, Described]) -> Sizes:
    """The sizes for a plan of a network with these tensors.

    A quantised predictor is taken to need its bits for each weight that is not 0. Entropy coding makes it a little smaller.
    """
    tiles = plan.tiles()
    return Sizes(
        original=nbytes(tensors.values()),
        represented=nbytes(tensors[layer.name] for layer in plan.layers),
        predictor=round(plan.predictor.parameters(tiles) * plan.bits / 8 * (1 - plan.sparsity)),
        permutation=sum(
            _permutation(plan, layer.filters, per_filter)
            for layer, per_filter in zip(plan.layers, tiles.per_filter, strict=True)
        ),
    )


def nbytes(tensors: Iterable[Described]) -> int:
    """The number of bytes of these tensors."""
    return sum(tensorfile.nbytes_of(tensor.dtype, tensor.shape) for tensor in tensors)


def _permutation(plan: Plan, filters: int, per_filter: int) -> int:
    if plan.request.permutation == "none":
        return 0
    if plan.request.permutation == "cross-filter":
        return ranking.nbytes(1, filters * per_filter)
    return ranking.nbytes(1, filters) + ranking.nbytes(filters, per_filter)
