import itertools

import pytest

from nern.prefixes import View, views

NETWORK = ["conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.weight", "fc.weight", "fc.bias"]


def found(names: list[str], wanted: list[str]) -> View:
    """The first view with these bare names."""
    return next(view for view in views(names) if list(view.bare) == wanted)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "backbone.", "encoder.body.net.", "module._orig_mod.model."])
def test_a_common_prefix_of_any_length_is_seen_through(prefix: str) -> None:
    view = found([prefix + name for name in NETWORK], NETWORK)
    assert view == View(prefix, {name: prefix + name for name in NETWORK})


def test_the_first_view_has_all_names_as_they_are() -> None:
    names = [f"model.{name}" for name in NETWORK]
    assert next(views(names)) == View("", {name: name for name in names})


@pytest.mark.parametrize("foreign", ["n_averaged", "criterion.weight", "train_acc.confmat", "loss_fn.centers", "other.thing"])
def test_the_network_under_a_prefix_is_found_beside_a_foreign_tensor(foreign: str) -> None:
    assert found([foreign, *(f"module.{name}" for name in NETWORK)], NETWORK).bare["fc.bias"] == "module.fc.bias"
    assert found([foreign, *(f"model.{name}" for name in NETWORK)], NETWORK) == found(
        [f"model.{name}" for name in NETWORK], NETWORK
    )


@pytest.mark.parametrize("foreign", ["n_averaged", "criterion.weight", "loss.buffer", "accuracy.confmat", "val_metrics.total"])
def test_known_foreign_tensors_are_seen_through_without_a_prefix(foreign: str) -> None:
    assert found([*NETWORK, foreign], NETWORK).bare == {name: name for name in NETWORK}


def test_wrappers_inside_names_are_seen_through() -> None:
    inside = ["features.module.0.weight", "features.module.0.bias", "classifier._orig_mod.1.weight"]
    view = found(inside, ["features.0.weight", "features.0.bias", "classifier.1.weight"])
    assert list(view.bare.values()) == inside
    assert found([f"net.{name}" for name in inside], list(view.bare)).prefix == "net."


def test_names_that_would_collide_without_wrappers_are_left_as_they_are() -> None:
    names = ["features.module.weight", "features.weight"]
    assert all(len(view.bare) == len(set(view.bare.values())) for view in views(names))
    assert ["features.weight"] not in [list(view.bare) for view in views(names)]


def test_each_of_two_networks_is_a_view_and_the_larger_one_comes_first() -> None:
    names = [f"student.{name}" for name in NETWORK[:4]] + [f"teacher.{name}" for name in NETWORK]
    prefixes = [view.prefix for view in views(names)]
    assert prefixes[:3] == ["", "teacher.", "student."]


def test_values_are_seen_by_bare_name() -> None:
    assert View("net.", {"a": "net.a", "b": "net.b"}).of({"net.a": 1, "other": 2}) == {"a": 1}


def test_views_of_many_names_are_few() -> None:
    names = [f"blocks.{block}.part{part}.weight" for block, part in itertools.product(range(200), range(20))]
    assert len(list(views(names))) < 10
