import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nern import evaluation
from nern.errors import UnusableImages
from nern.evaluation import Evaluator, HeldOutSet
from nern.measures import Measure, Moments, OutputComparison
from nern.objectives import Objective, OutputFacts, choose


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def compared(
    objective: Objective, original: Tensor, rebuilt: Tensor, labels: Tensor | None = None, parts: int = 1
) -> OutputComparison:
    """The comparison of two outputs, from so many microbatches."""
    moments = Moments()
    for part in original.tensor_split(parts):
        moments.add(part)
    target_range = (labels.max() - labels.min()).item() if labels is not None and labels.is_floating_point() else 0.0
    measure = Measure(objective, moments, target_range)
    split = [None] * parts if labels is None else labels.tensor_split(parts)
    for one, other, of_part in zip(original.tensor_split(parts), rebuilt.tensor_split(parts), split, strict=True):
        measure.add(one, other, of_part)
    return measure.result()


VALUES, CLASSES = Objective("y", "values"), Objective("y", "classes")


@pytest.mark.parametrize("shape", [(12,), (12, 3), (12, 3, 5), (12, 2, 3, 4)])
def test_a_network_that_always_gives_the_mean_has_the_relative_error_1(shape: tuple[int, ...]) -> None:
    original = rand(*shape) * 3 + 100 * torch.arange(shape[1] if len(shape) > 1 else 1).view(-1, *[1] * (len(shape) - 2))
    original = original.view(shape)
    mean = original.mean([dim for dim in range(len(shape)) if dim != 1], keepdim=True).expand(shape)
    assert compared(VALUES, original, mean).relative_error == pytest.approx(1, rel=1e-5)
    assert compared(VALUES, original, original).relative_error == 0


@pytest.mark.parametrize("objective", [VALUES, CLASSES])
@pytest.mark.parametrize(
    "labels", [None, torch.arange(30).view(10, 3) % 4, rand(10, 4, 3, seed=2)], ids=["none", "classes", "floats"]
)
def test_microbatches_give_the_figures_of_the_whole(objective: Objective, labels: Tensor | None) -> None:
    original, rebuilt = rand(10, 4, 3), rand(10, 4, 3, seed=1)
    whole, parts = (compared(objective, original, rebuilt, labels, parts) for parts in (1, 4))
    for name, value in vars(whole).items():
        other = getattr(parts, name)
        if isinstance(value, float):
            assert other == pytest.approx(value, rel=1e-5), name
        elif value is not None and name in ("quality", "original_quality"):
            assert (other.mse, other.psnr) == pytest.approx((value.mse, value.psnr), rel=1e-5)
        else:
            assert other == value, name
    assert (whole.divergence is None) == (objective is VALUES)


def test_the_figures_of_dense_classes_are_means_over_positions() -> None:
    original, rebuilt = rand(6, 4, 5, 5), rand(6, 4, 5, 5, seed=1)
    labels = torch.randint(0, 4, (6, 5, 5), generator=torch.Generator().manual_seed(2))
    labels[0] = 255
    found = compared(CLASSES, original, rebuilt, labels, parts=2)
    flat = [one.movedim(1, -1).reshape(-1, 4) for one in (original, rebuilt)]
    divergence = F.kl_div(flat[1].log_softmax(1), flat[0].log_softmax(1), reduction="batchmean", log_target=True)
    assert found.divergence == pytest.approx(divergence.item(), rel=1e-5)
    classes = [one.argmax(1) for one in flat]
    assert found.agreement == pytest.approx((classes[0] == classes[1]).double().mean().item())
    known = labels.flatten() != 255
    assert found.original_accuracy == pytest.approx((classes[0] == labels.flatten())[known].double().mean().item())
    assert found.accuracy == pytest.approx((classes[1] == labels.flatten())[known].double().mean().item())


def test_probabilities_diverge_as_their_logits_do() -> None:
    original, rebuilt = rand(8, 5), rand(8, 5, seed=1)
    of_logits = compared(CLASSES, original, rebuilt)
    of_probabilities = compared(Objective("y", "classes", probabilities=True), original.softmax(1), rebuilt.softmax(1))
    assert of_probabilities.divergence == pytest.approx(of_logits.divergence, rel=1e-4)
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert compared(Objective("y", "classes", probabilities=True), certain, certain).divergence == 0


