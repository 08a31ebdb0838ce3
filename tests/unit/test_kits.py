"""What a directory is taken for: the layouts of `nvflare poc prepare` and `nvflare provision`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nvflare_logstream.deploy.kits import Role, find_places
from nvflare_logstream.errors import KitError
from tests.unit.deploy_world import write_federation, write_kit


@pytest.mark.parametrize("inside", ["", "startup", "local"])
def test_a_kit_is_one_place(tmp_path, inside):
    root = write_kit(tmp_path / "site-1")
    (place,) = find_places(root / inside)
    assert (place.role, place.name, place.root) == (Role.CLIENT, "site-1", root)
    assert place.resources == root / "local" / "resources.json.default" and place.is_json
    assert place.own_resources == root / "local" / "resources.json"
    assert place.start_script == root / "startup" / "sub_start.sh"


def test_a_workspace_with_jobs_is_one_place(tmp_path, monkeypatch):
    root = write_kit(tmp_path / "w", name="hospital-7")
    (root / "7b1c" / "app_site-1").mkdir(parents=True)
    monkeypatch.chdir(root)
    (place,) = find_places(".")
    assert (place.name, place.root) == ("hospital-7", root)


@pytest.mark.parametrize("uid", ["'a b", "../up", "\x1b[31m", ".hidden"])
def test_a_name_that_cannot_be_one_is_not_taken_from_the_script(tmp_path, uid):
    (place,) = find_places(write_kit(tmp_path / "site-1", name=uid))
    assert place.name in ("site-1", "a")


@pytest.mark.parametrize("depth", ["", "example_project", "example_project/prod_00"])
def test_a_federation_is_all_its_kits_the_server_first(tmp_path, depth):
    write_federation(tmp_path / "example_project" / "prod_00")
    (tmp_path / "example_project" / "state").mkdir()
    (tmp_path / "data").mkdir()
    places = find_places(tmp_path / depth)
    assert [(str(place.role), place.name) for place in places] == [
        ("server", "server"),
        ("admin", "admin@nvidia.com"),
        ("relay", "relay-1"),
        ("client", "site-1"),
        ("client", "site-2"),
    ]
    assert [place.name for place in places if place.resources is None] == ["admin@nvidia.com", "relay-1"]


def test_of_several_provisionings_one_must_be_named(tmp_path):
    for prod in ("prod_00", "prod_01"):
        write_federation(tmp_path / prod)
    with pytest.raises(KitError, match=r"several provisionings \(prod_00, prod_01\); name one of them"):
        find_places(tmp_path)
    assert len(find_places(tmp_path / "prod_01")) == 5


def test_a_damaged_kit_is_told_and_the_others_are_used(tmp_path, monkeypatch):
    """One without what says whose it is, one that may not be read, one whose start script may not."""
    prod = write_federation(tmp_path / "prod_00")
    (prod / "site-1" / "startup" / "fed_client.json").unlink()
    (prod / "relay-1" / "startup" / "sub_start.sh").unlink()
    (prod / "relay-1" / "startup" / "sub_start.sh").mkdir()
    (prod / "state").mkdir()
    may, hidden = os.access, str(prod / "site-2" / "startup")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != hidden and may(path, mode))
    (prod / "site-2" / "startup" / "fed_client.json").unlink()  # as whoever may not look into it sees it
    problems = {place.name: place.problem for place in find_places(tmp_path)}
    assert [name for name, problem in problems.items() if not problem] == [
        "server",
        "admin@nvidia.com",
        "relay-1",
    ]
    assert "it holds no startup/fed_server.json" in problems["site-1"]
    assert problems["site-2"] == f"{hidden}: this user may not look into it; run this as one who may"
    for name in ("server", "admin@nvidia.com", "relay-1"):
        shutil.rmtree(prod / name)
    with pytest.raises(
        KitError, match=r"site-1/startup: it holds no .*; .*site-2/startup: this user may not"
    ):
        find_places(prod)


def test_a_kit_that_cannot_be_read_is_told_and_the_others_are_used(tmp_path, monkeypatch):
    prod, real = write_federation(tmp_path / "prod_00"), Path.is_file

    def is_file(path: Path) -> bool:
        if path.is_relative_to(prod / "site-1"):
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    problems = {place.name: place.problem for place in find_places(prod)}
    assert "site-1/startup/fed_server.json: Input/output error" in problems.pop("site-1")
    assert len(problems) == 4 and not any(problems.values())


def test_a_directory_that_is_none_of_these_is_refused_with_what_was_looked_for(tmp_path):
    (tmp_path / "local").mkdir()
    with pytest.raises(KitError, match=r"neither a start-up kit \(startup/fed_server.json, .* POC workspace"):
        find_places(tmp_path)
    with pytest.raises(KitError, match="does not exist"):
        find_places(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(
        KitError, match="is not a directory; name that of a start-up kit, and unpack an archive"
    ):
        find_places(tmp_path / "file")
    (tmp_path / "project" / "prod_00").mkdir(parents=True)
    with pytest.raises(KitError, match="prod_00: holds no start-up kit"):
        find_places(tmp_path / "project")


@pytest.mark.parametrize(
    "files, used",
    [
        (["resources.json", "resources.json.default"], "resources.json"),
        (["resources.conf", "resources.json.default"], "resources.conf"),
        (["resources.yml", "resources.json.default"], "resources.yml"),
        (["old/resources.json", "resources.json.default"], "old/resources.json"),
        (["resources.conf"], None),
        (["job_resources.json"], None),
    ],
)
def test_the_resources_are_those_that_the_runtime_loads(tmp_path, files, used):
    pytest.importorskip("nvflare")
    from nvflare.apis.workspace import Workspace
    from nvflare.fuel.utils.config_factory import ConfigFactory

    root = write_kit(tmp_path / "site-1", resources=None)
    for name in files:
        (root / "local" / name).parent.mkdir(exist_ok=True)
        (root / "local" / name).write_text("{}")
    (place,) = find_places(root)
    assert place.resources == (used and root / "local" / used)
    named = Workspace(str(root)).get_resources_file_path()
    theirs = ConfigFactory.search_config_format(named)[1] if named else None
    assert (place.resources and str(place.resources)) == theirs


def test_further_resources_of_the_parent_process_are_known(tmp_path):
    root = write_kit(tmp_path / "site-1")
    for name in ("local/relay__resources.json", "startup/cc__p_resources.json", "local/x__j_resources.json"):
        (root / name).write_text("{}")
    (place,) = find_places(root)
    names = [str(path.relative_to(root)) for path in place.extra_resources()]
    assert names == ["local/relay__resources.json", "startup/cc__p_resources.json"]
