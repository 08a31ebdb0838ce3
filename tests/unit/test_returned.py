"""Logs of a job that ran where its site could not see them: a copy comes back at the end, or nothing does."""

from __future__ import annotations

import os

import pytest

from nvflare_logstream.site.endings import Doubt, Ending
from nvflare_logstream.site.sender import Sender
from nvflare_logstream.streams import State, StreamId, Verdict
from nvflare_logstream.testing import FaultyLink
from tests.unit.site_world import JOB, Changes, World

LOG = StreamId(JOB, "log.txt")
LINES = b"".join(b"line %d\n" % number for number in range(100))
OUTCOME = "exit code 137 (OOMKilled)"
WHY = f"the job ran in a pod and brought nothing back: {OUTCOME}"
NOT_FOUND = (
    "from byte 790, length unknown: a copy of the log came back in which this place is not found; what it "
    "holds beyond that is missing"
)


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    world.pod = memory_path / "pod"
    world.pod.mkdir()
    world.changes = Changes()
    yield world
    world.close()


def stream_from_pod(world: World, *pieces: bytes, rotate: bool = False) -> None:
    """The job's own streamer sends pieces of a log that only it can see."""
    sender = world.sender()
    sender.follow(JOB, world.pod, "log.txt")
    for number, piece in enumerate(pieces):
        if rotate and number:
            os.rename(world.pod / "log.txt", world.pod / "log.txt.1")
        with (world.pod / "log.txt").open("ab") as log:
            log.write(piece)
        world.watcher.changed = True
        world.run(sender)
    sender.stop()


def bring_back(world: World, content: bytes, file: str = "log.txt") -> None:
    """As an archive is unpacked: another file with the same beginning."""
    (world.logs / file).write_bytes(content)


def end(world: World, sender: Sender | None = None) -> Sender:
    sender = sender or world.sender()
    sender.finish(JOB, world.logs, ["log.txt"], OUTCOME, doubt=Doubt(world.clock() - 5, WHY))
    world.run(sender, turns=60)
    return sender


def assert_ended(world: World, content: bytes, *losses: str) -> None:
    info = world.info()
    assert world.stored() == content
    assert (info.state, info.verdict, info.outcome) == (State.STOPPED, Verdict.PARTIAL, OUTCOME)
    assert [str(loss) for loss in info.losses] == list(losses)
    assert info.verdict_reason.endswith(WHY) and "OOMKilled" in info.standing
    assert world.verdicts[LOG] is Verdict.PARTIAL


@pytest.mark.parametrize("short", [0, 1, 8, 50, 400, len(LINES)])
def test_a_copy_that_is_shorter_than_what_was_streamed_changes_nothing(world, short):
    stream_from_pod(world, LINES)
    bring_back(world, LINES[: len(LINES) - short])
    end(world)
    assert_ended(world, LINES)


@pytest.mark.parametrize("sent", [1, 30, 31, 500])
def test_a_copy_that_has_more_goes_on_where_the_stream_stood(world, sent):
    stream_from_pod(world, LINES[:sent])
    bring_back(world, LINES)
    end(world)
    assert_ended(world, LINES)


def test_a_copy_is_all_there_is_where_the_job_sent_nothing(world):
    bring_back(world, LINES)
    end(world)
    assert_ended(world, LINES)


def test_nothing_came_back(world):
    stream_from_pod(world, LINES)
    end(world)
    assert_ended(world, LINES)


def test_nothing_was_sent_and_nothing_came_back(world):
    end(world)
    info = world.info()
    assert (info.verdict, info.end, info.outcome) == (Verdict.PARTIAL, 0, OUTCOME)
    assert info.verdict_reason.endswith(WHY)


def test_the_directory_is_not_there(world):
    stream_from_pod(world, LINES)
    world.logs.rmdir()
    end(world)
    assert_ended(world, LINES)


def test_another_file_at_its_place_is_not_the_log(world):
    stream_from_pod(world, LINES)
    bring_back(world, b"x" * 5000)
    end(world)
    assert_ended(world, LINES, NOT_FOUND)


def test_a_copy_that_differs_at_the_place_is_not_gone_on_with(world):
    stream_from_pod(world, LINES)
    bring_back(world, LINES[:-5] + b"other" + b"more\n")
    end(world, end(world))
    assert_ended(world, LINES, NOT_FOUND)


def test_a_copy_with_rotated_files_goes_on_across_them(world):
    stream_from_pod(world, LINES[:300], LINES[300:500], rotate=True)
    bring_back(world, LINES[:300], "log.txt.1")
    bring_back(world, LINES[300:])
    end(world)
    assert_ended(world, LINES)