def test_psnr_is_that_of_the_range_of_the_original() -> None:
    original = torch.tensor([0.0, 2.0]).view(1, 1, 2)
    assert compared(VALUES, original, original + 0.2).psnr == pytest.approx(20)
    assert compared(VALUES, original, original).psnr == math.inf
    assert compared(VALUES, rand(4, 3), rand(4, 3)).psnr is None, "three numbers are no picture"
    targets = torch.tensor([0.0, 4.0]).view(1, 1, 2)
    quality = compared(VALUES, original, original + 0.2, targets).original_quality
    assert quality is not None
    assert (quality.mse, quality.psnr) == pytest.approx((2.0, 10 * math.log10(16 / 2)))


def test_an_output_without_spread_is_measured_by_its_size() -> None:
    constant = torch.full((4, 2), 3.0)
    assert compared(VALUES, constant, constant + 0.3).relative_error == pytest.approx(0.1, rel=1e-5)
    assert compared(VALUES, torch.zeros(4, 2), torch.full((4, 2), 0.5)).relative_error == pytest.approx(0.5)
    one = torch.tensor([[3.0, 4.0]])
    assert compared(VALUES, one, one * 1.1).relative_error == pytest.approx(0.1, rel=1e-5)


class Summed(nn.Module):
    """Gives the weighted sum of its input, and its sign as an integer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(rand(3, 5), requires_grad=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = x @ self.weight
        return {"y": y, "sign": y.sign().long()}


def test_outputs_that_are_too_many_to_keep_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = rand(20, 3)
    held_out = HeldOutSet(lambda: ((part,) for part in inputs.split(8)))
    weights = {"weight": rand(3, 5, seed=1)}
    kept = Evaluator(Summed(), held_out).compare(weights)
    monkeypatch.setattr(evaluation, "MAX_KEPT_OUTPUTS", 10)
    assert Evaluator(Summed(), held_out).compare(weights) == kept
    assert kept.images == 20
    assert [output.name for output in kept.outputs] == ["y"], "integers have no gradient and are ignored"


class Wrong(nn.Module):
    """Gives what no batch of inputs has."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.weight, self.result = nn.Parameter(torch.zeros(1)), result

    def forward(self, x: Tensor) -> object:
        return self.result


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (torch.zeros(()), "first axis must count the inputs"),
        (torch.zeros(3, 4), "first axis must count the inputs"),
        (torch.zeros(2, 0), "first axis must count the inputs"),
        ({"number": 3, "nothing": None}, "gives no tensor"),
        (torch.full((2, 4), torch.nan), "not finite"),
        ((torch.zeros(2, 4), torch.full((2, 4), torch.inf)), "not finite"),
    ],
)
def test_outputs_that_can_not_be_compared_are_refused(result: object, reason: str) -> None:
    with pytest.raises(UnusableImages, match=reason):
        Evaluator(Wrong(result), HeldOutSet(lambda: ((torch.zeros(2, 3),),)))


def test_the_loss_of_values_is_relative_to_the_spread_of_the_held_out_outputs() -> None:
    inputs = rand(50, 3)
    evaluator = Evaluator(
        Summed(),
        HeldOutSet(lambda: ((inputs,),)),
        choose=lambda outputs, labels: choose(outputs, {"y": "values"}, labels, by_name=False),
    )
    original = inputs @ Summed().weight
    expected = (original + 1 - original).square().mean() / original.var(0, correction=0).mean()
    found = evaluator.loss({"y": original}, {"y": original + 1})
    torch.testing.assert_close(found, expected)


def test_the_rank_of_several_outputs_is_their_sum() -> None:
    assert choose([OutputFacts("a", (None, 4), softmax_axis=1), OutputFacts("b", (None, 4))], None, None, by_name=False) == (
        Objective("a", "classes", probabilities=True),
        Objective("b", "values"),
    )
    outputs = [OutputComparison("a", "classes", 0.5, divergence=0.25), OutputComparison("b", "values", 0.125)]
    comparison = evaluation.Comparison.of(3, outputs)
    assert comparison.rank == 0.375
    assert (comparison.divergence, comparison.agreement) == (0.25, None)
