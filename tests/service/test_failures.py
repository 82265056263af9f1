"""Every type of failure is explained: in the list, in the document, and in the OpenAPI document."""

import re
from pathlib import Path
from typing import get_args

from service.api.app import create_app
from service.settings import Settings
from service.store.failures import FAILURES, FailureType


def test_every_type_of_failure_is_explained() -> None:
    assert set(FAILURES) == set(get_args(FailureType))


def test_the_document_lists_every_failure_as_the_code_does() -> None:
    document = (Path(__file__).parents[2] / "docs/jobs.md").read_text()
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (.*) \| (.*) \|$", document.partition("| type |")[2].partition("\n\n")[0], re.MULTILINE
    )
    assert rows == [(type, failure.meaning, failure.remedy) for type, failure in FAILURES.items()]


def test_clients_can_read_the_types_in_the_openapi_document(tmp_path: Path) -> None:
    schemas = create_app(Settings(data_dir=tmp_path)).openapi()["components"]["schemas"]
    assert schemas["JobError"]["properties"]["type"]["enum"] == list(FAILURES)
