"""Two ETags are equal only if all is equal that decides the bits."""

import platform
import re
from dataclasses import fields, replace
from importlib.metadata import version
from unittest.mock import patch

import pytest
import torch

from service.serving.renderer import Renderer

RENDERER = Renderer(release="0.1.0", torch="2.11.0+cpu", processor="x86_64.AVX2", arithmetic="0a1b2c3d")
SHA256 = "0123456789abcdef" * 4


@pytest.mark.parametrize("name", [field.name for field in fields(Renderer)])
def test_every_part_matters(name: str) -> None:
    other: Renderer = replace(RENDERER, **{name: "1.2.3"})
    assert other.etag(SHA256) != RENDERER.etag(SHA256)


def test_the_artefact_matters() -> None:
    assert RENDERER.etag("f" + SHA256[1:]) != RENDERER.etag(SHA256)


def test_no_part_runs_into_another() -> None:
    assert Renderer("1", "2-3", "4", "5").etag(SHA256) != Renderer("1-2", "3", "4", "5").etag(SHA256)


@pytest.mark.parametrize("processor", ["s390x.Z VECTOR", 'x86_64.NO "AVX"', "a/b:c", "é"])
def test_an_etag_has_only_characters_that_any_header_and_file_name_can_have(processor: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9.+_-]+", replace(RENDERER, processor=processor).etag(SHA256))


def test_the_renderer_of_a_process_is_its_release_its_torch_and_its_processor() -> None:
    here = Renderer.here(version("nern"))
    assert (here.release, here.torch) == (version("nern"), torch.__version__)
    assert here.processor == f"{platform.machine()}.{torch.backends.cpu.get_cpu_capability()}"
    assert here == Renderer.here(version("nern"))


def test_a_node_that_computes_otherwise_is_another_renderer() -> None:
    def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x @ weight.T * (1 + 2**-20)

    here = Renderer.here("1")
    with patch("torch.nn.functional.linear", linear):
        there = Renderer.here("1")
    assert there == replace(here, arithmetic=there.arithmetic) != here
