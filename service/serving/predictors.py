"""Predictors that are being served: loaded once, rendered block by block, both kept in bounded caches."""

from collections.abc import Generator, Hashable
from threading import Lock
from typing import Protocol, TypeVar

import torch
from cachetools import LRUCache
from torch import Tensor

from nern.artefact import Artefact
from nern.layers import Layer
from nern.rendering import BLOCK_TILES, render_block
from service.serving.artefact import stored
from service.store import predictors
from service.store.database import Database

MAX_LOADED, MAX_LOADED_BYTES = 8, 2**30
MAX_RENDERED_BYTES = 64 * 2**20

Number = TypeVar("Number", int, Tensor)


class Measured(Protocol):
    """What takes so many bytes of memory."""

    @property
    def nbytes(self) -> int: ...


Value = TypeVar("Value", bound=Measured)


class Cache(LRUCache[Hashable, Value]):
    """Bounded by `nbytes` of the values, each of which counts `least` at least; safe to use from several threads.

    What alone is larger is kept alone.
    """

    def __init__(self, most: int, least: int = 1) -> None:
        super().__init__(most, getsizeof=lambda value: min(most, max(least, value.nbytes)))
        self._lock = Lock()

    def find(self, key: Hashable) -> Value | None:
        with self._lock:
            return self.get(key)

    def keep(self, key: Hashable, value: Value) -> Value:
        """Gives the value back."""
        with self._lock:
            self[key] = value
        return value


class Served:
    """One predictor, ready to render. Its kept tensors stay in the database until they are read."""

    def __init__(self, id: str, database: Database, rendered: Cache[Tensor]) -> None:
        self.id = id
        self._database = database
        self._rendered = rendered
        self.artefact = Artefact(self.read)
        self.nbytes = self.artefact.representation.nbytes

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.artefact.representation.layers

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start..stop of the artefact."""
        with self._database.read() as session:
            return predictors.read(session, self.id, start, stop)

    def stored(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Bytes start..stop of the artefact, piece by piece."""
        return stored(self._database, self.id, start, stop)

    def kernels(self, layer: int, numbers: Tensor) -> Tensor:
        """Kernels of one layer by their numbers in it (n,), in the layer's dtype: (n, *kernel_size)."""
        kernels = torch.empty(len(numbers), *self.layers[layer].kernel_size, dtype=self.layers[layer].dtype)
        blocks = self.block_of(layer, numbers)
        for block in blocks.unique().tolist():
            chosen = blocks == block
            kernels[chosen] = self.block(layer, block)[numbers[chosen] - self.first_kernel(layer, block)]
        return kernels

    def block_of(self, layer: int, number: Number) -> Number:
        """In which block of a layer the kernel of that number is."""
        tiles, channels = self.artefact.representation.tiles, self.layers[layer].channels
        tile = number // channels * tiles.per_filter[layer] + number % channels // tiles.width[layer]
        return tile // BLOCK_TILES

    def first_kernel(self, layer: int, block: int) -> int:
        """The number of the first kernel of a block; a block holds the kernels up to the first one of the next block."""
        tiles = self.artefact.representation.tiles
        filter, place = divmod(block * BLOCK_TILES, tiles.per_filter[layer])
        return filter * self.layers[layer].channels + place * tiles.width[layer]

    def block(self, layer: int, block: int) -> Tensor:
        """The kernels of one block in the order of their numbers, in the layer's dtype: (n, *kernel_size)."""
        key = (self.id, layer, block)
        if (found := self._rendered.find(key)) is not None:
            return found
        tiles = render_block(self.artefact.representation, layer, block)
        inside = self.artefact.representation.tiles.inside(layer, torch.arange(len(tiles)) + block * BLOCK_TILES)
        return self._rendered.keep(key, tiles.flatten(0, 1) if inside is None else tiles[inside])


class Predictors:
    """The predictors of a database. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loading = Lock()
        self._loaded: Cache[Served] = Cache(MAX_LOADED_BYTES, MAX_LOADED_BYTES // MAX_LOADED)
        self._rendered: Cache[Tensor] = Cache(MAX_RENDERED_BYTES)

    def load(self, id: str) -> Served:
        """A predictor that is known to exist. Blocks while it, or another one, is read from the database."""
        if found := self._loaded.find(id):
            return found
        with self._loading:
            if found := self._loaded.find(id):
                return found
            return self._loaded.keep(id, Served(id, self._database, self._rendered))
