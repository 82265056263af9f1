"""Validates the tensors of a checkpoint before they are stored."""

from torch import Tensor

from nern.facts import NetworkFacts
from nern.graph.program import Program
from nern.layers import StateDict
from nern.state_dicts import Found
from nern.tensorfile import NAMES
from service.inspection.refusal import Refusal

# The largest known networks have a few thousand tensors.
MAX_TENSORS = 50_000
MAX_NAME_CHARACTERS = 1000

# All names together, because a list of checkpoints holds the names of all tensors.
MAX_NAMES_CHARACTERS = 2**20

# Tensors are searched for NaN and infinity in parts of this many elements, because a part is copied to float32.
FINITE_ELEMENTS = 2**22


def validate(found: Found, program: Program | None) -> None:
    """Raises Refusal if a tensor can't be stored, or a weight is no finite float32, or there is nothing to represent.

    Tensors that are not represented may have any values.
    """
    state_dict = found.state_dict
    if len(state_dict) > MAX_TENSORS:
        raise Refusal("too-demanding", f"the checkpoint has more than {MAX_TENSORS} tensors")
    if sum(map(len, state_dict)) > MAX_NAMES_CHARACTERS:
        raise Refusal("too-demanding", f"the names of the tensors have more than {MAX_NAMES_CHARACTERS} characters")
    for name, kind in found.unusable.items():
        raise Refusal("unsupported-tensor", f"tensor {name[:200]!r} is {kind}")
    for name, tensor in state_dict.items():
        if not name.isprintable() or len(name) > MAX_NAME_CHARACTERS or name == "__metadata__":
            raise Refusal("not-a-checkpoint", f"{name[:50]!a} is not allowed as the name of a tensor")
        _validate(name, tensor)
    facts = NetworkFacts(state_dict, None, program, found.aliases)
    forms = {form.weight: form for form in facts.forms}
    for layer in facts.convolutions + (facts.linear if program else []):
        form = forms.get(layer.name)
        if not _finite(form.compute(state_dict) if form else state_dict[layer.name]):
            raise Refusal(
                "non-finite-weights", f"tensor {layer.name!r} holds NaN, infinity or a value that is too large for float32"
            )
    if not facts.convolutions and not (program and facts.linear):
        raise Refusal("no-convolutions", "the checkpoint has no convolution (a weight with 3 to 5 dimensions) to represent")


def _validate(name: str, tensor: Tensor) -> None:
    """Raises Refusal if a tensor can't be stored."""
    if tensor.is_meta:
        raise Refusal("unsupported-tensor", f"tensor {name!r} has no values: it was saved from the meta device")
    if tensor.dtype not in NAMES:
        detail = f"tensor {name!r} is {tensor.dtype}, which safetensors files can't hold; convert it to another dtype"
        raise Refusal("unsupported-tensor", detail)


def validate_memory(state_dict: StateDict, nbytes: int) -> None:
    """Raises Refusal if the tensors in a file of `nbytes` bytes need far more memory than the file."""
    # A tensor with a stride of 0 repeats its storage, so it can be far larger than the file.
    for name, tensor in state_dict.items():
        if not tensor.is_meta and tensor.nbytes > tensor.untyped_storage().nbytes():
            raise Refusal("unsupported-tensor", f"tensor {name!r} is larger than its storage; save a contiguous copy of it")
    if sum(tensor.numel() * tensor.element_size() for tensor in state_dict.values()) > 4 * nbytes + 2**20:
        raise Refusal("too-demanding", "the tensors are much larger than the file; save contiguous copies of them")


def _finite(tensor: Tensor) -> bool:
    return all(bool(part.float().isfinite().all()) for part in tensor.reshape(-1).split(FINITE_ELEMENTS))
