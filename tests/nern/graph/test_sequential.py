"""Descriptions of sequential networks become programs that compute what torch computes."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nern.errors import BadDescription
from nern.graph.interpreter import GraphNetwork
from nern.graph.proposal import propose
from nern.graph.sequential import ALIASES, KINDS, REQUIRED, to_program

Case = tuple[nn.Sequential, list[str], tuple[int, ...]]


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def tutorial() -> nn.Sequential:
    """The network of PyTorch's tutorial on CIFAR-10."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


TUTORIAL = [
    "conv", "relu", "maxpool 2 stride=2", "Conv2d", "ReLU", "MaxPool2d 2", "flatten", "linear", "relu", "fc", "relu", "linear",
]  # fmt: skip

# One network for every kind of step, with fields that are not the defaults.
CASES: dict[str, Case] = {
    "tutorial": (tutorial(), TUTORIAL, (3, 32, 32)),
    "images": (
        nn.Sequential(
            nn.ZeroPad2d((1, 2, 3, 4)), nn.Conv2d(3, 8, 3, stride=2, dilation=2, padding=(1, 2), bias=False),
            nn.BatchNorm2d(8, eps=1e-3), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 3, padding="same", groups=4), nn.PReLU(8),
            nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), nn.GroupNorm(2, 8), nn.GELU(),
            nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1), nn.ELU(0.5), nn.Dropout(0.3),
            nn.AdaptiveMaxPool2d((2, 3)), nn.Hardswish(), nn.Flatten(2), nn.Linear(6, 5), nn.LayerNorm(5), nn.Softmax(1),
        ),
        [
            "zero_pad 1,2,3,4", "conv stride=2 dilation=2 padding=1,2", "batch_norm eps=1e-3", "leaky_relu 0.2",
            "conv padding=same groups=4", "prelu", "avg_pool 3 stride=2 padding=1 count_include_pad=false", "group_norm 2",
            "gelu", "conv_transpose stride=2 padding=1 output_padding=1", "elu 0.5", "dropout 0.3", "adaptive_max_pool 2,3",
            "hardswish", "flatten 2", "linear", "layer_norm", "softmax 1",
        ],
        (3, 17, 19),
    ),
    "super-resolution": (
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.Mish(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.SiLU(),
            nn.Conv2d(8, 9, 3, padding="valid"), nn.PixelShuffle(3), nn.Upsample(scale_factor=2), nn.Softplus(), nn.SELU(),
            nn.Identity(), nn.ReLU6(),
        ),
        [
            "conv 1", "mish", "upsample 2 mode=bilinear", "silu", "conv padding=valid", "pixel_shuffle 3", "upsample 2",
            "softplus", "selu", "identity", "relu6",
        ],
        (1, 7, 9),
    ),
    "audio": (
        nn.Sequential(
            nn.Conv1d(1, 8, 80, stride=4), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(4, ceil_mode=True), nn.Conv1d(8, 4, 3),
            nn.Sigmoid(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3), nn.LogSoftmax(1),
        ),
        [
            "conv stride=4", "bn", "relu", "maxpool 4 ceil_mode=true", "conv", "sigmoid", "adaptiveavgpool", "flatten",
            "linear", "log_softmax",
        ],
        (1, 333),
    ),
    "volumes": (
        nn.Sequential(nn.Conv3d(2, 4, 3), nn.Tanh(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(4 * 27, 2)),
        ["conv", "tanh", "maxpool 2", "flatten", "linear"],
        (2, 8, 8, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape_is_given", [True, False])
def test_a_description_computes_what_torch_computes(name: str, shape_is_given: bool) -> None:
    network, steps, shape = CASES[name]
    torch.manual_seed(0)
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    inputs = torch.randn(3, *shape)
    program = to_program(steps, shapes_of(network), shape if shape_is_given else None)
    with torch.no_grad():
        expected: Tensor = network.eval()(inputs)
        outputs = GraphNetwork(program, network.state_dict())(inputs)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    if shape_is_given:
        assert program.inputs[0].shape == (None, *shape)
        assert program.outputs[0].shape == (None, *expected.shape[1:])


def test_every_step_is_documented_with_its_fields_and_defaults() -> None:
    document = (Path(__file__).parents[3] / "docs/graphs.md").read_text()
    for name, kind in KINDS.items():
        [row] = [line for line in document.splitlines() if line.startswith(f"| `{name}`")]
        for field, default in kind.fields.items():
            text = "" if default is REQUIRED else f"={str(default).lower()}"
            assert f"`{field}{text}`" in row, row
    assert all(f"(`{alias}`)" in document for alias in ALIASES)


def test_the_cases_have_every_kind_of_step() -> None:
    used = {step.split()[0].lower().replace("_", "").removesuffix("2d") for _, steps, _ in CASES.values() for step in steps}
    assert KINDS.keys() - {"convtranspose", "batchnorm"} <= used | {"identity"}


@pytest.mark.parametrize(
    ("steps", "pointer", "message"),
    [
        (TUTORIAL[:-1], "/11", "goes on with '11.weight' of shape [10, 84]"),
        ([*TUTORIAL, "linear"], "/12", "step 13, 'linear': the checkpoint has no weights left"),
        (["conv", "linear"], "/1", "the next weights of the checkpoint are '3.weight' of shape [16, 6, 5, 5]"),
        (["conv padding=2", *TUTORIAL[1:]], "/7", "takes 400 numbers, but the step gets the shape [576]"),
        (["conv groups=2", *TUTORIAL[1:]], "/0", "takes 6 channels, but the step gets the shape [3, 32, 32]"),
        (["convolution"], "/0", "there is no step 'convolution'; the steps are conv, "),
        (["conv pading=1"], "/0", "'pading=1' is not a field of this step; its fields are padding, stride, "),
        (["relu inplace=true"], "/0", "it has no fields"),
        (["conv", "maxpool"], "/1", "kernel_size is missing"),
        (["conv", "maxpool 0"], "/1", "kernel_size must be at least 1"),
        (["conv", "maxpool 40"], "/1", "the shape [6, 28, 28], which is too small"),
        (["conv stride=fast"], "/0", "stride must be a number"),
        (["conv padding=1,1,1"], "/0", "give one whole number, or 2 of them"),
        (["1 conv"], "/0", "a step is a name and fields"),
        ([], "/0", "goes on with '0.weight'"),
    ],
)  # fmt: skip
def test_the_first_step_that_does_not_fit_is_named(steps: list[str], pointer: str, message: str) -> None:
    with pytest.raises(BadDescription, match=re.escape(message)) as refusal:
        to_program(steps, shapes_of(tutorial()), (3, 32, 32))
    assert refusal.value.pointer == pointer


def test_weights_that_no_step_can_take_are_refused() -> None:
    with pytest.raises(BadDescription, match="no convolution and no linear layer"):
        to_program(["relu"], {"scale": (3,)})


def test_the_proposal_for_the_tutorial_is_the_tutorial() -> None:
    steps = propose(shapes_of(tutorial()))
    assert steps == [
        "conv", "relu", "maxpool 2", "conv", "relu", "maxpool 2", "flatten", "linear", "relu", "linear", "relu", "linear",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["audio", "volumes"])
def test_a_proposal_fits_the_weights(name: str) -> None:
    network, _, _ = CASES[name]
    steps = propose(shapes_of(network))
    assert steps is not None
    to_program(steps, shapes_of(network))


def test_a_proposal_has_paddings_norms_and_groups() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )  # fmt: skip
    assert propose(shapes_of(network)) == [
        "conv padding=1", "batchnorm", "relu", "conv padding=2 groups=8", "relu", "conv",
    ]  # fmt: skip


def test_networks_with_branches_get_no_proposal() -> None:
    residual = {"conv1.weight": (8, 3, 3, 3), "conv2.weight": (8, 8, 3, 3), "shortcut.weight": (4, 16, 1, 1)}
    assert propose(residual) is None
    assert propose({"fc.weight": (2, 3)}) is None
    assert propose({"conv.weight": (8, 3, 3, 3), "mask": (4, 4, 4, 4, 4, 4)}) is None
