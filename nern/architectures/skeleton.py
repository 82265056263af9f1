"""Building networks without allocating their weights."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# The functions with which modules initialise parameters. On the meta device they have no effect, but take half of the time.
_INITIALISERS = {
    getattr(Tensor, name) for name in ("normal_", "uniform_", "zero_", "fill_", "erfinv_", "mul_", "add_", "clamp_")
}


class _ParametersOnMeta(TorchFunctionMode):
    """A mode in which torch.empty, torch.zeros and torch.ones, which modules allocate parameters with, use the meta device.

    The context `torch.device("meta")` would also move other tensors. Some networks compute their widths with such tensors.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _INITIALISERS and args[0].is_meta:
            return args[0]
        if func in (torch.empty, torch.zeros, torch.ones) and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def skeleton(build: Callable[[], nn.Module]) -> nn.Module:
    """The network that `build` builds. Its parameters are on the meta device: they have shapes and dtypes, but no values."""
    with _ParametersOnMeta():
        return build()
