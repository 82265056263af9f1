"""Networks as trainings take them: modules of architectures and programs, with the names of the checkpoint."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from nern.architectures import build
from nern.errors import BadProgram, ImpossibleRequest, NotRepresentable, UnknownArchitecture, UnusableImages
from nern.facts import ArrayFacts, DataFacts, ImageFacts, InputFacts, NetworkFacts, NoiseFacts
from nern.graph.batching import Batched
from nern.graph.program import Node, Port, Program, Ref
from nern.images import Noise
from nern.inputs import Inputs
from nern.layers import TensorFacts
from nern.network import Network
from nern.objectives import LabelFacts
from nern.planning import make_plan
from nern.request import DecoupledRequest, read_request
from nern.synthesis import ImagePool, follow_statistics
from nern.teachers import Renamed, call
from nern.training import maps, train
from nern.training.subject import digest
from tests.support import programs
from tests.support.networks import images, resnet8
from tests.support.programs import Denoiser, Pair, TwoInputs, made


class Returns(nn.Module):
    """Returns what it was made with."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: Tensor) -> object:
        return self.result


A, B = torch.zeros(1), torch.ones(1)


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (A, ["output"]),
        ((A, B), ["0", "1"]),
        ({"out": A, "aux": B}, ["out", "aux"]),
        ([{"boxes": A}, {"boxes": B}], ["0.boxes", "1.boxes"]),
        ({"out": A, "features": [A, B], "size": 3, "none": None}, ["out", "features.0", "features.1"]),
    ],
)
def test_outputs_are_named_whatever_a_network_returns(result: object, names: list[str]) -> None:
    outputs = call(Returns(result), {}, (A,))
    assert list(outputs) == names
    assert all(isinstance(output, Tensor) for output in outputs.values())


def exported_resnet8() -> Network:
    return programs.network(build("cifar/resnet8", resnet8()), torch.randn(2, 3, 8, 8))


