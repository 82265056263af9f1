import pytest
import torch

from nern.errors import UnusableImages
from nern.images import Images, Noise, mirror_and_shift
from tests.support.networks import images


def test_inputs_are_normalised_channel_by_channel() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    made = Images(pixels, None, (0.5, 0.25), (0.5, 0.25))
    torch.testing.assert_close(made.normalised(pixels), torch.tensor([-1.0, 3.0]).view(1, 2, 1, 1))


def test_floats_are_pixels_from_0_to_1() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    made = Images(levels.float() / 255, None, (0.3,), (0.7,))
    assert torch.equal(made.normalised(made.pixels_NHWC), Images(levels, None, (0.3,), (0.7,)).normalised(levels))
    with pytest.raises(UnusableImages, match="float64; they must be uint8, or float32"):
        Images(levels.double(), None, (0.3,), (0.7,))


def test_mean_and_std_must_fit_the_channels() -> None:
    with pytest.raises(UnusableImages, match="3 channels"):
        Images(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), None, (0.5,), (0.5,))


def test_labels_and_pixels_must_be_there() -> None:
    with pytest.raises(UnusableImages, match="2 images, but 1 labels"):
        Images(torch.zeros(2, 4, 4, 1, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), (0.5,), (0.5,))
    with pytest.raises(UnusableImages, match="no pixels"):
        Images(torch.zeros(2, 0, 4, 1, dtype=torch.uint8), None, (0.5,), (0.5,))
    with pytest.raises(UnusableImages, match="on the CPU"):
        Images(torch.empty(2, 4, 4, 1, dtype=torch.uint8, device="meta"), None, (0.5,), (0.5,))


def test_a_split_is_disjoint_and_keeps_labels_with_their_images() -> None:
    pixels = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1)
    made = Images(pixels, torch.arange(50), (0.0,), (1.0,))
    train, held_out = made.split(10, torch.Generator().manual_seed(0), augment=False)
    assert held_out.labels_N is not None
    assert torch.equal(held_out.pixels_NHWC.flatten().long(), held_out.labels_N)
    [inputs] = train.batch(5000, torch.Generator().manual_seed(0))
    drawn = inputs.mul(255).round().long().unique()
    assert sorted([*drawn.tolist(), *held_out.labels_N.tolist()]) == list(range(50))


def test_augmented_images_are_mirrored_shifted_and_filled_with_zeros() -> None:
    image = torch.arange(1.0, 65.0).view(1, 1, 8, 8)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    windows = [padded[..., top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
    allowed = windows + [
        torch.nn.functional.pad(image.flip(3), (1, 1, 1, 1))[..., t : t + 8, u : u + 8] for t in range(3) for u in range(3)
    ]
    made = mirror_and_shift(image.expand(64, 1, 8, 8), torch.Generator().manual_seed(0))
    assert all(any(torch.equal(sample, window[0]) for window in allowed) for sample in made)
    assert len({sample.numpy().tobytes() for sample in made}) > 9


def test_batches_follow_from_the_generator() -> None:
    train, _ = images().split(10, torch.Generator().manual_seed(0), augment=True)
    (first,), (second,) = (train.batch(8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (8, 3, 8, 8)


def test_noise_has_the_range_that_its_name_says() -> None:
    [uniform] = Noise("uniform", (3, 8, 8)).batch(64, torch.Generator().manual_seed(0))
    [normal] = Noise("normal", (3, 8, 8)).batch(64, torch.Generator().manual_seed(0))
    assert uniform.abs().max() <= 1
    assert normal.abs().max() > 2
    assert abs(normal.std().item() - 1) < 0.05
