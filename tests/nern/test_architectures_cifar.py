"""Networks for CIFAR. Each computes what the published implementation computes that has the same tensors."""

import pytest
import torch

from nern.architectures.cifar import NETWORKS
from tests.support.networks import filled

# Parameters and the first logits of an image, by published code with the weights of `filled`.
PUBLISHED = [
    ("lenet", 62006, [-2.0615, 0.1654, 1.881]),
    ("resnet20", 269722, [40.7036, -11.1665, -7.4943]),
    ("resnet18", 11173962, [-0.287, -7.955, 21.0362]),
    ("resnet18_pooled", 11173962, [28.3238, -2.3031, -1.2914]),
    ("preactresnet18", 11171146, [3.587, 6.9831, 29.3175]),
    ("preactresnet50", 23509066, [481.0236, -115.5372, 245.1042]),
    ("senet18", 11260354, [-1.93, 4.2448, 9.096]),
    ("preresnet20", 272282, [-67.1423, -32.7844, 15.7859]),
    ("wrn16_4", 2748890, [-3.4816, 22.8247, 3.5142]),
    ("vgg11_bn", 9231114, [-0.8077, 1.4152, 0.6571]),
    ("resnext29_2x64d", 9128778, [-44.5951, 63.1522, -26.2972]),
    ("densenet_cifar", 1000618, [-0.5907, -3.1734, -1.7315]),
    ("googlenet", 6166250, [-1.83, -0.4166, -4.4178]),
    ("repvgg_a0", 7840874, [-302753.5625, -186495.5938, -189696.3594]),
    ("dpn26", 11574842, [-3.3313, 13.9953, 3.436]),
    ("dla", 16291386, [-6.7343, -8.81, 12.414]),
    ("dla_simple", 15142970, [7.253, -7.6299, 5.2585]),
    ("pnasnet_a", 130646, [-1582.941, -30480.2812, 102968.375]),
    ("pnasnet_b", 451626, [4942.3779, -6086.3457, -1422.0414]),
    ("regnetx_200mf", 2321946, [-96.4131, 11.9188, 112.1107]),
    ("regnety_400mf", 5714362, [-97.4532, -101.1092, 85.7283]),
    ("mobilenet", 3217226, [-0.4556, 0.2945, -0.1953]),
    ("mobilenetv2", 2296922, [15618.583, -540.093, 9384.0332]),
    ("mobilenetv2_x0_5", 700490, [0.0755, -1.1256, 1.5757]),
    ("efficientnet_b0", 3599686, [0.1391, -0.0102, -0.5192]),
    ("shufflenet_g2", 887582, [-44.3629, 48.3737, 51.0512]),
    ("shufflenet_g3", 862768, [-106.3494, 67.9909, -53.7426]),
    ("shufflenetv2_0_5", 352042, [-4.1009, 0.3587, 1.9403]),
    ("shufflenetv2_x0_5", 352042, [26.7785, 36.0355, 12.855]),
]


@pytest.mark.parametrize(("name", "parameters", "logits"), PUBLISHED, ids=[name for name, _, _ in PUBLISHED])
def test_a_network_computes_what_the_published_one_computes(name: str, parameters: int, logits: list[float]) -> None:
    network = filled(NETWORKS[f"cifar/{name}"][0](10))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    image = torch.sin(torch.arange(3 * 32 * 32.0)).reshape(1, 3, 32, 32)
    with torch.no_grad():
        made = network(image)[0, :3]
    torch.testing.assert_close(made, torch.tensor(logits), rtol=0.01, atol=0.01 * max(map(abs, logits)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
def test_other_names_of_layers_are_the_same_function(name: str) -> None:
    # The first of a network of 6n + 2 layers has shortcuts without parameters.
    first, *others = NETWORKS[f"cifar/{name}"][name == "resnet20" :]
    network = filled(first(10))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for build in others:
        other = build(10).eval()
        values = iter(network.state_dict().values())
        other.load_state_dict({name: next(values) for name in other.state_dict()})
        torch.testing.assert_close(other(images), network(images))


def test_a_final_batch_norm_of_a_preactivated_network_is_used() -> None:
    network = filled(NETWORKS["cifar/preactresnet18"][1](10))
    network.get_submodule("bn").load_state_dict(
        dict.fromkeys(("weight", "bias", "running_mean"), torch.zeros(512)), strict=False
    )
    logits = network(torch.randn(1, 3, 32, 32))
    assert torch.equal(logits[0], network.get_parameter("linear.bias"))


def test_the_published_wide_networks_have_the_sizes_of_the_paper() -> None:
    for name, millions in (("wrn16_4", 2.7), ("wrn40_2", 2.2), ("wrn28_10", 36.5)):
        network = NETWORKS[f"cifar/{name}"][0](10)
        assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1) == millions
