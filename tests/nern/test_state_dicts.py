from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nern.errors import NoStateDict, UnknownKey
from nern.layers import StateDict
from nern.state_dicts import Found, find_state_dict
from nern.state_dicts.tree import MAX_NODES
from nern.stubs import QUANTISED, SPARSE, Stub


def network(value: float, *, inputs: int = 3) -> StateDict:
    """A small state_dict whose floats are all `value`."""
    module = nn.Sequential(nn.Conv2d(inputs, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    return {name: torch.full_like(tensor, value) for name, tensor in module.state_dict().items()}


def under(prefix: str, tensors: StateDict) -> StateDict:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def values(found: Found) -> set[float]:
    """The different values of all tensors but counters."""
    return {float(value) for tensor in found.state_dict.values() if tensor.ndim for value in tensor.flatten()}


RAW, MEAN = network(1.0), network(2.0)
PARAMETERS = [name for name in RAW if "running" not in name and "num_batches" not in name]


@pytest.mark.parametrize(
    ("wrapped", "key"),
    [
        (RAW, "."),
        ({"state_dict": RAW, "epoch": 3, "loss": torch.tensor(0.5)}, "state_dict"),
        ({"checkpoint": {"model": {"state_dict": RAW}}}, "checkpoint.model.state_dict"),
        (
            {"epoch": 3, "my_network": RAW, "optimizer": {"state": {0: {"exp_avg": torch.ones(3, 3)}}, "param_groups": []}},
            "my_network",
        ),
        ({"net": RAW, "history": [torch.ones(3, 3)]}, "net"),
        ([RAW], "0"),
        ((RAW, {"lr": 0.1}), "0"),
        ({"state_dict": [RAW]}, "state_dict.0"),
        (Stub("easydict.EasyDict", items={"weights": RAW}), "weights"),
        (Stub("argparse.Namespace", state={"weights": RAW}), "weights"),
    ],
)
def test_a_state_dict_is_found_in_whatever_is_around_it(wrapped: object, key: str) -> None:
    found = find_state_dict(wrapped)
    assert (found.key, found.keys, found.first, found.notes) == (key, [], True, [])
    assert list(found.state_dict) == list(RAW)
    assert all(torch.equal(found.state_dict[name], tensor) for name, tensor in RAW.items())


@pytest.mark.parametrize("prefix", ["module.", "network.", "module._orig_mod.", "backbone."])
def test_names_keep_their_prefixes(prefix: str) -> None:
    assert list(find_state_dict({"state_dict": under(prefix, RAW)}).state_dict) == list(under(prefix, RAW))


def test_tensors_without_names_are_named_by_their_numbers() -> None:
    for tensors in (list(RAW.values()), dict(enumerate(RAW.values()))):
        found = find_state_dict(tensors)
        assert list(found.state_dict) == [str(number) for number in range(len(RAW))]
        assert found.notes == ["the tensors have no names in the file; they are named by their numbers"]


def test_a_dict_for_each_layer_gets_dotted_names() -> None:
    nested = {"conv": {"weight": RAW["0.weight"]}, "head": {"out": {"weight": RAW["3.weight"], "bias": RAW["3.bias"]}}}
    for content in (nested, {"epoch": 1, "metrics": {"acc": 0.5}, **nested}):
        found = find_state_dict(content)
        assert list(found.state_dict) == ["conv.weight", "head.out.weight", "head.out.bias"]
        assert "'conv.weight'" in found.notes[0]


def test_arrays_are_tensors() -> None:
    found = find_state_dict({name: np.asarray(tensor, dtype=">f4") for name, tensor in RAW.items()})
    assert all(torch.equal(found.state_dict[name], tensor.float()) for name, tensor in RAW.items())


def test_a_dict_of_a_layer_beside_tensors_belongs_to_them() -> None:
    content = {"scale": torch.ones(4, 1), "conv": {"weight": RAW["0.weight"]}, "optimizer": {"x": torch.ones(2, 2)}}
    assert list(find_state_dict(content).state_dict) == ["scale", "conv.weight"]


def test_entries_that_are_no_tensors_are_named() -> None:
    content = {**RAW, "3._extra_state": None, "fc._packed_params._packed_params": (1, 2), "4.amax": Stub("numpy.ndarray")}
    (note,) = find_state_dict(content).notes
    assert "'3._extra_state' (of type NoneType)" in note
    assert "'fc._packed_params._packed_params' (of type tuple)" in note
    assert "'4.amax' (numpy.ndarray)" in note


# Several networks

GENERATOR, DISCRIMINATOR = network(3.0), network(4.0, inputs=5)


@pytest.mark.parametrize(
    ("content", "chosen", "other"),
    [
        ({"generator": GENERATOR, "discriminator": DISCRIMINATOR, "epoch": 1}, "generator", "discriminator"),
        ({"discriminator": DISCRIMINATOR, "generator": GENERATOR}, "generator", "discriminator"),
        ({"netD_state_dict": DISCRIMINATOR, "netG_state_dict": GENERATOR}, "netG_state_dict", "netD_state_dict"),
        ({"D": DISCRIMINATOR, "D_ema": dict(DISCRIMINATOR), "G": GENERATOR}, "G", "D_ema"),
        ({"first": GENERATOR, "second": DISCRIMINATOR}, "first", "second"),
        ({"student": GENERATOR, "teacher": DISCRIMINATOR}, "student", "teacher"),
        ({"student": RAW, "teacher": MEAN}, "teacher", "student"),
        ([GENERATOR, DISCRIMINATOR], "0", "1"),
    ],
)
def test_one_of_several_networks_is_chosen_and_the_others_are_named(content: object, chosen: str, other: str) -> None:
    found = find_state_dict(content)
    assert found.key == chosen
    assert found.keys[0] == other
    assert repr(chosen) in found.notes[0]
    assert repr(other) in found.notes[0]
    by_key = find_state_dict(content, other)
    assert (by_key.key, by_key.first) == (other, False)
    assert chosen in by_key.keys
    assert find_state_dict(content, chosen).first


def test_an_unknown_key_is_answered_with_the_keys() -> None:
    with pytest.raises(UnknownKey, match=r"no state_dict 'nowhere'; it holds 'generator', 'discriminator'"):
        find_state_dict({"generator": GENERATOR, "discriminator": DISCRIMINATOR}, "nowhere")


# Averages


@pytest.mark.parametrize(
    ("content", "key", "raw"),
    [
        ({"params": RAW, "params_ema": MEAN}, "params_ema", "params"),
        ({"state_dict": RAW, "state_dict_ema": under("module.", MEAN)}, "state_dict_ema", "state_dict"),
        ({"model": RAW, "ema": {"module": MEAN, "decay": 0.9}}, "ema.module", "model"),
        (
            {"state_dict": MEAN, "ema_state_dict": {"steps": torch.tensor(3), **under("module.", RAW)}},
            "state_dict",
            "ema_state_dict",
        ),
        ({"state_dict": RAW, "ema_state_dict": MEAN}, "ema_state_dict", "state_dict"),
        ({"state_dict": MEAN, "current_model_state": RAW, "averaging_state": {}}, "state_dict", "current_model_state"),
        (
            {"state_dict": RAW, "callbacks": {"EMA": {"ema_weights": MEAN}}},
            "callbacks.EMA.ema_weights",
            "state_dict",
        ),
        (
            {
                "initted": torch.tensor(True),
                "step": torch.tensor(3),
                **under("ema_model.", MEAN),
                **under("online_model.", RAW),
            },
            "ema_model",
            "online_model",
        ),
        ({"state_dict": under("model.", RAW) | under("model_ema.", MEAN)}, "state_dict.model_ema", "state_dict.model"),
        ({"ema": under("online_model.", RAW) | under("ema_model.", MEAN)}, "ema.ema_model", "ema.online_model"),
        ({"state_dict": under("student.", RAW) | under("teacher.", MEAN)}, "state_dict.teacher", "state_dict.student"),
        (
            {"state_dict": RAW | {"ema_" + name.replace(".", "_"): tensor for name, tensor in MEAN.items()}},
            "state_dict",
            "state_dict.raw",
        ),
    ],
    ids=[
        "BasicSR",
        "timm",
        "dict",
        "mmengine",
        "ema_state_dict",
        "Lightning",
        "callback",
        "ema-pytorch",
        "dotted",
        "in ema",
        "teacher",
        "mmcv",
    ],
)
def test_averages_are_taken_whole_from_where_each_library_keeps_them(content: object, key: str, raw: str) -> None:
    found = find_state_dict(content)
    mmcv = raw.endswith("raw")
    assert (found.key, found.keys) == (key, [raw])
    assert values(found) == ({1.0} if mmcv else {2.0})
    assert len([name for name in found.state_dict if name not in ("initted", "step")]) == len(RAW)
    assert "averaged weights" in found.notes[0]
    assert raw in found.notes[0]
    other = find_state_dict(content, raw)
    assert {float(tensor.flatten()[0]) for name, tensor in other.state_dict.items() if tensor.ndim} == (
        {2.0} if mmcv else {1.0}
    )


def test_averages_whose_names_have_lost_their_dots_come_back_under_the_raw_names() -> None:
    """latent-diffusion averages parameters alone, in buffers without dots in their names."""
    copies: dict[str, Tensor] = {"model_ema." + name.replace(".", ""): MEAN[name] for name in PARAMETERS}
    counters = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
    content = {"state_dict": under("model.", RAW) | copies | counters | {"first_stage.weight": torch.zeros(2, 2)}}
    found = find_state_dict(content)
    assert list(found.state_dict) == [*under("model.", RAW), "first_stage.weight"]
    assert all(float(found.state_dict[f"model.{name}"].flatten()[0]) == 2.0 for name in PARAMETERS)
    assert float(found.state_dict["model.1.running_mean"][0]) == 1.0
    assert any("no average of 'model.1.running_mean' and 2 others" in note for note in found.notes)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_averaged_parameters_are_completed_from_the_raw_weights(prefix: str) -> None:
    averages = {prefix + name: MEAN[name] for name in PARAMETERS}
    found = find_state_dict({"model": RAW, "model_ema": averages})
    assert list(found.state_dict) == list(under(prefix, RAW))
    assert float(found.state_dict[f"{prefix}0.weight"].flatten()[0]) == 2.0
    assert float(found.state_dict[f"{prefix}1.running_var"][0]) == 1.0
    assert found.notes[-1] == "there is no average of '1.running_mean' and 2 others: taken from 'model'"


def test_a_list_of_averaged_parameters_gets_the_names_of_the_raw_ones() -> None:
    """torch-ema keeps `shadow_params`."""
    averages = {
        "decay": 0.99,
        "num_updates": 3,
        "shadow_params": [MEAN[name] for name in PARAMETERS],
        "collected_params": [RAW["0.weight"]],
    }
    found = find_state_dict({"state_dict": RAW, "ema": averages})
    assert list(found.state_dict) == list(RAW)
    assert float(found.state_dict["3.weight"].flatten()[0]) == 2.0
    assert "a list of parameters" in found.notes[-1]


def test_the_averaged_model_of_torch_is_named() -> None:
    averaged = AveragedModel(nn.Conv2d(1, 1, 3))
    found = find_state_dict(averaged.state_dict())
    assert list(found.state_dict) == ["n_averaged", "module.weight", "module.bias"]
    assert "averages of 0 states" in found.notes[0]


# Memory


def test_tensors_that_share_memory_are_aliases() -> None:
    tied = torch.ones(4, 4, 3, 3)
    found = find_state_dict({"a.weight": tied, "b.weight": tied, "c.weight": tied.clone(), "d.weight": tied.transpose(0, 1)})
    assert found.aliases == {"b.weight": "a.weight"}
    assert list(found.state_dict) == ["a.weight", "b.weight", "c.weight", "d.weight"]


@pytest.mark.parametrize(("kind", "detail"), [(QUANTISED, "float state_dict"), (SPARSE, "to_dense")])
def test_tensors_that_no_network_can_be_rebuilt_with_are_told(kind: str, detail: str) -> None:
    found = find_state_dict({"model": {"conv.weight": Stub(kind), "conv.bias": torch.ones(2)}})
    assert list(found.unusable) == ["conv.weight"]
    assert detail in found.unusable["conv.weight"]


# Refusals


@pytest.mark.parametrize(
    "loaded",
    [None, 3, "text", torch.ones(2, 2), [torch.ones(1)], {"epoch": 3}, {"model": {"model": {}}}, {1: torch.ones(1)}],
)
def test_what_holds_no_state_dict_is_refused(loaded: object) -> None:
    with pytest.raises(NoStateDict, match=r"no state_dict: save model\.state_dict"):
        find_state_dict(loaded)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 1, "optimizer_state_dict": state}])
def test_the_state_of_an_optimizer_alone_is_called_by_its_name(wrap: Any) -> None:
    module = nn.Conv2d(1, 1, 3)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 1, 3, 3)).sum().backward()
    optimizer.step()
    with pytest.raises(NoStateDict, match="the state of an optimizer, but no network"):
        find_state_dict(wrap(optimizer.state_dict()))


def test_trees_that_repeat_themselves_are_refused() -> None:
    deep: dict[str, object] = {"weight": torch.ones(2, 2)}
    for _ in range(9):
        deep = {f"layer{number}": deep for number in range(8)}
    assert MAX_NODES < 8**9
    with pytest.raises(NoStateDict, match="too many nested objects"):
        find_state_dict(deep)


def test_a_tree_that_contains_itself_ends() -> None:
    loop: dict[str, object] = {"state_dict": RAW}
    loop["self"] = loop
    assert find_state_dict(loop).key == "state_dict"
