"""Permutations of the coordinates of a layer, so that neighbouring coordinates have similar tiles.

The method is that of arXiv 2212.13554, section 4.2. The weights keep their places; only the coordinates that tiles are assigned
change. The permutation of a layer is a tensor of *positions*, int64 (tiles,). In a layer of filters with t tiles each, tile n
of the layer is assigned the coordinate (layer, position[n] // t, position[n] % t).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from nern import ranking
from nern.cancellation import Cancellation, never
from nern.paths import PATHS
from nern.request.options import PathKind, PermutationKind
from nern.tiles import Tiles

# Norms are taken to be at least this, so that a tile of zeros can be divided by its norm.
MIN_NORM = 1e-12


def permutations(
    tiles: Tiles, state_dict: Mapping[str, Tensor], kind: PermutationKind, path: PathKind, cancellation: Cancellation = never
) -> list[Tensor]:
    """The permutation of every layer, int64 (tiles of the layer,) each; see `permute`."""
    cut = (tiles.cut(number, state_dict[layer.name]) for number, layer in enumerate(tiles.layers))
    return [
        permute(of_layer.reshape(layer.filters, per_filter, -1), kind, path, cancellation)
        for layer, per_filter, of_layer in zip(tiles.layers, tiles.per_filter, cut, strict=True)
    ]


def permute(tiles: Tensor, kind: PermutationKind, path: PathKind = "fragments", cancellation: Cancellation = never) -> Tensor:
    """The positions of the tiles of one layer: float (filters, tiles, weights) to int64 (filters * tiles,).

    "cross-filter" follows one path through all tiles of the layer. "in-filter" follows one path through the tiles of each
    filter, and then one path through the filters. "none" leaves every tile in its place. `cancellation` is called during the
    search for paths.
    """
    filters, per_filter = tiles.shape[:2]
    if kind == "none":
        return torch.arange(filters * per_filter)
    tiles = tiles.detach().float().cpu()
    if kind == "cross-filter":
        return _invert(tile_path(tiles.flatten(0, 1), path, cancellation))
    paths = torch.stack([tile_path(tiles[i], path, cancellation) for i in range(filters)])
    # Filters whose tiles have one weight are compared by their ordered weights. The direction of one weight is only a sign.
    directions = _unit(tiles.flatten(0, 1)).view_as(tiles) if tiles.shape[2] > 1 else _unit(tiles[..., 0])[..., None]
    ordered = torch.stack([directions[i][paths[i]].flatten() for i in range(filters)])
    rank_of_filter = _invert(PATHS[path](_unit(ordered), cancellation))
    rank_in_filter = torch.stack([_invert(path) for path in paths])
    return (rank_of_filter[:, None] * per_filter + rank_in_filter).flatten()


def tile_path(tiles: Tensor, path: PathKind = "fragments", cancellation: Cancellation = never) -> Tensor:
    """A path through n tiles (n, weights) along which neighbours are similar: int64 (n,), the tiles in order.

    Tiles of one weight are sorted by value, because the direction of one weight is only a sign.
    """
    if tiles.shape[1] == 1:
        return tiles[:, 0].argsort(stable=True)
    return PATHS[path](_unit(tiles), cancellation)


def mean_consecutive_cosine(tiles: Tensor, position: Tensor) -> float:
    """The mean cosine of consecutive tiles on the path of a permutation, or 1.0 for a single tile.

    `tiles` has any shape whose leading dimensions number the tiles, such as (filters, tiles, weights); `position` is int64
    (filters * tiles,).
    """
    ordered = _unit(tiles.detach().float().reshape(position.numel(), -1))[_invert(position)]
    return (ordered[1:] * ordered[:-1]).sum(1).mean().item() if len(ordered) > 1 else 1.0


def pack(position: Tensor, filters: int, per_filter: int, kind: PermutationKind) -> Tensor:
    """The bytes of a permutation of one layer: int64 (filters * per_filter,) to uint8 (nbytes,).

    `per_filter` is the number of tiles of a filter. `nern.ranking` describes the encoding. A "cross-filter" permutation is
    stored as one permutation of all tiles. An "in-filter" permutation is stored as a permutation of the filters and, for each
    filter, a permutation of its tiles. "none" takes no bytes.
    """
    if kind == "none":
        return torch.empty(0, dtype=torch.uint8)
    if kind == "cross-filter":
        return ranking.encode(position[None])
    table = position.reshape(filters, per_filter)
    return torch.cat([ranking.encode(table[None, :, 0] // per_filter), ranking.encode(table % per_filter)])


def unpack(packed: Tensor, filters: int, per_filter: int, kind: PermutationKind) -> Tensor:
    """The inverse of `pack`: uint8 (nbytes,) to int64 (filters * per_filter,).

    Raises ValueError if the bytes are not a permutation of this kind and size.
    """
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
