"""Predictors that are being served. Loaded predictors and rendered blocks are kept in caches of limited size."""

from collections.abc import Generator, Hashable
from threading import Lock
from typing import Protocol, TypeVar

import torch
from cachetools import LRUCache
from torch import Tensor

from nern.artefact import Artefact
from nern.layers import Layer
from nern.rendering import BLOCK_TILES, render_block
from service.metrics.counted import BLOCK_HIT, BLOCK_MISS, PREDICTOR_HIT, PREDICTOR_MISS, RENDER_BYTES, RENDER_SECONDS
from service.serving.artefact import stored
from service.store import predictors
from service.store.database import Database

MAX_LOADED_PREDICTORS = 8
MAX_LOADED_BYTES = 2**30
MAX_RENDERED_BYTES = 64 * 2**20

Index = TypeVar("Index", int, Tensor)


class Measured(Protocol):
    """A value that knows how many bytes of memory it takes."""

    @property
    def nbytes(self) -> int: ...


Value = TypeVar("Value", bound=Measured)


class Cache(LRUCache[Hashable, Value]):
    """A cache of at most `max_bytes`, which drops the least recently used values. Threads may share it.

    Every value counts as at least `least_bytes`, which limits the number of values. A value of more than `max_bytes` is kept
    alone.
    """

    def __init__(self, max_bytes: int, least_bytes: int = 1) -> None:
        super().__init__(max_bytes, getsizeof=lambda value: min(max_bytes, max(least_bytes, value.nbytes)))
        self._lock = Lock()

    def find(self, key: Hashable) -> Value | None:
        """The value of a key, or None."""
        with self._lock:
            return self.get(key)

    def keep(self, key: Hashable, value: Value) -> Value:
        """Keeps a value under a key, and returns the value."""
        with self._lock:
            self[key] = value
        return value


class Served:
    """One predictor that is loaded and can be rendered. Its kept tensors are read from the database when they are needed."""

    def __init__(self, id: str, database: Database, rendered: Cache[Tensor]) -> None:
        self.id = id
        self._database = database
        self._rendered = rendered
        self.artefact = Artefact(self.read)
        self.nbytes = self.artefact.representation.nbytes

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The represented layers, by index."""
        return self.artefact.representation.layers

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start..stop (half-open) of the artefact."""
        with self._database.read() as session:
            return predictors.read(session, self.id, start, stop)

    def stored(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop of the artefact, in pieces."""
        return stored(self._database, self.id, start, stop)

    def kernels(self, layer: int, indices: Tensor) -> Tensor:
        """Kernels of one layer by their indices in the layer (int64, (n,)), in the layer's dtype: (n, *kernel_size).

        The index of the kernel (filter, channel) is filter * channels + channel.
        """
        unit = self.artefact.representation.tiles.units[layer]
        parts = unit.kernels // self.layers[layer].kernels
        wanted = (indices[:, None] * parts + torch.arange(parts)).flatten()
        kernels = torch.empty(len(wanted), *unit.kernel_size, dtype=unit.dtype)
        blocks = self.block_of(layer, wanted)
        for block in blocks.unique().tolist():
            chosen = blocks == block
            kernels[chosen] = self.block(layer, block)[wanted[chosen] - self.first_kernel(layer, block)]
        return kernels.view(len(indices), *self.layers[layer].kernel_size)

    def block_of(self, layer: int, index: Index) -> Index:
        """The block of a layer that holds the kernel of this index, or the blocks of several kernels.

        Here and in the methods below, kernels are those of the layer's unit (see `nern.tiles`): of a kernel that is too long to
        be a tile, each weight is one.
        """
        tiles = self.artefact.representation.tiles
        channels = tiles.units[layer].channels
        tile = index // channels * tiles.per_filter[layer] + index % channels // tiles.width[layer]
        return tile // BLOCK_TILES

    def first_kernel(self, layer: int, block: int) -> int:
        """The index of the first kernel of a block. The block ends before the first kernel of the next block."""
        tiles = self.artefact.representation.tiles
        filter, place = divmod(block * BLOCK_TILES, tiles.per_filter[layer])
        return filter * tiles.units[layer].channels + place * tiles.width[layer]

    def block(self, layer: int, block: int) -> Tensor:
        """The kernels of one block in the order of their indices, in the layer's dtype: (n, *kernel_size)."""
        key = (self.id, layer, block)
        if (found := self._rendered.find(key)) is not None:
            BLOCK_HIT.inc()
            return found
        BLOCK_MISS.inc()
        with RENDER_SECONDS.time():
            tiles = render_block(self.artefact.representation, layer, block)
        inside = self.artefact.representation.tiles.inside(layer, torch.arange(len(tiles)) + block * BLOCK_TILES)
        kernels = tiles.flatten(0, 1) if inside is None else tiles[inside]
        RENDER_BYTES.inc(kernels.nbytes)
        return self._rendered.keep(key, kernels)


class Predictors:
    """The predictors of a database, loaded when they are needed. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loading = Lock()
        self._loaded: Cache[Served] = Cache(MAX_LOADED_BYTES, MAX_LOADED_BYTES // MAX_LOADED_PREDICTORS)
        self._rendered: Cache[Tensor] = Cache(MAX_RENDERED_BYTES)

    def load(self, id: str) -> Served:
        """The predictor of this id, which must exist. Blocks while this or another predictor is read from the database."""
        if found := self._loaded.find(id):
            PREDICTOR_HIT.inc()
            return found
        with self._loading:
            if found := self._loaded.find(id):
                PREDICTOR_HIT.inc()
                return found
            PREDICTOR_MISS.inc()
            return self._loaded.keep(id, Served(id, self._database, self._rendered))
