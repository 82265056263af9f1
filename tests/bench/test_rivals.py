import sys

import pytest
import safetensors.torch
import torch
from torch import nn

from bench import quantisation
from bench.rivals import nncodec, quantised
from bench.rivals.distillation import Quantiser, distil
from bench.rivals.quantised import Quantised
from nern.architectures.cifar import ResNet
from nern.evaluation import Evaluator, HeldOutSet
from nern.layers import StateDict, find_layers
from tests.support.networks import images, odd, resnet8


def rounded(state_dict: StateDict, bits: int) -> dict[str, Quantised]:
    return {layer.name: Quantised.nearest(state_dict[layer.name], bits) for layer in find_layers(state_dict)}


@pytest.mark.parametrize("bits", [3, 8])
def test_a_file_holds_the_quantised_weights_and_everything_else_unchanged(bits: int) -> None:
    state_dict = odd() | {"up.weight": odd()["up.weight"].half()}
    weights = rounded(state_dict, bits)
    content, _ = quantised.write(weights, state_dict, bits)
    read = quantised.read(content)
    assert list(read) == list(state_dict)
    for name, tensor in state_dict.items():
        expected = weights[name].weight().to(tensor.dtype) if name in weights else tensor
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], expected), name


def test_the_sizes_are_those_of_the_parts_of_the_file() -> None:
    state_dict = odd()
    content, sizes = quantised.write(rounded(state_dict, 4), state_dict, 4)
    header = 8 + int.from_bytes(content[:8], "little")
    assert sizes.kept == sum(tensor.nbytes for name, tensor in state_dict.items() if name not in rounded(state_dict, 4))
    assert header + sizes.coded + sizes.kept == len(content)


def test_other_programs_read_the_parts_of_the_file() -> None:
    state_dict = odd()
    content, _ = quantised.write(rounded(state_dict, 4), state_dict, 4)
    parts = safetensors.torch.load(content)
    assert parts["codes.stem.weight"].dtype == torch.uint8
    assert parts["scales.stem.weight"].dtype == torch.float16
    assert torch.equal(parts["kept.norm.weight"], state_dict["norm.weight"])


def test_more_bits_take_more_bytes_and_come_closer() -> None:
    state_dict = odd()
    size, error = [], []
    for bits in (3, 5, 8):
        weights = rounded(state_dict, bits)
        size.append(quantised.write(weights, state_dict, bits)[1].coded)
        error.append(max((state_dict[name] - one.weight()).abs().max().item() for name, one in weights.items()))
    assert size == sorted(set(size))
    assert error == sorted(set(error), reverse=True)


def test_a_row_has_the_bytes_of_a_whole_file_and_the_accuracy_of_what_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    state_dict = resnet8()
    decoded: list[StateDict] = []

    def build(_: str, some: StateDict) -> nn.Module:
        decoded.append(some)
        return network(some)

    monkeypatch.setattr(quantisation, "build", build)
    row = quantisation.rounded(quantisation.prepare("cifar/resnet8", state_dict, images(), images(), seed=0), 4)
    content, _ = quantised.write(rounded(state_dict, 4), state_dict, 4)
    assert row["file"] * sum(4 * layer.weights for layer in find_layers(state_dict)) == pytest.approx(len(content))
    assert row["file"] > row["with kept"] > row["artefact"]
    assert all(torch.equal(decoded[-1][name], tensor) for name, tensor in quantised.read(content).items())


def test_a_quantiser_predicts_what_it_stores() -> None:
    quantiser = Quantiser(torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)), 3)
    optimizer = torch.optim.Adam(quantiser.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        quantiser().square().sum().backward()
        optimizer.step()
    stored = quantiser.quantised()
    assert stored.codes.abs().max() <= 3
    assert torch.equal(stored.scales.half().float(), stored.scales)
    assert torch.equal(quantiser(), stored.weight())


def test_rounding_passes_gradients_straight_through_but_not_beyond_the_largest_code() -> None:
    quantiser = Quantiser(torch.linspace(-1, 1, 101).view(1, 101), 3)
    quantiser().sum().backward()
    gradient = quantiser.weight.grad
    assert gradient is not None
    assert quantiser.log_scales.grad is not None
    inside = (quantiser.weight / quantiser.quantised().scales).abs() < 3
    assert torch.allclose(gradient, inside.float())
    assert not inside.all()


def test_distillation_comes_closer_to_the_original_than_rounding() -> None:
    state_dict, data = resnet8(), images()
    # The outputs of an untrained network hardly depend on its input.
    state_dict["linear.weight"] *= 30
    teacher, judge = network(state_dict), Evaluator(network(state_dict), HeldOutSet.of(data))
    source, _ = data.split(1, torch.Generator().manual_seed(0), augment=True)
    weights = {layer.name: state_dict[layer.name] for layer in find_layers(state_dict)}
    distilled = distil(teacher, weights, 2, source, judge, steps=100, learning_rate=1e-3, seed=0)

    def divergence(some: dict[str, Quantised]) -> float:
        found = judge.compare({name: one.weight() for name, one in some.items()}).divergence
        assert found is not None
        return found

    assert distilled.keys() == weights.keys()
    assert divergence(distilled) < 0.6 * divergence(rounded(state_dict, 2))
    assert all(torch.equal(teacher.state_dict()[name], tensor) for name, tensor in state_dict.items())


def test_a_missing_codec_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncodec", None)
    with pytest.raises(nncodec.MissingCodec, match="pip install --no-deps nncodec=="):
        nncodec.encode({}, -20)


def network(state_dict: StateDict) -> nn.Module:
    made = ResNet(8)
    made.load_state_dict(state_dict)
    return made.eval()
