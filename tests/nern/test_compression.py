from typing import Any

import numpy as np
import pytest
import torch

from nern import coding
from nern.errors import BadArtefact
from nern.network import Network
from nern.quantisation import Linear
from nern.rendering import render_layer
from nern.report import make_report
from nern.request import DecoupledRequest
from nern.training import train
from tests.support.networks import images, resnet8
from tests.support.representations import opened, untrained, written


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_rounded_layer_has_few_values_in_each_row(bits: int) -> None:
    torch.manual_seed(0)
    layer = Linear(300, 5)
    layer.quantise(bits)
    assert layer(torch.eye(300)).unique(dim=0).shape[0] > 1
    for row in layer(torch.eye(300)).T:
        assert len(row.round(decimals=6).unique()) <= 2**bits - 1
    assert layer.codes().abs().max() <= 2 ** (bits - 1) - 1


def test_more_bits_lose_less() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 40)
    losses = []
    for bits in (2, 3, 4, 6, 8):
        torch.manual_seed(1)
        layer = Linear(40, 30)
        exact = layer(x)
        layer.quantise(bits)
        losses.append((layer(x) - exact).norm().item() / exact.norm().item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01


def test_rows_too_small_for_float16_are_no_obstacle() -> None:
    layer = Linear(4, 2)
    with torch.no_grad():
        layer.weight.fill_(1e-9)
    layer.quantise(8)
    layer(torch.ones(1, 4)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()
    assert (layer.scales() > 0).all()


def test_rounding_passes_gradients_on_to_weights_and_steps() -> None:
    layer = Linear(8, 3)
    layer.quantise(3)
    layer(torch.ones(2, 8)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in layer.parameters())


def test_weights_are_put_in_the_middle_of_what_is_rounded_like_them() -> None:
    layer, x = Linear(6, 4), torch.randn(5, 6)
    layer.quantise(4)
    before = layer(x)
    exact = layer.weight.detach().clone()
    layer.centre()
    torch.testing.assert_close(layer(x), before)
    assert not torch.allclose(layer.weight, exact)
    torch.testing.assert_close(layer.weight, layer.codes() * layer.scales()[:, None])


@pytest.mark.parametrize(("bits", "moved"), [(4, 0.05), (8, 0.05 * 8 / 127)])
def test_the_steps_of_small_rows_are_learned_as_slowly_as_those_of_large_ones(bits: int, moved: float) -> None:
    layer = Linear(6, 4)
    with torch.no_grad():
        layer.weight[0] *= 0.1
    layer.quantise(bits)
    before = layer.scales().detach()
    assert layer.log_scales is not None
    optimizer = torch.optim.Adam([layer.log_scales], lr=0.05)
    layer(torch.ones(3, 6)).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close((layer.scales() / before).log().abs(), torch.full((4,), moved), rtol=0, atol=1e-3)


def test_pruned_weights_stay_zero() -> None:
    predictor = untrained(resnet8()).predictor
    predictor.quantise(6, sparsity=0.5)
    for _, layer in predictor.linear():
        assert (layer.codes() == 0).float().mean() >= 0.5
        with torch.no_grad():
            layer.weight.add_(1.0)
        assert (layer.codes() == 0).float().mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("bits", "of_first"), [(3, 8), (8, 10)])
def test_the_first_layer_has_more_bits(bits: int, of_first: int) -> None:
    predictor = untrained(resnet8()).predictor
    predictor.quantise(bits, sparsity=0.0)
    first, *others = (int(layer.codes().abs().max()).bit_length() + 1 for _, layer in predictor.linear())
    assert first == of_first
    assert all(width == bits for width in others)


@pytest.mark.parametrize(("bits", "deviation", "zeros", "most"), [(6, 3, 0, 1.05), (10, 100, 0, 1.05), (10, 100, 0.5, 1.2)])
def test_coded_integers_come_back_and_take_about_their_entropy(bits: int, deviation: float, zeros: float, most: float) -> None:
    chance = torch.Generator().manual_seed(0)
    numbers = torch.randn(200, 300, generator=chance) * deviation * (torch.rand(200, 300, generator=chance) >= zeros)
    codes = numbers.round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).to(torch.int16)
    coded = coding.encode(codes, bits)
    assert torch.equal(coding.decode(coded, (200, 300), bits), codes)
    share = np.unique(codes.numpy(), return_counts=True)[1] / codes.numel()
    entropy = -(share * np.log2(share)).sum() * codes.numel() / 8
    assert entropy < coded.numel() < entropy * most