def test_a_program_is_the_network_whose_program_it_is() -> None:
    module, graph = build("cifar/resnet8", resnet8()), exported_resnet8().build()
    assert isinstance(graph, Batched)
    inputs = (torch.randn(4, 3, 8, 8),)
    weights = {name: 1.1 * weight for name, weight in resnet8().items() if name.endswith("conv1.weight")}
    for changed in ({}, weights):
        [expected], [found] = (call(network, changed, inputs).values() for network in (module, graph))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with maps.recorded(module) as theirs:
        call(module, {}, inputs)
    with maps.recorded(graph) as ours:
        call(graph, {}, inputs)
    assert len(ours) == len(theirs) == 10
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    losses = []
    for network in (module, graph):
        pool = ImagePool([(3, 8, 8)], 10, network, torch.Generator().manual_seed(0))
        losses.append(follow_statistics(network, pool, 0, torch.Generator().manual_seed(0))["statistics"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_program_is_distilled_as_the_architecture_is() -> None:
    request = DecoupledRequest(steps=12, reconstruction_steps=6, hidden=8, image_batch=8, objective="classes")
    by_name = train(Network(resnet8(), "cifar/resnet8"), request, data=images())
    program = train(exported_resnet8(), request, data=images())
    assert program.best.comparison is not None
    assert by_name.best.comparison is not None
    assert program.best.step == by_name.best.step
    assert program.best.rank == pytest.approx(by_name.best.rank, rel=1e-2)
    assert program.best.comparison.original_accuracy == by_name.best.comparison.original_accuracy


def test_a_prefix_and_a_tensor_beside_the_network_change_nothing() -> None:
    prefixed = {f"backbone.{name}": tensor for name, tensor in resnet8().items()} | {"loss.centre": torch.ones(3)}
    plain = Network(resnet8(), "cifar/resnet8")
    request = DecoupledRequest(steps=8, reconstruction_steps=4, hidden=8, image_batch=8, feature_map_weight=0.1)
    results = [train(network, request, data=images()) for network in (plain, Network(prefixed, "cifar/resnet8"))]
    assert results[0].best == results[1].best
    for one, other in zip(*(result.representation.predictor.parameters() for result in results), strict=True):
        assert torch.equal(one, other)
    assert results[1].representation.layers[0].name == "backbone.conv1.weight"
    matched = Network(prefixed, "cifar/resnet8")
    noise = request.with_values({"synthesised_images": 1, "synthesis_steps": 2})
    assert train(matched, noise, data=Noise("matched", (3, 8, 8))).distilled


def test_an_architecture_that_is_named_goes_before_the_program() -> None:
    graph = exported_resnet8()
    assert isinstance(replace(graph, architecture="graph").build(), Batched)
    assert isinstance(Network(resnet8(), "cifar/resnet8", graph.program).build(), Renamed)
    with pytest.raises(UnknownArchitecture, match="has no graph"):
        train(Network(resnet8(), "graph"), DecoupledRequest(steps=1, hidden=8))
    lacking = {name: tensor for name, tensor in graph.state_dict.items() if name != "conv1.weight"}
    with pytest.raises(BadProgram, match=r"conv1\.weight"):
        train(replace(graph, state_dict=lacking), DecoupledRequest(steps=1, hidden=8), data=images())


def test_everything_a_training_depends_on_is_in_its_digest() -> None:
    graph = exported_resnet8()
    hashes = {
        digest(network, None)
        for network in (
            graph,
            replace(graph, program=None),
            replace(graph, architecture="cifar/resnet8"),
        )
    }
    assert len(hashes) == 3


def test_a_tied_layer_of_a_program_is_represented_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.two(self.one(x).relu()))  # type: ignore[no-any-return]

    network = programs.network(made(Tied), torch.randn(2, 3, 8, 8))
    network.state_dict["two.weight"] = network.state_dict["one.weight"]  # type: ignore[index]  # a dictionary
    trained = train(network, DecoupledRequest(steps=4, hidden=8, image_batch=4), data=images())
    assert [layer.name for layer in trained.representation.layers] == ["one.weight", "out.weight"]
    built, inputs = network.build(), (torch.randn(1, 3, 8, 8),)
    changed = {"one.weight": torch.zeros(3, 3, 3, 3)}
    both = changed | {"two.weight": torch.zeros(3, 3, 3, 3)}
    untied = replace(network, state_dict={name: tensor.clone() for name, tensor in network.state_dict.items()}).build()
    [found], [expected] = call(built, changed, inputs).values(), call(untied, both, inputs).values()
    torch.testing.assert_close(found, expected)


def test_matched_noise_of_two_inputs_comes_to_match() -> None:
    network = programs.network(made(Pair), torch.randn(2, 1, 8, 8), torch.randn(2, 2, 8, 8)).build()
    pool = ImagePool([(1, 8, 8), (2, 8, 8)], 128, network, torch.Generator().manual_seed(0))
    assert pool.classes is None, "its output is a picture"
    optimizer = torch.optim.Adam(pool.parameters(), lr=0.1)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        losses.append(follow_statistics(network, pool, 0, torch.Generator().manual_seed(step)))
        optimizer.step()
    assert list(losses[0]) == ["statistics"]
    assert losses[-1]["statistics"] < losses[0]["statistics"] / 2
    left, right = pool.batch(5, torch.Generator().manual_seed(0))
    assert (left.shape, right.shape) == ((5, 1, 8, 8), (5, 2, 8, 8))
    [held_out] = pool.held_out()
    assert [part.shape for part in held_out] == [(128, 1, 8, 8), (128, 2, 8, 8)]


def program(*inputs: Port, outputs: tuple[Port, ...] | None = None) -> NetworkFacts:
    """The facts about a program that gives its inputs back."""
    tensors = {"a.weight": TensorFacts((8, 3, 3, 3), torch.float32)}
    return NetworkFacts(tensors, None, Program(inputs, outputs or inputs, {}, ()))


IMAGE = program(Port("x", "F32", (None, 3, 8, 8)))
ANY_SIZE = program(Port("x", "F32", (None, 3, None, None)))
WORDS = program(Port("ids", "I64", (None, 5)), outputs=(Port("ids", "F32", (None, 5)),))
PAIR = program(Port("x", "F32", (None, 3, 8, 8)), Port("t", "F32", (None, 4)))
PHOTOS = ImageFacts(images=40, channels=3, classes=None, height=8, width=8)


def arrays(**shapes: tuple[int, ...]) -> InputFacts:
    return InputFacts(40, {name: ArrayFacts("F32", shape) for name, shape in shapes.items()}, None)


INTEGERS = InputFacts(40, {"ids": ArrayFacts("I32", (5,))}, None)


@pytest.mark.parametrize(
    ("network", "data", "reason", "pointer"),
    [
        (IMAGE, replace(PHOTOS, height=9), "have 9 x 8 pixels, but the network takes 8 x 8", "/data/dataset_id"),
        (IMAGE, replace(PHOTOS, channels=1), "have 1 channels, but the network takes 3", "/data/dataset_id"),
        (IMAGE, replace(PHOTOS, images=1), "1 image; at least 2", "/data/dataset_id"),
        (IMAGE, replace(arrays(x=(3, 8, 8)), inputs=1), "1 input; at least 2", "/data/dataset_id"),
        (WORDS, PHOTOS, "takes integers", "/data/dataset_id"),
        (program(Port("x", "F32", (None, 1, 100))), PHOTOS, "has the shape any x 1 x 100", "/data/dataset_id"),
        (PAIR, PHOTOS, r"has 2 inputs \(x, t\)", "/data/dataset_id"),
        (PAIR, arrays(x=(3, 8, 8)), "the dataset has the inputs x, but the network takes x, t", "/data/dataset_id"),
        (PAIR, arrays(x=(3, 8, 8), u=(4,)), "the dataset has the inputs x, u, but", "/data/dataset_id"),
        (
            PAIR,
            arrays(x=(3, 8, 8), t=(5,)),
            "'t': its shape is any x 5, but the network takes any x 4",
            "/data/dataset_id",
        ),
        (IMAGE, INTEGERS, "it is I32, but the network takes floating-point numbers", "/data/dataset_id"),
        (WORDS, arrays(ids=(5,)), "it is F32, but the network takes integers", "/data/dataset_id"),
        (WORDS, NoiseFacts("normal"), "takes integers, which noise can't replace", "/data/noise"),
        (ANY_SIZE, NoiseFacts("uniform"), "'x' is any x 3 x any x any, so the shape of noise is not known", "/data/noise"),
        (IMAGE, NoiseFacts("matched"), "no batch norm", "/data/noise"),
        (program(Port("x", "F32", (2, 3)), Port("t", "F32", (4, 3))), arrays(x=(3,), t=(3,)), "the extents 2, 4", "/data"),
        (program(Port("x", "F32", ())), NoiseFacts("normal"), "'x' of the graph is one number", "/data"),
        (
            program(Port("x", "F32", (None, 3, 8, 8)), outputs=(Port("x", "F32", (None, 5)),)),
            replace(PHOTOS, classes=6),
            "a label is 5, but the network has only 5 classes",
            "/data/dataset_id",
        ),
    ],
)
def test_data_that_a_program_can_not_take_are_refused(
    network: NetworkFacts, data: DataFacts, reason: str, pointer: str
) -> None:
    with pytest.raises(UnusableImages, match=reason) as refused:
        make_plan(DecoupledRequest(), network, data)
    assert refused.value.pointer == pointer


@pytest.mark.parametrize(
    ("network", "data"),
    [
        (IMAGE, PHOTOS),
        (ANY_SIZE, replace(PHOTOS, height=100)),
        (IMAGE, arrays(anything=(3, 8, 8))),
        (PAIR, arrays(t=(4,), x=(3, 8, 8))),
        (WORDS, INTEGERS),
        (IMAGE, NoiseFacts("normal")),
        (ANY_SIZE, NoiseFacts("normal", ((3, 9, 9),))),
        (program(Port("x", "F32", (1, 3, 8, 8))), PHOTOS),
        (program(Port("x", "F32", (4, 3, 8, 8))), PHOTOS),
    ],
)
def test_data_that_fit_are_accepted(network: NetworkFacts, data: DataFacts) -> None:
    assert make_plan(DecoupledRequest(), network, data).distils


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({"objective": {"z": "values"}}, "/objective"),
        ({"objective": {"x": "ignore"}}, "/objective"),
        ({"target": {"drop": 1.0}}, "/target"),
    ],
)
def test_what_a_program_can_not_be_asked_is_refused(wanted: dict[str, Any], pointer: str) -> None:
    targets = replace(arrays(x=(3, 8, 8)), labels=LabelFacts("values", (3, 8, 8)))
    with pytest.raises(ImpossibleRequest) as refused:
        make_plan(read_request(wanted), IMAGE, targets)
    assert refused.value.pointer == pointer


