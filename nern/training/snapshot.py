"""Snapshots: the state from which a training goes on after a step, bit for bit.

A snapshot is stored in a safetensors file. No pickle is read or written.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nern import tensorfile
from nern.errors import BadArtefact, BadSnapshot
from nern.evaluation import Comparison
from nern.measures import OutputComparison, Quality
from nern.training.selection import Evaluation, SelectionState
from nern.training.trial import Trial

# Increased with each change of the file, and with each change of what a training computes: the training would go on from a
# state that it could not have come to. Releases of the same version go on with each other's trainings.
VERSION = 3

# The name of a tensor in the file is the path to the tensor in the snapshot, such as /predictor/trunk.0.weight.
SEPARATOR = "/"

# The fields of an OutputComparison that are a Quality or None.
QUALITIES = ("original_quality", "quality")


@dataclass(frozen=True)
class SearchState:
    """The state of a search for an accuracy target.

    drop: the target, in percentage points of accuracy.
    trials: the finished trials.
    best: the snapshot after the last step of the best of these trials, or None before there is one.
    """

    drop: float
    trials: tuple[Trial, ...]
    best: "Snapshot | None"


@dataclass(frozen=True)
class Snapshot:
    """The state of a training after `step` steps. The training may change the tensors in place; see `detached`.

    training: the identity of the training, a hash of the plan and of the inputs.
    steps: the number of steps that were made, in all trials of a search.
    seconds: the time that the training has taken.
    positions: the permutation of each layer, int64 (tiles of the layer,).
    weights: the target weights, in the shapes of the layers, or None if they are the original weights.
    fitted_to: the weights that the predictor is fitted to, in the shapes of the layers, or None if they are the target weights.
    predictor, optimizers: the state_dicts of the predictor and of the optimizers.
    selection: the state of the model selection.
    images: the state_dict of the image pool, or None unless the data is matched noise.
    search: the state of the search, or None unless the training is a trial.
    """

    training: str
    step: int
    steps: int
    seconds: float
    positions: Sequence[Tensor]
    weights: Sequence[Tensor] | None
    fitted_to: Sequence[Tensor] | None
    predictor: Mapping[str, Tensor]
    optimizers: Sequence[Mapping[str, Any]]
    selection: SelectionState
    images: Mapping[str, Tensor] | None
    search: SearchState | None = None

    def detached(self) -> "Snapshot":
        """A copy of the snapshot with tensors of its own, which the training does not change."""
        return _from_plain(_copied(_to_plain(self)))

    def write(self, path: Path) -> None:
        """Writes the snapshot to a file. The file is not synchronised to the disk (fsync)."""
        tensors: dict[str, Tensor] = {}
        about = {"version": VERSION, "snapshot": _take_tensors(_to_plain(self), "", tensors)}
        header, _ = tensorfile.make_header(
            ((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()), {"nern": json.dumps(about)}
        )
        with path.open("wb") as file:
            file.write(header)
            for tensor in tensors.values():
                file.write(tensorfile.to_bytes(tensor))

    @classmethod
    def read(cls, path: Path) -> "Snapshot":
        """Reads the snapshot in a file. Raises BadSnapshot if the file is no snapshot, is damaged, or has another version."""
        try:
            tensors, metadata = tensorfile.load_with_metadata(path)
            about = json.loads(metadata["nern"])
            if about["version"] != VERSION:
                raise BadSnapshot(f"the snapshot has version {about['version']}; this release reads version {VERSION}")
            return _from_plain(_put_tensors(about["snapshot"], tensors))
        except (BadArtefact, KeyError, TypeError, ValueError) as error:
            raise BadSnapshot(f"{path.name} is not a snapshot, or is damaged") from error


class Interrupted(Exception):
    """Ends a training that is to go on later. Whoever calls `train` raises it, in `on_progress` or in the cancellation.

    snapshot: a detached snapshot of the last step that was made, which the training adds; None before the first step.
    """

    snapshot: Snapshot | None = None


def _to_plain(value: Any) -> Any:
    """The value with dictionaries in place of dataclasses. Unlike `dataclasses.asdict`, it copies no tensor."""
    if is_dataclass(value):
        return {field.name: _to_plain(getattr(value, field.name)) for field in fields(value)}
    return [_to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _from_plain(plain: dict[str, Any]) -> Snapshot:
    """The inverse of `_to_plain`."""
    selection, search = plain["selection"], plain["search"]
    best, last = (_evaluation(selection[name]) for name in ("best", "last"))
    restored = {"selection": SelectionState(best, last, selection["predictor"])}
    return Snapshot(**{**plain, **restored, "search": _search(search) if search else None})


def _evaluation(plain: dict[str, Any] | None) -> Evaluation | None:
    if plain is None:
        return None
    return Evaluation(**{**plain, "comparison": plain["comparison"] and _comparison(plain["comparison"])})


def _comparison(plain: dict[str, Any]) -> Comparison:
    outputs = tuple(
        OutputComparison(**{**output, **{name: output[name] and Quality(**output[name]) for name in QUALITIES}})
        for output in plain.get("outputs", [])
    )
    return Comparison(**{**plain, "outputs": outputs})


def _search(plain: dict[str, Any]) -> SearchState:
    best = _from_plain(plain["best"]) if plain["best"] else None
    return SearchState(plain["drop"], tuple(Trial(**trial) for trial in plain["trials"]), best)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON. Its tensors are added to `tensors`.

    A dictionary becomes a list of pairs, because its keys may be numbers, and keys in JSON are strings.
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        pairs = [[key, _take_tensors(item, f"{name}{SEPARATOR}{key}", tensors)] for key, item in value.items()]
        return {"pairs": pairs}
    if isinstance(value, list | tuple):
        return [_take_tensors(item, f"{name}{SEPARATOR}{number}", tensors) for number, item in enumerate(value)]
    assert value is None or isinstance(value, str | int | float | bool), f"{name} is a {type(value).__name__}"
    return value


def _put_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_take_tensors`."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _put_tensors(item, tensors) for key, item in value["pairs"]}
    return [_put_tensors(item, tensors) for item in value] if isinstance(value, list) else value
