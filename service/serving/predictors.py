"""Predictors that are being served: loaded once, rendered block by block, both kept in bounded caches."""

from collections.abc import Hashable
from threading import Lock
from typing import Protocol, TypeVar

from cachetools import LRUCache
from torch import Tensor

from nern.artefact import Artefact
from nern.layers import Layer
from nern.rendering import BLOCK, render_block
from service.store import predictors
from service.store.database import Database

MAX_LOADED, MAX_LOADED_BYTES = 8, 2**30
MAX_RENDERED_BYTES = 64 * 2**20


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

    def kernels(self, layer: int, numbers: Tensor) -> Tensor:
        """Kernels of one layer by their numbers in it (n,), in the layer's dtype: (n, *size). n must not be 0."""
        tiles = self.artefact.representation.tiles
        filter, channel = numbers // self.layers[layer].channels, numbers % self.layers[layer].channels
        tile = filter * tiles.per_filter[layer] + channel // tiles.width[layer]
        blocks, place = (tile // BLOCK).unique(return_inverse=True)
        rendered = [self._block(layer, block) for block in blocks.tolist()]
        kernels = rendered[0].new_empty(len(numbers), *self.layers[layer].size)
        for position, block in enumerate(rendered):
            chosen = place == position
            kernels[chosen] = block[tile[chosen] % BLOCK, channel[chosen] % tiles.width[layer]]
        return kernels

    def _block(self, layer: int, block: int) -> Tensor:
        key = (self.id, layer, block)
        if (found := self._rendered.find(key)) is not None:
            return found
        return self._rendered.keep(key, render_block(self.artefact.representation, layer, block))


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