@pytest.mark.parametrize(("data", "shape"), [(b"\xff\xff", (2,)), (b"", (2,))])
def test_damaged_codes_are_refused(data: bytes, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadArtefact):
        coding.decode(torch.tensor(list(data), dtype=torch.uint8), shape, 8)


@pytest.mark.parametrize("bits", [8, 10])
def test_another_number_of_codes_is_refused(bits: int) -> None:
    coded = coding.encode(torch.zeros(10, dtype=torch.int16), bits)
    for shape, data in (((9,), coded), ((11,), coded), ((10,), coded[:-1]), ((10,), torch.cat([coded, coded[-1:]]))):
        with pytest.raises(BadArtefact, match="expected"):
            coding.decode(data, shape, bits)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_compressed_predictor_comes_back_from_the_artefact(bits: int) -> None:
    state_dict = resnet8()
    representation = untrained(state_dict, hidden=32)
    _, plain = written(representation, state_dict)
    representation.predictor.quantise(bits, sparsity=0.0)
    content, nbytes = written(representation, state_dict)
    assert nbytes.predictor < plain.predictor * (bits + 2) / 32
    rebuilt = opened(content)
    for number, weight in enumerate(representation.render_all()):
        torch.testing.assert_close(render_layer(rebuilt.representation, number), weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"data": images()}])
def test_a_job_can_ask_for_a_compressed_predictor(arguments: dict[str, Any]) -> None:
    state_dict = resnet8()
    config = DecoupledRequest(steps=90, hidden=32, bits=5, sparsity=0.3, compression_steps=40)
    trained = train(Network(state_dict, "cifar/resnet8"), config, **arguments)
    assert trained.best.compressed
    content, nbytes = written(trained.representation, state_dict)
    report = make_report(trained, opened(content), nbytes, state_dict)
    assert report["relative_error"]["overall"] == pytest.approx(trained.best.relative_error, rel=1e-6)
    predictor = trained.representation.predictor
    _, first = next(predictor.linear())
    bits = 5 * predictor.config.parameters(trained.representation.tiles) + (8 - 5) * first.weight.numel()
    assert nbytes.predictor < bits / 8


@pytest.mark.parametrize(("bits", "bytes_each"), [(16, 2), (32, 4)])
def test_a_predictor_is_stored_in_half_precision_unless_a_job_wants_more(bits: Any, bytes_each: int) -> None:
    state_dict = resnet8()
    trained = train(Network(state_dict), DecoupledRequest(steps=5, hidden=8, bits=bits))
    content, nbytes = written(trained.representation, state_dict)
    assert nbytes.predictor == bytes_each * sum(p.numel() for p in trained.representation.predictor.parameters())
    for number, weight in enumerate(trained.representation.render_all()):
        torch.testing.assert_close(render_layer(opened(content).representation, number), weight)
    report = make_report(trained, opened(content), nbytes, state_dict)
    assert report["relative_error"]["overall"] == pytest.approx(trained.best.relative_error, rel=1e-6)


def test_what_float16_can_not_hold_stays_in_float32() -> None:
    predictor = untrained(resnet8()).predictor
    with torch.no_grad():
        bias = predictor.get_parameter("heads.0.bias").fill_(1e6)
    predictor.halve()
    assert torch.equal(bias, torch.full_like(bias, 1e6))


def test_compression_needs_few_bits() -> None:
    for wrong in ({"sparsity": 0.5}, {"compression_steps": 5}, {"bits": 4, "compression_steps": 0}, {"bits": 9}):
        with pytest.raises(ValueError, match=r"bits|2, 3, 4"):
            DecoupledRequest(**wrong)


def test_there_have_to_be_steps_that_train_what_is_compressed() -> None:
    for wrong in ({"steps": 10, "bits": 8, "compression_steps": 10}, {"steps": 1, "bits": 4}):
        with pytest.raises(ValueError, match="other steps have trained"):
            DecoupledRequest.model_validate(wrong)