def test_inputs_must_fit_each_other() -> None:
    rows = torch.zeros(4, 2)
    with pytest.raises(UnusableImages, match="no inputs"):
        Inputs({})
    with pytest.raises(UnusableImages, match="differ in number: 'a' 4, 'b' 3"):
        Inputs({"a": rows, "b": rows[:3]})
    with pytest.raises(UnusableImages, match="4 inputs, but 3 labels"):
        Inputs({"a": rows}, torch.zeros(3))
    with pytest.raises(UnusableImages, match="4 inputs, but 0 labels"):
        Inputs({"a": rows}, torch.tensor(1))
    with pytest.raises(UnusableImages, match="on the CPU"):
        Inputs({"a": rows.to("meta")})
    with pytest.raises(UnusableImages, match=r"'a' of shape \[4, 0\] has no numbers"):
        Inputs({"a": rows[:, :0]})


def test_inputs_are_split_in_the_order_and_the_dtypes_of_the_network() -> None:
    numbers = torch.arange(50)
    data = Inputs({"ids": numbers.int().view(50, 1), "x": numbers.double().view(50, 1)}, numbers)
    ports = (Port("x", "F64", (None, 1)), Port("ids", "I64", (None, 1)))
    source, held_out = data.split(ports, 10, torch.Generator().manual_seed(0))
    x, ids = source.batch(2000, torch.Generator().manual_seed(0))
    assert (x.dtype, ids.dtype) == (torch.float32, torch.int64)
    assert torch.equal(x.long(), ids)
    [(x, ids)] = list(held_out.batches())
    assert held_out.labels is not None
    assert torch.equal(held_out.labels, ids.flatten())
    drawn = source.batch(2000, torch.Generator().manual_seed(0))[1].unique().tolist()
    assert sorted([*drawn, *ids.flatten().tolist()]) == list(range(50))


