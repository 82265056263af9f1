"""Smoothness by permutation: neighbouring coordinates get similar tiles (arXiv 2212.13554, section 4.2).

The weights stay where they are; only the coordinate that a tile is assigned changes. In each layer a permutation is the
*position* of every tile, an int64 tensor of shape (tiles,): of f filters with t tiles each, the tile with the flat number n
is assigned the coordinate (layer, position[n] // t, position[n] % t).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from nern import ranking
from nern.cancellation import Cancellation, never
from nern.paths import PATHS
from nern.request.options import PathKind, PermutationKind
from nern.tiles import Tiles

# Tiles of smaller norm have no direction worth following.
MIN_NORM = 1e-12


def permutations(
    tiles: Tiles, state_dict: Mapping[str, Tensor], kind: PermutationKind, path: PathKind, cancellation: Cancellation = never
) -> list[Tensor]:
    """The permutation of every layer; see `permute`."""
    cut = (tiles.cut(number, state_dict[layer.name]) for number, layer in enumerate(tiles.layers))
    return [
        permute(some.reshape(layer.filters, per_filter, -1), kind, path, cancellation)
        for layer, per_filter, some in zip(tiles.layers, tiles.per_filter, cut, strict=True)
    ]


def permute(tiles: Tensor, kind: PermutationKind, path: PathKind = "fragments", cancellation: Cancellation = never) -> Tensor:
    """Positions of the tiles of one layer (filters, tiles, weights): int64 of shape (filters * tiles,).

    "cross-filter" follows one path through all tiles of the layer; "in-filter" one path through the tiles of each filter
    and then one through the filters. `cancellation` is called now and then; what it raises ends the search.
    """
    filters, per_filter = tiles.shape[:2]
    if kind == "none":
        return torch.arange(filters * per_filter)
    tiles = tiles.detach().float().cpu()
    if kind == "cross-filter":
        return _invert(tile_path(tiles.flatten(0, 1), path, cancellation))
    paths = torch.stack([tile_path(tiles[i], path, cancellation) for i in range(filters)])
    # Filters of single weights are compared by their ordered values: a weight alone has only a sign for a direction.
    directions = _unit(tiles.flatten(0, 1)).view_as(tiles) if tiles.shape[2] > 1 else _unit(tiles[..., 0])[..., None]
    ordered = torch.stack([directions[i][paths[i]].flatten() for i in range(filters)])
    rank_of_filter = _invert(PATHS[path](_unit(ordered), cancellation))
    rank_in_filter = torch.stack([_invert(path) for path in paths])
    return (rank_of_filter[:, None] * per_filter + rank_in_filter).flatten()


def tile_path(tiles: Tensor, path: PathKind = "fragments", cancellation: Cancellation = never) -> Tensor:
    """A path through n tiles (n, weights) along which neighbours are similar: a permutation, int64 (n,).

    Tiles of one weight have no direction, so they are sorted by value.
    """
    if tiles.shape[1] == 1:
        return tiles[:, 0].argsort(stable=True)
    return PATHS[path](_unit(tiles), cancellation)


def mean_consecutive_cosine(tiles: Tensor, position: Tensor) -> float:
    """How similar neighbours on the path are: the mean cosine of consecutive tiles, 1.0 where there are no pairs."""
    ordered = _unit(tiles.detach().float().reshape(position.numel(), -1))[_invert(position)]
    return (ordered[1:] * ordered[:-1]).sum(1).mean().item() if len(ordered) > 1 else 1.0


def pack(position: Tensor, filters: int, per_filter: int, kind: PermutationKind) -> Tensor:
    """A permutation as a string of bytes, uint8, as `nern.ranking` has it; see `unpack`.

    Cross-filter: the positions of all tiles. In-filter: the ranks of the filters; then the ranks of the tiles inside each.
    """
    if kind == "none":
        return torch.empty(0, dtype=torch.uint8)
    if kind == "cross-filter":
        return ranking.encode(position[None])
    table = position.reshape(filters, per_filter)
    return torch.cat([ranking.encode(table[None, :, 0] // per_filter), ranking.encode(table % per_filter)])


def unpack(packed: Tensor, filters: int, per_filter: int, kind: PermutationKind) -> Tensor:
    """The inverse of `pack`. Raises ValueError if the bytes are no permutation of this layer."""
    count = filters * per_filter
    if kind == "none":
        return torch.arange(count)
    if kind == "cross-filter":
        return ranking.decode(packed, 1, count)[0]
    of_filters, inside = packed.tensor_split([ranking.nbytes(1, filters)])
    rank_of_filter = ranking.decode(of_filters, 1, filters)[0]
    return (rank_of_filter[:, None] * per_filter + ranking.decode(inside, filters, per_filter)).flatten()


def _unit(tiles: Tensor) -> Tensor:
    norms: Tensor = tiles.norm(dim=1, keepdim=True)
    return tiles / norms.clamp_min(MIN_NORM)


def _invert(path: Tensor) -> Tensor:
    inverse = torch.empty_like(path)
    inverse[path] = torch.arange(path.numel())
    return inverse
