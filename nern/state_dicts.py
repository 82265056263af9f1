"""Finding the state_dict in the content of a checkpoint."""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from nern.errors import NoStateDict
from nern.layers import StateDict

# The keys under which training scripts save a state_dict. Averaged weights come first, because authors report the accuracy of
# these.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "module",
)

# The prefixes that wrapper modules, such as DataParallel and torch.compile, put before every name.
PREFIX = re.compile(r"(?:module|_orig_mod|model|net|network)\.")


def find_state_dict(loaded: object) -> StateDict:
    """The state_dict in the content of a checkpoint, without the prefixes of wrapper modules.

    Raises NoStateDict if there is none.
    """
    found = next(_candidates(loaded), None)
    if found is None:
        raise NoStateDict("the file was read, but it holds no state_dict: save model.state_dict()")
    names = list(found)
    while (first := PREFIX.match(names[0])) and all(name.startswith(first[0]) for name in names):
        names = [name.removeprefix(first[0]) for name in names]
    return dict(zip(names, found.values(), strict=True))


def _candidates(loaded: object, depth: int = 0) -> Iterator[StateDict]:
    if not isinstance(loaded, Mapping) or depth > 3:
        return
    for key in WRAPPERS:
        yield from _candidates(loaded.get(key), depth + 1)
    tensors: dict[str, Tensor] = {
        key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)
    }
    if tensors and len(tensors) >= len(loaded) / 2:
        yield tensors
