"""Building networks without their weights."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# What modules initialise their parameters with. On the meta device that does nothing, at half of a network's time.
_INITIALISERS = {
    getattr(Tensor, name) for name in ("normal_", "uniform_", "zero_", "fill_", "erfinv_", "mul_", "add_", "clamp_")
}


class _ParametersOnMeta(TorchFunctionMode):
    """Puts uninitialised and constant tensors, which is how modules allocate parameters, on the meta device.

    `torch.device("meta")` would also move the small tensors that some builders compute their widths with.
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
    """What `build` returns, with parameters that have a shape and a dtype but no storage."""
    with _ParametersOnMeta():
        return build()