def test_everything_are_convolutions_linear_layers_and_embeddings() -> None:
    network = programs.network(made(TwoInputs), torch.randn(2, 3, 8, 8), torch.randint(10, (2, 3)))
    plans = {
        layers: make_plan(DecoupledRequest(layers=layers), network.facts, None)
        for layers in (cast("Any", "all"), cast("Any", "everything"))
    }
    names = {layers: [layer.name for layer in cast("Any", plan).layers] for layers, plan in plans.items()}
    assert names == {"all": ["conv.weight"], "everything": ["conv.weight", "words.weight", "head.weight"]}
    linear = NetworkFacts({"fc.weight": TensorFacts((8, 8), torch.float32)}, None)
    with pytest.raises(NotRepresentable, match='layers "everything" represents linear layers'):
        make_plan(DecoupledRequest(), linear, None)
    assert make_plan(DecoupledRequest(layers="everything"), linear, None)


def test_weights_of_a_program_are_found_whatever_their_names_are() -> None:
    graph = programs.network(made(Denoiser), torch.randn(2, 1, 8, 8))
    assert graph.program is not None
    names = {name: f"onnx::{number}" for number, name in enumerate(graph.state_dict)}
    renamed = replace(graph.program, tensors={value: names[name] for value, name in graph.program.tensors.items()})
    network = Network({names[name]: tensor for name, tensor in graph.state_dict.items()}, None, renamed)
    shapes = [layer.shape for layer in network.facts.convolutions]
    assert shapes == [layer.shape for layer in graph.facts.convolutions]
    assert len(shapes) == 4
    assert train(network, DecoupledRequest(steps=4, hidden=8, image_batch=4), data=images(channels=1)).distilled


@pytest.mark.parametrize("operator", ["aten.addmm.default", "aten.mm.default"])
def test_a_program_tells_weights_whatever_their_names_are(operator: str) -> None:
    operands = (Ref("b"), Ref("x"), Ref("w")) if operator == "aten.addmm.default" else (Ref("x"), Ref("w"))
    program = Program(
        inputs=(Port("x", "F32", (None, 3)),),
        outputs=(Port("y", "F32", (None, 4)),),
        tensors={"w": "first_matrix", "b": "first_offset"},
        nodes=(Node(operator, operands, {}, ("y",)),),
    )
    tensors = {"first_matrix": torch.zeros(3, 4), "first_offset": torch.zeros(4)}
    assert [layer.name for layer in NetworkFacts(tensors, None, program).linear] == ["first_matrix"]
    assert NetworkFacts(tensors, None).linear == []
