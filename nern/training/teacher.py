"""The teacher, the inputs of distillation, and the held-out set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from nern import tensorfile
from nern.evaluation import Choose, HeldOutSet, label_facts, of_classifier
from nern.facts import ArrayFacts, DataFacts, ImageFacts, InputFacts, NoiseFacts
from nern.graph.program import Port
from nern.images import Images, InputSource, Noise
from nern.inputs import Inputs
from nern.randomness import generator
from nern.request import TrainingRequest
from nern.synthesis import ImagePool
from nern.teachers import Batch, device_of
from nern.training.gradients import OutputLoss, of_logits

Data = Images | Inputs | Noise


@dataclass(frozen=True)
class Teacher:
    """The original network and the source of its inputs, in batches of `image_batch`. `output_loss` compares its outputs."""

    network: nn.Module
    images: InputSource
    image_batch: int
    seed: int
    output_loss: OutputLoss = of_logits

    def inputs(self, stream: str, number: int) -> Batch:
        """The batch of this number in a stream of inputs: tensors (B, ...) on the network's device, one for each input."""
        return self.images.batch(self.image_batch, generator(self.seed, stream, number), device_of(self.network))


def facts_of(data: Data | None) -> DataFacts | None:
    """The facts about the data that planning needs."""
    if isinstance(data, Images):
        _, height, width, channels = data.pixels_NHWC.shape
        labels = label_facts(data.labels_N) if len(data) else None
        if labels is None or (labels.kind == "classes" and labels.shape == ()):
            return ImageFacts(len(data), channels, None if labels is None else labels.classes, height, width)
        return ImageFacts(len(data), channels, None, height, width, labels)
    if isinstance(data, Inputs):
        arrays = {
            name: ArrayFacts(tensorfile.NAMES.get(array.dtype, str(array.dtype)), tuple(array.shape[1:]))
            for name, array in data.arrays.items()
        }
        return InputFacts(len(data), arrays, label_facts(data.labels))
    return None if data is None else NoiseFacts(data.kind, data.shapes)


def split(
    data: Data,
    request: TrainingRequest,
    held_out_images: int,
    network: nn.Module,
    ports: Sequence[Port] = (),
    choose: Choose = of_classifier,
) -> tuple[InputSource, HeldOutSet]:
    """The source of inputs to distil on, and the held-out set.

    `ports` are the inputs of the network, and `choose` chooses the objectives of its outputs. Raises UnusableImages.
    """
    rng = generator(request.seed, "held out")
    if isinstance(data, Images):
        images, held_out = data.split(held_out_images, rng, augment=request.augment)
        return images, replace(HeldOutSet.of(held_out), facts=label_facts(data.labels_N))
    if isinstance(data, Inputs):
        return data.split(ports, held_out_images, rng)
    if data.kind == "matched":
        pool = ImagePool(data.shapes, request.synthesised_images, network, rng, augment=request.augment, choose=choose)
        return pool, HeldOutSet(pool.held_out)
    noise = data.batch(held_out_images, rng)
    return data, HeldOutSet(lambda: (noise,))
