"""The original network as a teacher, and the data that it teaches and judges with."""

from dataclasses import dataclass

from torch import Tensor, nn

from nern.evaluation import HeldOutSet
from nern.images import Images, ImageSource, Noise
from nern.plan import Plan
from nern.planning import HELD_OUT_NOISE_INPUTS, DataFacts, DatasetFacts, NoiseFacts
from nern.randomness import generator
from nern.request import TrainingRequest
from nern.synthesis import ImagePool

Data = Images | Noise


@dataclass(frozen=True)
class Teacher:
    """The original network and a source of inputs."""

    network: nn.Module
    images: ImageSource
    image_batch: int
    seed: int

    def inputs(self, stream: str, number: int) -> Tensor:
        """A batch of a stream of inputs, by its number: (B, channels, height, width) on the network's device."""
        device = next(self.network.parameters()).device
        return self.images.batch(self.image_batch, generator(self.seed, stream, number), device)


def facts_of(data: Data | None) -> DataFacts | None:
    """What planning wants to know of the data."""
    if isinstance(data, Images):
        classes = None if data.labels_N is None or not len(data) else int(data.labels_N.max()) + 1
        return DatasetFacts(len(data), data.pixels_NHWC.shape[-1], classes)
    return None if data is None else NoiseFacts(data.kind)


def split(data: Data, request: TrainingRequest, held_out_images: int, network: nn.Module) -> tuple[ImageSource, HeldOutSet]:
    """Inputs to distil from, and a held-out set. Raises UnusableImages."""
    rng = generator(request.seed, "held out")
    if isinstance(data, Images):
        images, held_out = data.split(held_out_images, rng, augment=request.augment)
        return images, HeldOutSet.of(held_out)
    if data.kind == "matched":
        pool = ImagePool(data.shape, request.synthesised_images, network, rng, augment=request.augment)
        return pool, HeldOutSet(pool.held_out)
    noise = data.batch(HELD_OUT_NOISE_INPUTS, rng)
    return data, HeldOutSet(lambda: (noise,))


def teacher_of(plan: Plan, network: nn.Module, images: ImageSource) -> Teacher:
    """The teacher as a plan wants it."""
    return Teacher(network, images, plan.request.image_batch, plan.request.seed)
