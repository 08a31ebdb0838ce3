"""Start-up kits and the login: each form that a version of the runtime has."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

from nvflare_logstream.flare import runtime_admin

USER = "admin@nvidia.com"


def make_kit(kit, user=USER):
    (kit / "startup").mkdir(parents=True)
    (kit / "startup" / "fed_admin.json").write_text(json.dumps({"admin": {"username": user}}))
    return kit


@pytest.fixture
def without_kits(monkeypatch):
    """nvflare 2.7: it registers no start-up kits."""
    for name in ("nvflare.tool.kit", "nvflare.tool.cli_session"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("NVFLARE_STARTUP_KIT_DIR", raising=False)


@pytest.mark.parametrize("named", [".", "startup", ".."])
def test_a_kit_is_named_by_its_directory(without_kits, tmp_path, named):
    kit = make_kit(tmp_path / "prod_00" / USER)
    assert runtime_admin.admin_kit(None, str(kit / named)) == (USER, str(kit))
    assert runtime_admin.startup_kit(None, str(kit / named)) == str(kit)


def test_the_active_kit_is_the_environments_or_the_configured_one(without_kits, tmp_path, monkeypatch):
    one, two = make_kit(tmp_path / "one", "one"), make_kit(tmp_path / "two", "two")
    cli_utils = ModuleType("nvflare.utils.cli_utils")
    cli_utils.get_startup_kit_dir = lambda: str(one)
    monkeypatch.setitem(sys.modules, "nvflare.utils.cli_utils", cli_utils)
    assert runtime_admin.admin_kit(None, None) == ("one", str(one))
    monkeypatch.setenv("NVFLARE_STARTUP_KIT_DIR", str(two))
    assert runtime_admin.admin_kit(None, None) == ("two", str(two))

    def none_set():
        raise ValueError("startup kit directory is not specified")

    monkeypatch.delenv("NVFLARE_STARTUP_KIT_DIR")
    cli_utils.get_startup_kit_dir = none_set
    with pytest.raises(
        ValueError, match=r"no start-up kit is active \(startup kit directory is not specified"
    ):
        runtime_admin.startup_kit(None, None)


def test_what_is_no_kit_is_named(without_kits, tmp_path):
    with pytest.raises(ValueError, match="no start-up kits by an id; name the directory with --startup-kit"):
        runtime_admin.admin_kit("mine", None)
    with pytest.raises(ValueError, match=f"{tmp_path}/kit: no start-up kit is there; name a directory"):
        runtime_admin.admin_kit(None, str(tmp_path / "kit"))
    make_kit(tmp_path / "site", user=None)
    (tmp_path / "site" / "startup" / "fed_admin.json").write_text("[]")
    with pytest.raises(ValueError, match=f"{tmp_path}/site: not the start-up kit of an admin"):
        runtime_admin.admin_kit(None, str(tmp_path / "site"))


def test_this_runtime_finds_kits_itself(tmp_path):
    kit = make_kit(tmp_path / USER)
    for name in ("client.crt", "client.key", "rootCA.pem"):
        (kit / "startup" / name).touch()
    assert runtime_admin.admin_kit(None, str(kit)) == (USER, str(kit))
    assert runtime_admin.startup_kit(None, str(kit)) == str(kit)
    with pytest.raises(ValueError):
        runtime_admin.startup_kit("no such id", None)


def test_a_session_is_opened_with_what_the_runtime_takes():
    def new(user, kit, timeout, study, auto_login_max_tries):
        return user, kit, timeout, study, auto_login_max_tries

    def older(user, kit, debug=False, timeout=10.0):
        return user, kit, timeout

    assert runtime_admin.open_session(new, USER, "kit", 5.0, "cardio") == (USER, "kit", 5.0, "cardio", 1)
    assert runtime_admin.open_session(older, USER, "kit", 5.0, "default") == (USER, "kit", 5.0)
    with pytest.raises(ValueError, match="study: 'cardio' is not allowed; this version of nvflare has no"):
        runtime_admin.open_session(older, USER, "kit", 5.0, "cardio")
