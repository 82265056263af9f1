import pytest

from bench.fidelity import CASES, Case, short
from bench.figure import kind


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_quick_form_of_a_case_is_a_configuration_of_fewer_steps(case: Case) -> None:
    quick = case.config.with_values(short(case.config))
    assert type(quick) is type(case.config)
    assert quick.steps < case.config.steps


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("resnet20")])
def test_every_case_of_resnet20_has_its_marker(name: str) -> None:
    assert name.endswith(kind({"case": name}))
