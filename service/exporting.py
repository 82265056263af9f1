"""What `nern export` does: it runs a person's own code on the machine of that person, and writes the upload."""

import importlib.util
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nern
from nern import tensorfile
from nern.errors import NernError


def run(source: str, output: Path, weights: Path | None) -> None:
    """Writes the network that the function of `FILE.py:function` returns. Raises SystemExit with a message."""
    file, colon, function = source.rpartition(":")
    if not colon or not file.endswith(".py") or not Path(file).is_file():
        sys.exit(f"nern export: {source} does not name a function; write FILE.py:function")
    module, inputs = _called(Path(file), function)
    try:
        if weights is not None:
            module.load_state_dict(_loaded(weights))
        written = nern.export(module, inputs, output)
    except (NernError, RuntimeError, OSError, pickle.UnpicklingError) as error:
        sys.exit(f"nern export: {error}")
    batch = "any number of samples" if written.any_batch else "a fixed number of samples, which the service repeats for others"
    print(f"wrote {output}: {len(written.program.nodes)} operators, {batch}")


def _called(file: Path, function: str) -> tuple[nn.Module, Any]:
    # The file imports what lies beside it, as it does when Python runs it.
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(file.stem, loaded)
    spec.loader.exec_module(loaded)
    made = getattr(loaded, function, None)
    if not callable(made):
        sys.exit(f"nern export: {file} has no function {function}")
    if isinstance(made, type):
        sys.exit(
            f"nern export: {function} is a class; write a function that returns a network and example inputs, such as "
            f"`def network(): return {function}(), torch.zeros(1, 3, 32, 32)`"
        )
    match made():
        case (nn.Module() as module, inputs):
            return module, inputs
    sys.exit(
        f"nern export: {function} returned something else; it should return the module and example inputs: (module, inputs)"
    )


def _loaded(path: Path) -> dict[str, Tensor]:
    """The state_dict in a file of safetensors or torch.save. Nothing of the file is executed."""
    if path.suffix == ".safetensors":
        return tensorfile.load(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content.get("state_dict", content)  # type: ignore[no-any-return]
