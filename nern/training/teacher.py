"""The teacher, the inputs of distillation, and the held-out set."""

from dataclasses import dataclass

from torch import Tensor, nn

from nern.evaluation import HeldOutSet
from nern.images import Images, ImageSource, Noise
from nern.planning import DataFacts, ImageFacts, NoiseFacts
from nern.randomness import generator
from nern.request import TrainingRequest
from nern.synthesis import ImagePool

Data = Images | Noise


@dataclass(frozen=True)
class Teacher:
    """The original network and the source of its inputs, in batches of `image_batch`."""

    network: nn.Module
    images: ImageSource
    image_batch: int
    seed: int

    def inputs(self, stream: str, number: int) -> Tensor:
        """The batch of this number in a stream of inputs: float32 (B, channels, height, width) on the network's device."""
        device = next(self.network.parameters()).device
        return self.images.batch(self.image_batch, generator(self.seed, stream, number), device)


def facts_of(data: Data | None) -> DataFacts | None:
    """The facts about the data that planning needs."""
    if isinstance(data, Images):
        classes = None if data.labels_N is None or not len(data) else int(data.labels_N.max()) + 1
        return ImageFacts(len(data), data.pixels_NHWC.shape[-1], classes)
    return None if data is None else NoiseFacts(data.kind)


def split(data: Data, request: TrainingRequest, held_out_images: int, network: nn.Module) -> tuple[ImageSource, HeldOutSet]:
    """The source of inputs to distil on, and the held-out set. Raises UnusableImages."""
    rng = generator(request.seed, "held out")
    if isinstance(data, Images):
        images, held_out = data.split(held_out_images, rng, augment=request.augment)
        return images, HeldOutSet.of(held_out)
    if data.kind == "matched":
        pool = ImagePool(data.shape, request.synthesised_images, network, rng, augment=request.augment)
        return pool, HeldOutSet(pool.held_out)
    noise = data.batch(held_out_images, rng)
    return data, HeldOutSet(lambda: (noise,))
