from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream.lab.kits import SiteSetup

from .lab import CLIENT_SETUP, STREAMER, Lab, example_setup

USERS = {"lead@nvidia.com": "lead", "member@nvidia.com": "member"}
OPTED_OUT = example_setup("client_opt_out")
STRICT = SiteSetup([STREAMER], class_allow=())
OTHER_FILE = SiteSetup([{**STREAMER, "args": {"log_files": ["train.log"]}}])
SLOW = SiteSetup(
    [{"id": "slow_clock", "path": "tests.e2e.slow_clock.SlowClock"}, STREAMER],
    class_allow=("nvflare_logstream.", "tests."),
)
TWO_ENTRIES = SiteSetup(
    [
        {**STREAMER, "args": {"log_file_name": "log.txt"}},
        {
            "id": "second",
            "path": STREAMER["path"],
            "args": {"log_files": ["error_log.txt", "log_fl.txt", "log.json"]},
        },
    ]
)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The federation that most tests share.

    site-1 and site-2 stream, site-2 with two entries in its resources.json; site-3 has opted out; site-4's
    allow-list lacks us; site-5 streams a file of the trainer's own and nothing else; site-6's clock is ten
    minutes slow.
    """
    sites = {
        "site-1": CLIENT_SETUP,
        "site-2": TWO_ENTRIES,
        "site-3": OPTED_OUT,
        "site-4": STRICT,
        "site-5": OTHER_FILE,
        "site-6": SLOW,
    }
    lab = Lab(tmp_path_factory.mktemp("lab"), clients=tuple(sites), overrides=sites, users=USERS)
    lab.federation.prepare()
    forbid_members_to_view(lab.federation.server_dir / "local")
    with lab:
        yield lab


@pytest.fixture(scope="session")
def submitted(request: pytest.FixtureRequest, lab: Lab) -> dict[str, Any]:
    """The jobs of all modules that have a `submit`, submitted together: each module's tests find theirs under
    way or over."""
    modules = {
        item.module.__name__: item.module  # type: ignore[attr-defined]
        for item in request.session.items
        if "jobs" in item.fixturenames  # type: ignore[attr-defined]
    }
    return {name: module.submit(lab) for name, module in modules.items() if hasattr(module, "submit")}


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, submitted: dict[str, Any]) -> Any:
    """What the module's `submit` returned."""
    return submitted[request.module.__name__]


def forbid_members_to_view(local: Path) -> None:
    """The runtime lets every role view everything; here one may not."""
    policy = json.loads((local / "authorization.json.default").read_text())
    policy["permissions"]["member"] = {"view": "none"}
    (local / "authorization.json").write_text(json.dumps(policy))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The runtime's admin session runs in this process, and what it warns of is not ours to mend."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