@pytest.mark.parametrize("sent", [0, 1, 150, 250])
@pytest.mark.parametrize("unpacked", [(1, 2, 3, 0), (3, 2, 1, 0), (0, 2, 1, 3)])
def test_the_times_of_unpacked_files_tell_nothing(world, unpacked, sent):
    """They say in which order an archive was unpacked; the runtime's newest backup has the lowest number."""
    if sent:
        stream_from_pod(world, LINES[:sent] if sent < 200 else LINES[:200], LINES[200:sent], rotate=True)
    pieces = [LINES[300:], LINES[200:300], LINES[100:200], LINES[:100]]
    if sent:
        pieces = [LINES[600:], LINES[400:600], LINES[200:400], LINES[:200]]
    for number in unpacked:
        name = f"log.txt.{number}" if number else "log.txt"
        bring_back(world, pieces[number], name)
        world.changes.happen_now(world.logs / name)
    end(world)
    assert_ended(world, LINES)


def test_a_cursor_that_is_none_leads_nowhere(world):
    stream_from_pod(world, LINES)
    bring_back(world, LINES + b"more\n")
    key = world.info().key
    world.store.append(key, len(LINES), b"forged\n", b"no cursor")
    end(world)
    assert_ended(world, LINES + b"forged\n", NOT_FOUND.replace("790", "797"))


def test_a_network_file_system_is_asked_how_long_a_log_is_before_it_is_closed(world, monkeypatch):
    """NFS says of an open file how long it was up to a minute ago; to open it makes it ask its server."""
    log, cached = world.logs / "log.txt", {}
    log.write_bytes(LINES[:100])
    sender = world.sender("log.txt")
    world.run(sender)
    real_stat, real_open = os.fstat, os.open

    def stat_from_cache(descriptor):
        status = real_stat(descriptor)
        return cached.setdefault(status.st_ino, status) if os.path.samestat(status, log.stat()) else status

    def open_anew(path, *args, **options):
        descriptor = real_open(path, *args, **options)
        if os.path.samestat(real_stat(descriptor), log.stat()):
            cached.clear()
        return descriptor

    cached[log.stat().st_ino] = log.stat()
    monkeypatch.setattr(os, "fstat", stat_from_cache)
    monkeypatch.setattr(os, "open", open_anew)
    with log.open("ab") as file:
        file.write(LINES[100:])
    sender.finish(JOB, world.logs, ["log.txt"], "exit code 0")
    world.run(sender, turns=60)
    assert (world.stored(), world.info().verdict) == (LINES, Verdict.COMPLETE)


def test_a_link_at_its_place_is_not_followed(world):
    stream_from_pod(world, LINES)
    (world.root.parent / "secret").write_bytes(LINES + b"secret\n")
    (world.logs / "log.txt").symlink_to(world.root.parent / "secret")
    end(world)
    assert_ended(world, LINES)


def test_it_is_ended_once_however_often_its_end_is_told(world):
    stream_from_pod(world, LINES[:100])
    bring_back(world, LINES)
    end(world, end(world))
    assert_ended(world, LINES)


def test_a_job_that_lives_on_after_all_goes_on(world):
    stream_from_pod(world, LINES[:100])
    end(world)
    stream_from_pod(world, LINES[100:])
    info = world.info()
    assert (world.stored(), info.verdict, info.losses) == (LINES, Verdict.STREAMING, ())


@pytest.mark.parametrize("at", [1, 2])
def test_what_the_job_sends_last_may_come_between(world, at):
    """A request of the job's process was under way when it died, and comes while its site sends the rest."""
    stream_from_pod(world, LINES[:100])
    bring_back(world, LINES)
    late = world.sender(link=FaultyLink(world.deliver))
    late.follow(JOB, world.pod, "log.txt")
    world.run(late)
    (world.pod / "log.txt").write_bytes(LINES[:150])
    requests = []

    def deliver(payload: bytes) -> bytes:
        requests.append(payload)
        if len(requests) == at:
            world.watcher.changed = True
            late.turn()
        return world.deliver(payload)

    end(world, world.sender(link=FaultyLink(deliver)))
    assert_ended(world, LINES)
    assert len(requests) >= at


@pytest.mark.parametrize(
    "ending, words",
    [
        (Ending(), "exit code unknown"),
        (Ending(0), "exit code 0"),
        (Ending(-9), "signal 9"),
        (Ending(101), "exit code 101 (exception)"),
        (Ending(102), "exit code 102 (unsafe component)"),
        (Ending(103), "exit code 103 (configuration)"),
        (Ending(104), "exit code 104 (infrastructure, or a class that the site does not allow)"),
        (Ending(137, "OOMKilled"), "exit code 137 (OOMKilled)"),
        (Ending(101, "Error"), "exit code 101 (exception; Error)"),
        (Ending(None, "Evicted"), "exit code unknown (Evicted)"),
    ],
)
def test_an_ending_in_words(ending, words):
    assert str(ending) == words


def test_what_a_launcher_says_is_bounded_and_in_one_line():
    words = str(Ending(1, "a\nb\x1b[31m" + "x" * 10_000))
    assert "\n" not in words and "\x1b" not in words and len(words) < 300
