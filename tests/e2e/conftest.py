"""What the tests of the running system share."""

import pytest

# The processes of these tests are measured, and run all that only processes run. To measure those of the other tests too would
# tell nothing new, and makes each start of a process take twice as long.
MEASURED = ("test_deployed", "test_resumable")


@pytest.fixture(autouse=True)
def _unmeasured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.path.stem not in MEASURED:
        for variable in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            monkeypatch.delenv(variable, raising=False)
