"""Reading of files of torch.export."""

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nern.errors import BadProgram
from nern.graph import archive, exported
from nern.graph.interpreter import GraphNetwork
from nern.graph.program import Program
from tests.support.exports import difference, flat, opened, saved, zoo_file
from tests.support.zoo import ZOO

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Calling(nn.Module):
    """A network of one convolution whose code is a function."""

    def __init__(self, function: Callable[[nn.Conv2d, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv, x)


def changed(content: bytes, change: Callable[[dict[str, bytes]], None], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The archive after `change` has changed its members, which are named without their folder."""
    with zipfile.ZipFile(BytesIO(content)) as source:
        members = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    change(members)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for name, data in members.items():
            target.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def edited(content: bytes, edit: Callable[[Any], None]) -> bytes:
    """The archive with another graph."""

    def change(members: dict[str, bytes]) -> None:
        graph = json.loads(members["models/model.json"])
        edit(graph)
        members["models/model.json"] = json.dumps(graph).encode()

    return changed(content, change)


@pytest.mark.parametrize(
    ("free", "core"), [(False, True), (True, False)], ids=["batch-of-one-core-ir", "any-batch-training-ir"]
)
@pytest.mark.parametrize("name", ZOO)
def test_a_program_computes_what_the_network_computes(name: str, free: bool, core: bool) -> None:
    network = ZOO[name].network()
    found = opened(zoo_file(name, free=free, core=core))
    inputs = ZOO[name].inputs(3 if free else 1, seed=5)
    program = Program.from_json(json.loads(json.dumps(found.program.to_json())))
    with torch.no_grad():
        assert difference(GraphNetwork(program, found.state_dict)(*inputs), network(*inputs)) < 1e-5
    assert found.notes == ()
    assert {key: (value.shape, value.dtype) for key, value in found.state_dict.items()} == {
        key: (value.shape, value.dtype) for key, value in network.state_dict().items()
    }
    assert [port.shape and port.shape[1:] for port in program.inputs] == list(ZOO[name].shapes)
    assert {port.shape and port.shape[0] for port in program.inputs} == {None if free else 1}


@pytest.mark.parametrize("name", ZOO)
def test_replaced_weights_get_the_gradients_of_the_network(name: str) -> None:
    network = ZOO[name].network()
    found = opened(zoo_file(name, free=True))
    inputs = ZOO[name].inputs(2, seed=5)
    own = {key: value.detach().clone().requires_grad_() for key, value in network.named_parameters()}
    sum(output.square().sum() for output in flat(functional_call(network, own, inputs))).backward()  # type: ignore[union-attr]
    given = {key: value.detach().clone().requires_grad_() for key, value in network.named_parameters()}
    outputs = GraphNetwork(found.program, found.state_dict)(*inputs, weights=given)
    sum(output.square().sum() for output in flat(outputs)).backward()  # type: ignore[union-attr]
    for key, weight in given.items():
        if weight.grad is None:
            # A program names a tied weight once.
            assert key not in found.program.tensors.values(), key
            continue
        expected = own[key].grad
        assert expected is not None
        torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=1e-4)


def test_a_program_in_training_mode_is_set_to_evaluation() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 2)).train()
    found = opened(saved(network, [IMAGE]))
    assert found.notes == (
        "The program was exported in training mode. Its 1 batch norms were set to evaluation mode.",
        "The program was exported in training mode. Its 1 dropouts were set to evaluation mode.",
    )
    assert difference(GraphNetwork(found.program, found.state_dict)(IMAGE), network.eval()(IMAGE)) < 1e-5
    decomposed = opened(saved(network.train(), [IMAGE], core=True))
    assert difference(GraphNetwork(decomposed.program, decomposed.state_dict)(IMAGE), network.eval()(IMAGE)) < 1e-5


def earlier(members: dict[str, bytes], state_dict: dict[str, Tensor]) -> None:
    for name in [name for name in members if name.startswith("data/")]:
        del members[name]
    buffer = BytesIO()
    torch.save(state_dict, buffer)
    members["data/weights/model.pt"] = buffer.getvalue()
    members["data/constants/model.pt"] = b""


def test_the_layout_of_torch_2_8_is_read() -> None:
    network = ZOO["residual"].network()
    content = changed(zoo_file("residual"), lambda members: earlier(members, network.state_dict()))
    found = opened(content)
    inputs = ZOO["residual"].inputs(1)
    assert difference(GraphNetwork(found.program, found.state_dict)(*inputs), network(*inputs)) < 1e-5


def test_the_layout_of_torch_2_6_is_read() -> None:
    network = ZOO["windows"].network()
    with zipfile.ZipFile(BytesIO(zoo_file("windows"))) as source:
        graph = source.read("archive/models/model.json")
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("serialized_exported_program.json", graph)
        for member, tensors in (("state_dict", network.state_dict()), ("constants", {"mask": network.mask})):
            pickled = BytesIO()
            torch.save(tensors, pickled)
            target.writestr(f"serialized_{member}.pt", pickled.getvalue())
        target.writestr("version", "8.2")
    found = opened(buffer.getvalue())
    inputs = ZOO["windows"].inputs(1)
    assert difference(GraphNetwork(found.program, found.state_dict)(*inputs), network(*inputs)) < 1e-5


def test_tied_weights_have_both_names_and_share_memory() -> None:
    found = opened(zoo_file("shared"))
    assert found.state_dict["first.weight"].data_ptr() == found.state_dict["second.weight"].data_ptr()


def test_tensors_of_any_layout_and_dtype_are_read() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = torch.arange(24.0).reshape(4, 6)
            self.turned = nn.Parameter(whole.t())
            self.part = nn.Parameter(whole[1:3, 2:4])
            self.register_buffer("small", torch.tensor([1, 2], dtype=torch.uint8))
            self.register_buffer("rough", torch.ones(3).to(torch.float8_e4m3fn))
            self.register_buffer("wave", torch.ones(2, dtype=torch.complex64))
            self.register_buffer("empty", torch.zeros(0, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.turned + self.part.sum()

    network = Odd()
    found = opened(saved(network, [torch.ones(1, 6)]))
    for name, tensor in network.state_dict().items():
        assert found.state_dict[name].dtype == tensor.dtype
        assert torch.equal(found.state_dict[name].to(torch.complex64), tensor.to(torch.complex64)), name


def relu_of_used(conv: nn.Conv2d, x: Tensor) -> Any:
    y = conv(x)
    F.relu(y, inplace=True)
    return y + y.mean()


def part_replaced(conv: nn.Conv2d, x: Tensor) -> Any:
    y = conv(x)
    right = y[:, 2:]
    y[:, 1:3] = -1.0
    y[:, 0].mul_(2.0)
    return y.sum((2, 3)) + right.mean()


def views_changed(conv: nn.Conv2d, x: Tensor) -> Any:
    y = conv(x)
    turned = y.permute(1, 0, 2, 3).transpose(2, 3)
    turned[0].add_(1.0)
    y.view(2, -1)[:, 5:9].zero_()
    return turned.unsqueeze(0)


def mask_made(conv: nn.Conv2d, x: Tensor) -> Any:
    mask = torch.zeros(8, 8)
    for number, part in enumerate((slice(0, 3), slice(3, 6), slice(6, None))):
        mask[part, :4] = number
    return conv(x) * mask


def without_gradients(conv: nn.Conv2d, x: Tensor) -> Any:
    y = conv(x)
    with torch.no_grad():
        scale = y.abs().amax() + 1
        shift = scale / 2
    return y / scale + shift


def single_chunk(conv: nn.Conv2d, x: Tensor) -> Any:
    (whole,) = conv(x).split(4, 1)
    return torch.stack(torch.meshgrid(whole[0, 0, 0], indexing="ij"))


def dropout_then_change(conv: nn.Conv2d, x: Tensor) -> Any:
    y = conv(x)
    z = F.dropout(y, 0.5, training=False)
    return F.relu_(z) + y


@pytest.mark.parametrize(
    "function",
    [
        relu_of_used,
        part_replaced,
        views_changed,
        mask_made,
        without_gradients,
        single_chunk,
        dropout_then_change,
        lambda conv, x: conv(x.relu_()) + x.mean(),
        lambda conv, x: {"b": conv(x), "a": (x.mean(), 3)},
    ],
    ids=lambda function: function.__name__,
)
@pytest.mark.parametrize("core", [False, True], ids=["training-ir", "core-ir"])
def test_code_of_many_styles_is_read(function: Callable[[nn.Conv2d, Tensor], Any], core: bool) -> None:
    network = Calling(function).eval()
    found = opened(saved(network, [IMAGE], core=core))
    given = IMAGE.clone()
    graph = GraphNetwork(found.program, found.state_dict)
    outputs = [graph(given) for _ in range(2)][1]
    assert torch.equal(given, IMAGE)
    leaves, _ = torch.utils._pytree.tree_flatten(network(IMAGE.clone()))
    assert difference(outputs, [leaf for leaf in leaves if isinstance(leaf, Tensor)]) < 1e-5


def test_outputs_in_a_dict_have_the_names_of_their_keys() -> None:
    network = Calling(lambda conv, x: {"out": conv(x), "aux": x.mean(), "x": x})
    assert next(port.name for port in opened(saved(network, [IMAGE])).program.outputs) != "out"
    network = Calling(lambda conv, x: {"out": conv(x), "aux": x.mean()})
    program = opened(saved(network, [IMAGE])).program
    assert [(port.name, port.shape) for port in program.outputs] == [("out", (2, 4, 8, 8)), ("aux", ())]


def test_a_change_through_a_copy_that_may_be_a_view_is_refused() -> None:
    def change(conv: nn.Conv2d, x: Tensor) -> Any:
        y = conv(x)
        y.reshape(2, -1).add_(1.0)
        return y

    with pytest.raises(BadProgram, match=r"changed in place through aten.reshape.default at .*run_decompositions"):
        opened(saved(Calling(change), [IMAGE]))


def condition(conv: nn.Conv2d, x: Tensor) -> Any:
    return torch.cond(x.sum() > 0, lambda value: conv(value), lambda value: -conv(value), (x,))


@torch.library.custom_op("nern_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


twice.register_fake(lambda x: torch.empty_like(x))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (condition, r"control flow or a call of a graph \(higher_order.cond\) at 'cond'"),
        (lambda conv, x: twice(conv(x)), r"the custom operator nern_tests.twice.default at 'twice' is not supported"),
        (lambda conv, x: torch.rand_like(conv(x)), r"the operator aten.rand_like.default at 'rand_like' is not supported"),
        (lambda conv, x: conv(x).flatten(1).sort()[0].cos().as_strided((2, 2), (1, 1)), "aten.as_strided.default"),
        (lambda conv, x: 3 if conv(x).dim() else None, "no tensor among its outputs"),
    ],
)
def test_what_is_not_supported_is_named_with_its_place(function: Callable[[nn.Conv2d, Tensor], Any], message: str) -> None:
    with pytest.raises(BadProgram, match=message):
        opened(saved(Calling(function), [IMAGE]))


def test_the_place_has_the_path_of_the_module() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.fft.fft(x).real

    with pytest.raises(BadProgram, match=r"aten.fft_fft.default at '1 \(fft_fft\)'"):
        opened(saved(nn.Sequential(nn.ReLU(), Inner()), [IMAGE]))


def pickled_weight(members: dict[str, bytes]) -> None:
    config = json.loads(members["data/weights/model_weights_config.json"])
    config["config"]["conv1.weight"]["use_pickle"] = True
    members["data/weights/model_weights_config.json"] = json.dumps(config).encode()


def weight_meta(**fields: Any) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        config = json.loads(members["data/weights/model_weights_config.json"])
        config["config"]["conv1.weight"]["tensor_meta"] |= fields
        members["data/weights/model_weights_config.json"] = json.dumps(config).encode()

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.pop("data/weights/weight_0"), "no member data/weights/weight_0"),
        (lambda members: members.update({"data/weights/weight_0": b""}), "has no bytes"),
        (lambda members: members.update({"data/weights/weight_0": b"1234"}), "larger than its bytes"),
        (pickled_weight, "'conv1.weight' is an object of Python or a tensor of a class of its own"),
        (weight_meta(strides=[{"as_int": 2**40}] * 4), "larger than its bytes"),
        (weight_meta(sizes=[{"as_int": 2**20}] * 2, strides=[{"as_int": 0}] * 2), "repeats its elements"),
        (weight_meta(sizes=[{"as_int": -1}], strides=[{"as_int": 1}]), "impossible shape"),
        (weight_meta(sizes=[{"as_int": 2**60}]), "damaged"),
        (weight_meta(dtype=99), "dtype or a layout that is not supported"),
        (weight_meta(layout=1), "dtype or a layout that is not supported"),
        (lambda members: members.update(byteorder=b"big"), "big-endian"),
        (lambda members: members.update({"models/model.json": b"[" * 200_000}), "not JSON, or is nested too deeply"),
        (lambda members: members.update({"models/model.json": b"{}"}), "damaged, or of an unknown release"),
        (lambda members: [members.pop(name) for name in list(members) if "model" in name], "holds no program of torch.export"),
        (
            lambda members: members.update({"data/aotinductor/a.so": members.pop("models/model.json")}),
            "compiled machine code and no graph",
        ),
    ],
)
def test_a_damaged_archive_is_refused(change: Callable[[dict[str, bytes]], None], message: str) -> None:
    with pytest.raises(BadProgram, match=message):
        opened(changed(zoo_file("tutorial"), change))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda graph: graph["schema_version"].update(major=9), "version 9 of the format"),
        (lambda graph: graph["graph_module"]["graph"]["nodes"][0].update(target="torch.ops.aten.conv2d.other"), "conv2d.other"),
        (lambda graph: graph["graph_module"]["graph"]["nodes"][0].update(target="os.system"), "custom operator os.system"),
        (lambda graph: graph["graph_module"]["graph"]["nodes"][0]["inputs"].clear(), "lacks the argument input"),
        (
            lambda graph: graph["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(name="other"),
            "arguments that this release",
        ),
        (lambda graph: graph["graph_module"]["graph"]["nodes"].pop(0), "which no earlier node gives"),
        (lambda graph: graph["graph_module"]["graph"]["tensor_values"].clear(), "damaged"),
        (lambda graph: graph["graph_module"]["signature"]["input_specs"].pop(), "damaged"),
        (
            lambda graph: graph["graph_module"]["signature"]["input_specs"][0]["parameter"].update(parameter_name="lost"),
            "uses the tensor 'lost', which the archive does not have",
        ),
        (
            lambda graph: graph["graph_module"]["signature"]["input_specs"].__setitem__(
                0, {"custom_obj": {"arg": {"name": "o", "class_fqn": "c"}, "custom_obj_name": "thing"}}
            ),
            "an object of Python or C",
        ),
        (
            lambda graph: graph["graph_module"]["signature"]["input_specs"].__setitem__(0, {"token": {"arg": {"name": "t"}}}),
            "side effects",
        ),
    ],
)
def test_a_damaged_graph_is_refused(edit: Callable[[Any], None], message: str) -> None:
    with pytest.raises(BadProgram, match=message):
        opened(edited(zoo_file("tutorial"), edit))


def test_a_file_that_is_no_archive_and_a_compressed_one_are_refused() -> None:
    with pytest.raises(BadProgram, match="not a zip archive"):
        opened(b"PK\x03\x04 and nothing else")
    with pytest.raises(BadProgram, match="compressed"):
        opened(changed(zoo_file("tutorial"), lambda members: None, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(BadProgram, match="the end of the archive is missing"):
        opened(zoo_file("tutorial")[:-200])


def test_sizes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "MAX_NODES", 5)
    with pytest.raises(BadProgram, match="more than 5 operators"):
        opened(zoo_file("tutorial"))
    monkeypatch.setattr(exported, "MAX_NODES", 5000)
    monkeypatch.setattr(exported, "MAX_CONSTANT_BYTES", 100)
    with pytest.raises(BadProgram, match="buffers that are not in the state_dict are larger"):
        opened(zoo_file("windows"))
    monkeypatch.setattr(archive, "MAX_JSON_BYTES", 100)
    with pytest.raises(BadProgram, match="larger than"):
        opened(zoo_file("tutorial"))
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    with pytest.raises(BadProgram, match="more than 3 members"):
        opened(zoo_file("tutorial"))


def test_one_of_several_programs_is_taken_and_named() -> None:
    def add(members: dict[str, bytes]) -> None:
        members["models/other.json"] = members["models/model.json"]

    assert opened(changed(zoo_file("tutorial"), add)).notes == ("The archive has the programs model, other. model was taken.",)
