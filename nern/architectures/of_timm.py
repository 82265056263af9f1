"""The networks of timm, which is needed only to build them."""

from typing import Any

from torch import nn

from nern.architectures.table import read
from nern.architectures.variant import Variant
from nern.errors import UnknownArchitecture


def installed() -> Any:
    """The package timm. Raises UnknownArchitecture if it is not installed."""
    try:
        import timm
    except ImportError:
        detail = "this network is built with the package timm, which is not installed here: install 'nern[timm]'"
        raise UnknownArchitecture(detail, "/architecture") from None
    return timm


def variants(model: str) -> list[Variant]:
    """The one variant of a network. `model` is its name in timm. Raises UnknownArchitecture if timm is not installed."""
    entry = read().entries[f"timm/{model}"][0]
    return [of_timm(model, classes=entry.classes, image_size=entry.image_size)]


def of_timm(model: str, **facts: Any) -> Variant:
    """The variant of a network, with the fields of Variant that are known."""
    create = installed().create_model

    def build(classes: int) -> nn.Module:
        # A network without classes has no head, whatever the number of classes.
        try:
            network: nn.Module = create(model, **({"num_classes": classes} if facts["classes"] else {}))
        except RuntimeError as error:
            raise UnknownArchitecture(f"the installed timm can't build timm/{model}: {error}", "/architecture") from error
        return network

    return Variant(build, rank=1, **facts)
