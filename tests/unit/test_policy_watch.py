"""What a site's policy says now: known as soon as the file has changed, for the price of a stat."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from nvflare.apis.workspace import Workspace

from nvflare_logstream.flare import policy_watch
from nvflare_logstream.flare.kept_back import keep_for_good
from nvflare_logstream.flare.policy_watch import PolicyWatch, watch_policy
from nvflare_logstream.site.decision import Decision
from nvflare_logstream.testing import Clock

YES, NO = {"allow_log_streaming": True}, {"allow_log_streaming": False}


class Site:
    """A site's directory, what it says, and how often that was read."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        for name in ("startup", "local"):
            (root / name).mkdir()
        self.local, self.clock, self.reads = root / "local", Clock(), 0
        self.workspace = Workspace(str(root), site_name="site-1")
        self.watch = PolicyWatch(self.workspace, self.clock)
        read = policy_watch.read_policy

        def counted(workspace: Workspace) -> object:
            self.reads += 1
            return read(workspace)

        monkeypatch.setattr(policy_watch, "read_policy", counted)

    def write(self, said: object, name: str = "resources.json") -> None:
        (self.local / name).parent.mkdir(exist_ok=True)
        (self.local / name).write_text(said if isinstance(said, str) else json.dumps(said))

    def settle(self) -> None:
        """Ask until nothing but a change makes it read again."""
        self.watch()
        self.clock.advance(3)
        self.watch()
        self.reads = 0


@pytest.fixture
def site(memory_path, monkeypatch):
    return Site(memory_path, monkeypatch)


def test_a_file_that_does_not_change_is_read_once(site):
    site.write(YES)
    site.settle()
    for _ in range(100):
        assert site.watch().allowed
        site.clock.advance(0.05)
    assert site.reads == 0


@pytest.mark.parametrize("text", [NO, "{", "", "[" * 100_000])
def test_a_change_is_known_at_once(site, text):
    site.write(YES)
    site.settle()
    site.write(text)
    said = site.watch()
    assert not said.allowed and said.sure is (text == NO)
    site.write(YES)
    assert site.watch().allowed


def test_a_file_that_was_written_twice_at_one_time_of_the_clock_is_read_again(site, monkeypatch):
    """A coarse clock gives both the same times, an editor the same size."""
    site.write('{"allow_log_streaming": true }')
    path = site.local / "resources.json"
    mark = policy_watch._mark_of(str(path))
    monkeypatch.setattr(policy_watch, "_mark_of", lambda other: mark)
    assert site.watch().allowed
    site.write('{"allow_log_streaming": false}')
    assert not site.watch().allowed


def test_a_time_that_is_set_back_hides_no_change(site):
    site.write('{"allow_log_streaming": true }')
    site.settle()
    path = site.local / "resources.json"
    before = path.stat()
    site.write('{"allow_log_streaming": false}')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and not site.watch().allowed


@pytest.mark.parametrize(
    "name", ["resources.json", "resources.conf", "old/resources.json", "resources.json.default"]
)
def test_whatever_file_counts_from_now_on_is_heeded(site, name):
    """Where the default file counts, the runtime takes any other first, in all of the directory."""
    (site.local / "old").mkdir()
    site.write(YES, "resources.json.default")
    site.settle()
    assert site.watch().allowed and not site.reads
    site.write("allow_log_streaming = false" if name.endswith("conf") else NO, name)
    assert not site.watch().allowed
    site.settle()
    site.write("allow_log_streaming = true" if name.endswith("conf") else YES, name)
    assert site.watch().allowed


def test_a_link_is_followed_to_what_it_leads_to(site):
    site.write(YES, "there.json")
    (site.local / "resources.json").symlink_to("there.json")
    site.settle()
    site.write(NO, "there.json")
    assert not site.watch().allowed
    (site.local / "there.json").unlink()
    assert not site.watch().allowed and not site.watch().sure


def test_what_could_not_be_read_is_read_again_each_second(site, monkeypatch):
    site.write(YES)
    site.settle()
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda *args, **options: (_ for _ in ()).throw(OSError(24, "Too many"))
    )
    site.write(YES, "resources.json")
    os.utime(site.local / "resources.json")
    assert not site.watch().sure
    site.settle()
    monkeypatch.setattr(Path, "read_text", read)
    assert not site.watch().allowed
    site.clock.advance(1)
    assert site.watch().allowed


def test_a_no_that_another_process_of_the_site_has_heard_counts_for_the_job(site):
    """It may have been taken back before this process has asked."""
    site.write(YES)
    for job_id in ("job-1", "job-2"):
        Path(site.workspace.get_run_dir(job_id)).mkdir()
    watches = {job_id: PolicyWatch(site.workspace, site.clock, job_id) for job_id in ("job-1", "job-2")}
    for _ in range(3):
        assert all(watch().allowed for watch in watches.values())
        site.clock.advance(3)
    keep_for_good(site.workspace, "job-1", "the site said no")
    assert watches["job-1"]() == Decision(False, "the site said no")
    assert watches["job-2"]().allowed and site.watch().allowed


def test_without_a_workspace_nothing_is_let_out():
    assert watch_policy(None)() is False and watch_policy(object())() is False
