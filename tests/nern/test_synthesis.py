import pytest
import torch
from torch import nn

from nern.architectures import build
from nern.errors import UnusableImages
from nern.images import Noise
from nern.network import Network
from nern.request import DecoupledRequest
from nern.synthesis import ImagePool, follow_statistics, statistics
from nern.training import Progress, Snapshot, train
from tests.support.networks import resnet8

SHAPE = (3, 8, 8)
NOISE = Noise("matched", SHAPE)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_come_to_match_what_the_batch_norms_remember() -> None:
    network = build("cifar/resnet8", resnet8()).train()
    for seed in range(30):
        network(torch.rand(32, *SHAPE, generator=generator(seed)).cumsum(3))
    network.eval()
    pool = ImagePool([SHAPE], 128, network, generator())
    optimizer = torch.optim.Adam(pool.parameters(), lr=0.1)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        losses.append(follow_statistics(network, pool, 0, generator(step)))
        optimizer.step()
    assert losses[-1]["statistics"] < losses[0]["statistics"] / 2
    assert losses[-1]["classes"] < losses[0]["classes"]


def test_statistics_that_match_differ_by_nothing() -> None:
    norm = nn.BatchNorm2d(3)
    x = torch.randn(64, 3, 4, 4, generator=generator()) * 2 + 1
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    norm.running_mean, norm.running_var = mean, variance
    with statistics(norm) as differences:
        norm.eval()(x)
        norm(x + variance.sqrt()[:, None, None])
    assert [difference.item() for difference in differences] == pytest.approx([0.0, 1.0], abs=1e-5)


def test_images_held_out_are_never_drawn() -> None:
    pool = ImagePool([SHAPE], 100, build("cifar/resnet8", resnet8()), generator())
    with torch.no_grad():
        pool.groups[0].fill_(1.0)
        pool.groups[-1].fill_(2.0)
    [drawn] = pool.batch(500, generator())
    assert drawn.unique().tolist() == [0.0, 1.0]
    [(held_out,)] = pool.held_out()
    assert held_out.unique().tolist() == [2.0]


def test_large_images_are_made_in_smaller_groups() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pool = ImagePool([(3, 224, 224)], 50, network, generator())
    assert pool.sizes.group_images == 27
    assert sum(len(group) for (group,) in pool.held_out()) >= 128
    assert pool.sizes.training_groups == 2


def test_images_are_mirrored_and_shifted_unless_that_is_not_wanted() -> None:
    pool = ImagePool([SHAPE], 100, build("cifar/resnet8", resnet8()), generator(), augment=False)
    [drawn] = pool.batch(50, generator())
    assert all(any(torch.equal(image, made) for made in pool.groups[0]) for image in drawn)


def test_inputs_that_the_network_can_not_take_are_refused() -> None:
    with pytest.raises(UnusableImages, match="can't take inputs of shape"):
        ImagePool([(1, 8, 8)], 10, build("cifar/resnet8", resnet8()), generator())


def test_a_network_without_batch_norms_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(UnusableImages, match="no batch norm"):
        ImagePool([SHAPE], 10, network, generator())


def test_more_images_than_memory_can_hold_are_refused() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UnusableImages, match="at most 7133 are"):
        ImagePool([(3, 224, 224)], 10_000, network, generator())


def test_a_training_makes_its_images_first() -> None:
    seen: list[Progress] = []
    snapshots: list[Snapshot] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        snapshots.append(progress.snapshot())

    config = DecoupledRequest(steps=12, hidden=8, synthesised_images=100, synthesis_steps=3, image_batch=8)
    trained = train(Network(resnet8(), "cifar/resnet8"), config, data=NOISE, on_progress=watch)
    assert [progress.phase for progress in seen] == ["synthesis"] * 6 + ["reconstruction"] * 10 + ["distillation"] * 2
    assert not any(progress.evaluation for progress in seen[:6])
    [optimizer] = snapshots[5].optimizers
    assert len(optimizer["state"]) == 1, "what Adam remembers of finished groups is of no more use"
    assert trained.best.comparison is not None
    assert trained.best.comparison.images == 128
