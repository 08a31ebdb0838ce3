"""Exports and what verifying them finds: real directories, and a real store behind a port in this process."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream import __version__, hashing
from nvflare_logstream.client import client, manifest
from nvflare_logstream.client.checks import Finding, Result, verify_export, verify_streams
from nvflare_logstream.client.manifest import Manifest
from nvflare_logstream.errors import ErrorCode, LostContactError, RetrievalError
from nvflare_logstream.filters.log import LogLines
from nvflare_logstream.server.service import MAX_HASHING
from nvflare_logstream.streams import Loss, State, Stream, StreamKey
from nvflare_logstream.wire.queries import (
    DigestReply,
    DigestRequest,
    FetchReply,
    FetchRequest,
    Request,
)
from tests.unit.export_world import JOB, KEY, OTHER, TEXT, Federation


@pytest.fixture
def fed(memory_path) -> Iterator[Federation]:
    fed = Federation(memory_path)
    yield fed
    fed.store.close()


@contextmanager
def refused(code: str, *words: str) -> Iterator[None]:
    with pytest.raises(RetrievalError) as caught:
        yield
    assert caught.value.code is ErrorCode(code)
    for word in words:
        assert word in str(caught.value)


@contextmanager
def cut(fed: Federation, parts: int) -> Iterator[None]:
    """The connection breaks after some fetches."""
    fed.parts_left = parts
    with pytest.raises(LostContactError):
        yield
    fed.parts_left = 1 << 30
    fed.asked.clear()


def results(findings: list[Finding]) -> dict[str, str]:
    return {f"{finding.site}/{finding.file}": str(finding.result) for finding in findings}


# -- what an export is ---------------------------------------------------------------------------------------


def test_an_export_has_every_byte_and_its_manifest_every_stream(fed):
    fed.add(KEY, TEXT)
    fed.add(KEY, b"\xff\x00", (Loss(7, None, "truncated"),))
    fed.end(KEY, TEXT + b"\xff\x00", 5)
    fed.add(OTHER, b"")  # empty is not missing
    fed.store.refuse(StreamKey(JOB, "site-3", "log.txt"), "the site does not allow it")
    fed.store.expect({StreamKey(JOB, "site-4", "log.txt"): "nothing arrived from it"})
    manifest = fed.export()
    assert fed.content() == {"site-1/log.txt": TEXT + b"\xff\x00", "site-2/log.txt": b""}
    assert manifest == Manifest.load(fed.dest) and manifest.finished
    assert (manifest.job_id, manifest.job_status) == (JOB, "FINISHED:COMPLETED")
    assert manifest.package_version == __version__
    assert [(entry.path, entry.stream.verdict) for entry in manifest.streams] == [
        ("site-1/log.txt", "lost"),
        ("site-2/log.txt", "streaming"),
        (None, "refused"),
        (None, "never seen"),
    ]
    refused = manifest.streams[2]
    assert refused.stream.verdict_reason == "the site does not allow it" and refused.sha256 is None
    first = json.loads((fed.dest / "manifest.json").read_text())["streams"][0]
    numbers = ("bytes", "lines", "digest_from", "utc_offset", "skew")
    assert [first[name] for name in numbers] == [len(TEXT) + 2, 40, 5, 3600, 0.5]
    assert first["sha256"] == hashlib.sha256(TEXT + b"\xff\x00").hexdigest()
    assert first["site_digest"] == hashlib.sha256((TEXT + b"\xff\x00")[5:]).hexdigest()
    assert first["losses"] == [[7, None, "truncated"]] and first["outcome"] == "exit code 0"


def test_what_an_export_writes_is_private(fed):
    fed.add(KEY, TEXT)
    old = os.umask(0)
    try:
        fed.export()
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in fed.dest.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (fed.dest, fed.dest / "site-1")} == {0o700}


def test_the_export_of_a_running_job_is_a_prefix(fed):
    fed.add(KEY, TEXT)
    told: list[tuple[int, int, str]] = []

    def grow(done: int, total: int, stream: Any) -> None:
        told.append((done, total, stream.site))
        fed.add(KEY, b"more\n")

    manifest = fed.export(on_progress=grow)
    assert fed.content() == {"site-1/log.txt": TEXT} and manifest.streams[0].stream.lines == 40
    assert told == [(len(TEXT), len(TEXT), "site-1")]


def test_progress_counts_the_bytes_of_all_streams(fed, monkeypatch):
    monkeypatch.setattr(client, "MAX_PART", 100)
    fed.add(KEY, TEXT)
    fed.add(OTHER, TEXT)
    told: list[tuple[int, int]] = []
    with cut(fed, 5):
        fed.export()
    fed.export(on_progress=lambda done, total, stream: told.append((done, total)))
    size = len(TEXT)
    first = [done for done, _ in told if done <= size]
    assert told[0][0] == size and first == [size], "what was there counts at once"
    assert told[-1] == (2 * size, 2 * size) and told == sorted(told)


@pytest.mark.parametrize("digest_from", [0, 7, len(TEXT)])
@pytest.mark.parametrize("place", [0, 6, 7, 100])
def test_a_copy_that_was_damaged_on_the_server_is_never_complete(fed, place, digest_from):
    """What the site's digest covers is compared, at the export and whenever it is checked."""
    fed.add(KEY, TEXT)
    fed.end(KEY, TEXT, digest_from)
    with fed.store.path(KEY).open("r+b") as file:
        file.seek(place)
        file.write(b"\x00\x01\x02\x03")
    (entry,) = fed.export().streams
    is_seen = place + 4 > digest_from
    assert fed.content()["site-1/log.txt"][place : place + 4] == b"\x00\x01\x02\x03"
    assert entry.stream.verdict == ("partial" if is_seen else "complete")
    written = json.loads((fed.dest / "manifest.json").read_text())["streams"][0]
    (finding,) = verify_export(fed.dest)
    assert finding.good is not is_seen and bool(entry.damage) is is_seen and "damage" in written
    if is_seen:
        said = hashlib.sha256(TEXT[digest_from:]).hexdigest()
        assert said in entry.stream.standing and said in written["damage"] and said in finding.detail
        assert finding.result == "differs" and "matches its manifest, but" in finding.detail
        assert written["verdict"] == "partial"


def test_a_damaged_copy_of_a_log_with_losses_is_found_too(fed):
    fed.add(KEY, TEXT, (Loss(3, 4, "deleted"),))
    fed.end(KEY, TEXT)
    fed.store.path(KEY).write_bytes(TEXT.swapcase())
    (entry,) = fed.export().streams
    assert entry.stream.verdict == "lost" and not entry.stream.agreed and entry.damage
    assert Manifest.load(fed.dest).streams == (entry,)
    assert results(verify_export(fed.dest)) == {"site-1/log.txt": "differs"}


def test_a_manifest_that_blesses_a_damaged_copy_is_not_believed(fed):
    """As an earlier release wrote them."""
    fed.add(KEY, TEXT)
    fed.end(KEY, TEXT)
    fed.export()
    (fed.dest / "site-1" / "log.txt").write_bytes(TEXT.swapcase())
    manifest = json.loads((fed.dest / "manifest.json").read_text())
    manifest["streams"][0]["sha256"] = hashlib.sha256(TEXT.swapcase()).hexdigest()
    del manifest["streams"][0]["damage"]
    (fed.dest / "manifest.json").write_text(json.dumps(manifest))
    (finding,) = verify_export(fed.dest)
    assert finding.result == "differs" and "matches its manifest, but" in finding.detail


# -- going on with one that was interrupted ------------------------------------------------------------------


@given(
    logs=st.lists(st.binary(max_size=40), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 9), max_size=4),
    grown=st.lists(st.binary(max_size=20), max_size=4),
)
def test_an_interrupted_export_ends_as_if_it_had_not_been(memory_path_factory, logs, cuts, grown):
    with memory_path_factory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "MAX_PART", 7)
        fed = Federation(root)
        keys = [StreamKey(JOB, "site-1", f"log{'.part' * number}") for number in range(len(logs))]
        for key, data in zip(keys, logs, strict=True):
            fed.add(key, data)
        for number, parts in enumerate(cuts):
            fed.parts_left = parts
            try:
                finished = fed.export().finished
            except LostContactError:
                finished = False
                assert not Manifest.load(fed.dest).finished
            if finished:
                break
            if number < len(grown):
                fed.add(keys[0], grown[number])
                logs = [logs[0] + grown[number], *logs[1:]]
        else:
            fed.parts_left = 1 << 30
            fed.export()
        assert fed.content() == {f"site-1/{key.file}": data for key, data in zip(keys, logs, strict=True)}
        assert all(finding.good for finding in verify_export(fed.dest))
        fed.store.close()


def test_only_what_is_missing_is_fetched_again(fed, monkeypatch):
    monkeypatch.setattr(client, "MAX_PART", 100)
    fed.add(KEY, TEXT)
    fed.add(OTHER, TEXT)
    with cut(fed, 5):
        fed.export()
    assert set(fed.content()) == {"site-1/log.txt", "site-2/log.txt.part"}
    fed.add(KEY, b"grown\n")
    (fed.dest / "site-2" / "log.txt.part").chmod(0o644)
    fed.export()
    assert stat.S_IMODE((fed.dest / "site-2" / "log.txt").stat().st_mode) == 0o600
    assert fed.fetched()[:2] == [("site-1", len(TEXT)), ("site-2", 100 * (5 - -(-len(TEXT) // 100)))]
    assert fed.content() == {"site-1/log.txt": TEXT + b"grown\n", "site-2/log.txt": TEXT}


@pytest.mark.parametrize("damage", [b"other" * 20, b"other" * 40, b"longer" * 100, b""])
@pytest.mark.parametrize("name", ["log.txt", "log.txt.part"])
def test_a_changed_beginning_is_not_believed(fed, monkeypatch, damage, name):
    monkeypatch.setattr(client, "MAX_PART", 100)
    fed.add(KEY, TEXT)
    with cut(fed, 2):
        fed.export()
    (fed.dest / "site-1" / name).write_bytes(damage)
    told: list[int] = []
    fed.export(on_progress=lambda done, total, stream: told.append(done))
    assert fed.content() == {"site-1/log.txt": TEXT} and max(told) == len(TEXT)


def test_a_copy_that_differs_also_when_fetched_anew_is_an_error(fed, monkeypatch):
    monkeypatch.setattr(client, "MAX_PART", 100)
    fed.add(KEY, TEXT)
    with cut(fed, 2):
        fed.export()
    zeros = DigestReply("0" * 64).encode()
    fed.change = lambda request, reply: zeros if isinstance(request, DigestRequest) else reply
    with refused("LOG_CHANGED", "site-1/log.txt", "0" * 64, hashlib.sha256(TEXT).hexdigest()):
        fed.export()
    assert [at for _, at in fed.fetched()].count(0) == 1
    assert not (fed.dest / "site-1" / "log.txt").exists() and not Manifest.load(fed.dest).finished


def test_more_bytes_than_were_told_are_an_error(fed):
    fed.add(KEY, TEXT)
    more = FetchReply(TEXT + b"more", len(TEXT) + 4).encode()
    fed.change = lambda request, reply: more if isinstance(request, FetchRequest) else reply
    with refused("LOG_CHANGED", "site-1/log.txt", "more came"):
        fed.export()


# -- where an export may go ----------------------------------------------------------------------------------


def test_a_directory_with_something_else_in_it_is_refused(fed):
    fed.add(KEY, TEXT)
    fed.export()
    with refused("OUTPUT_DIR_EXISTS", str(fed.dest), "force"):
        fed.export()  # a finished export is not written over
    (fed.dest / "manifest.json").write_text("{}")
    with refused("OUTPUT_DIR_EXISTS", str(fed.dest)):
        fed.export()
    file = fed.dest / "site-1" / "log.txt"
    with refused("OUTPUT_DIR_EXISTS", str(file)):
        fed.client.export(JOB, file, force=True)
    with refused("OUTPUT_DIR_NOT_WRITABLE", str(file / "below")):
        fed.client.export(JOB, file / "below")


def test_an_unfinished_export_of_another_job_is_refused(fed):
    fed.add(KEY, TEXT)
    with cut(fed, 0):
        fed.export()
    fed.add(StreamKey("job-2", "site-1", "log.txt"), TEXT)
    with refused("OUTPUT_DIR_EXISTS", "job-2"):
        fed.client.export("job-2", fed.dest)


def test_new_nested_and_empty_directories_will_do(fed):
    fed.add(KEY, TEXT)
    fed.client.export(JOB, fed.dest / "a" / "b")
    (fed.dest / "c").mkdir()
    (fed.dest / "c" / "manifest.json.part").touch()  # killed before the first manifest was there
    fed.client.export(JOB, str(fed.dest / "c"))
    assert fed.content() == {"a/b/site-1/log.txt": TEXT, "c/site-1/log.txt": TEXT}


def test_force_replaces_an_earlier_export_and_leaves_foreign_files(fed):
    fed.add(KEY, TEXT)
    fed.add(StreamKey(JOB, "site-1", "error_log.txt"), b"error\n")
    fed.add(OTHER, TEXT)
    fed.store.refuse(StreamKey(JOB, "site-3", "log.txt"), "no")
    fed.export()
    (fed.dest / "site-1" / "notes.txt").write_text("mine")
    (fed.dest / "site-3").mkdir()
    (fed.dest / "site-3" / "log.txt").write_text("mine too")
    (fed.dest / "notes.txt").write_text("mine as well")
    fed.add(StreamKey("job-2", "site-1", "log.txt"), b"job 2\n")
    fed.client.export("job-2", fed.dest, force=True)
    assert fed.content() == {
        "site-1/log.txt": b"job 2\n",
        "site-1/notes.txt": b"mine",
        "site-3/log.txt": b"mine too",
        "notes.txt": b"mine as well",
    }
    assert not (fed.dest / "site-2").exists() and Manifest.load(fed.dest).job_id == "job-2"


def test_force_into_a_directory_without_a_manifest_replaces_only_what_it_writes(fed):
    fed.add(KEY, TEXT)
    (fed.dest / "site-1").mkdir(parents=True)
    (fed.dest / "site-1" / "log.txt").write_bytes(TEXT[:9])
    os.link(fed.dest / "site-1" / "log.txt", fed.dest / "site-1" / "linked")
    fed.export(force=True)
    assert fed.content() == {"site-1/log.txt": TEXT, "site-1/linked": TEXT[:9]}, (
        "a new file, not the old one grown"
    )


@pytest.mark.parametrize("site", ["h\u00f4pital-1", "-1", "--help", "site[1]", "a b", "~", "x" * 255])
def test_a_site_whose_name_is_no_plain_name_is_exported_and_verified(fed, site):
    key = StreamKey(JOB, site, "log.txt")
    fed.add(key, TEXT)
    fed.end(key, TEXT)
    fed.export()
    assert fed.content() == {f"{site}/log.txt": TEXT}
    assert [finding.result for finding in verify_export(fed.dest)] == [Result.EQUAL]
    assert Manifest.load(fed.dest).streams[0].stream.site == site


# -- links and names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["site-1/log.txt", "site-1/log.txt.part", "manifest.json.part"])
def test_a_link_in_the_directory_is_replaced_and_not_followed(fed, name):
    fed.add(KEY, TEXT)
    with cut(fed, 0):
        fed.export()
    outside = fed.dest.parent / "outside"
    outside.write_bytes(TEXT[:16])
    (fed.dest / name).unlink(missing_ok=True)
    (fed.dest / name).symlink_to(outside)
    fed.export()
    assert outside.read_bytes() == TEXT[:16] and fed.content() == {"site-1/log.txt": TEXT}
    assert not (fed.dest / "site-1" / "log.txt").is_symlink()


@pytest.mark.parametrize("name", ["log.txt", "log.txt.part"])
def test_a_directory_in_the_place_of_a_log_stays(fed, name):
    fed.add(KEY, TEXT)
    with cut(fed, 0):
        fed.export()
    place = fed.dest / "site-1" / name
    (fed.dest / "site-1" / "log.txt.part").unlink()
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    with refused("OUTPUT_DIR_NOT_WRITABLE", str(place)):
        fed.export()
    assert (place / "notes.txt").read_text() == "mine"


def test_a_linked_manifest_is_not_read(fed):
    fed.add(KEY, TEXT)
    with cut(fed, 0):
        fed.export()
    outside = (fed.dest / "manifest.json").rename(fed.dest.parent / "outside")
    (fed.dest / "manifest.json").symlink_to(outside)
    with refused("OUTPUT_DIR_EXISTS"):
        fed.export()
    fed.export(force=True)
    assert not (fed.dest / "manifest.json").is_symlink() and not json.loads(outside.read_text())["finished"]


@pytest.mark.parametrize("force", [False, True])
def test_a_linked_site_directory_is_not_written_into(fed, force):
    fed.add(KEY, TEXT)
    if force:
        fed.export()
        (fed.dest / "site-1" / "log.txt").rename(fed.dest / "log.txt")
    else:
        with cut(fed, 0):
            fed.export()
        (fed.dest / "site-1" / "log.txt.part").unlink()
    (fed.dest / "site-1").rmdir()
    outside = fed.dest.parent / "outside"
    outside.mkdir()
    (outside / "log.txt").write_text("mine")
    (fed.dest / "site-1").symlink_to(outside)
    with refused("OUTPUT_DIR_NOT_WRITABLE", str(fed.dest / "site-1"), "not a directory"):
        fed.export(force=force)
    assert [path.name for path in outside.iterdir()] == ["log.txt"] and (
        outside / "log.txt"
    ).read_text() == "mine"


OF_MANIFESTS = ["manifest.json", "manifest.json.part", "manifest.sig", "manifest.crt", "manifest.crt.part"]
HOSTILE = ["..", "../x", "/etc", "", "a/b", ".hidden", "a\0b", 5, None, *OF_MANIFESTS]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_before_anything_is_written(fed, name):
    fed.add(KEY, TEXT)
    for field in ("site", "file"):
        if field == "file" and name in OF_MANIFESTS:
            continue  # below a site's directory it is a name like others

        def rename(request: Request[Any], reply: dict[str, Any], field: str = field) -> dict[str, Any]:
            (row,) = reply["streams"]
            return {**reply, "streams": [row, {**row, field: name}]}

        fed.change = rename
        with refused("INVALID_REPLY", "name"):
            fed.export()
        assert not fed.dest.exists()


def test_two_streams_of_one_name_are_refused(fed):
    fed.add(KEY, TEXT)
    fed.change = lambda request, reply: {**reply, "streams": reply["streams"] * 2}
    with refused("INVALID_REPLY", "site-1/log.txt"):
        fed.export()


def sign(data: bytes) -> tuple[bytes, bytes]:
    return hashlib.sha256(data).digest(), b"certificates"


def test_the_finished_manifest_is_signed_and_no_other(fed, monkeypatch):
    monkeypatch.setattr(client, "MAX_PART", 100)
    fed.add(KEY, TEXT)
    with cut(fed, 1):
        fed.export(sign=sign)
    assert not (fed.dest / "manifest.sig").exists()
    fed.export(sign=sign)
    data = (fed.dest / "manifest.json").read_bytes()
    assert (fed.dest / "manifest.sig").read_bytes() == sign(data)[0]
    assert (fed.dest / "manifest.crt").read_bytes() == b"certificates"
    assert stat.S_IMODE((fed.dest / "manifest.sig").stat().st_mode) == 0o600
    assert [finding.name for finding in verify_export(fed.dest)] == ["site-1/log.txt"]
    with cut(fed, 0):
        fed.export(force=True, sign=sign)
    assert sorted(os.listdir(fed.dest)) == ["manifest.json", "site-1"], "it would be about another manifest"


# -- the disk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "make room"), (errno.EACCES, "another directory"), (errno.EIO, "")]
)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_an_error_of_the_disk_names_the_path_and_the_export_can_be_gone_on_with(
    fed, monkeypatch, call, number, word
):
    fed.add(KEY, TEXT)
    real = getattr(os, call)
    with cut(fed, 0):
        fed.export()

    def fail(first: Any, *rest: Any, **named: Any) -> Any:
        path = (
            str(first) if isinstance(first, (str, Path)) else str(Path(f"/proc/self/fd/{first}").readlink())
        )
        if "log.txt" in path:
            raise OSError(number, os.strerror(number), path)
        return real(first, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with refused(
            "OUTPUT_DIR_NOT_WRITABLE", str(fed.dest / "site-1" / "log.txt"), os.strerror(number), word
        ):
            fed.export()
    fed.export()
    assert fed.content() == {"site-1/log.txt": TEXT}


def test_short_writes_are_gone_on_with(fed, monkeypatch):
    fed.add(KEY, TEXT)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:11]))
    fed.export()
    assert fed.content() == {"site-1/log.txt": TEXT}


# -- verifying a job -----------------------------------------------------------------------------------------


def test_every_result_of_verifying_a_job(memory_path):
    fed = Federation(memory_path, stream_quota=1000)
    sites = ("equal", "damaged", "wrong", "open", "silent", "lost", "full", "empty")
    keys = {site: StreamKey(JOB, site, "log.txt") for site in sites}
    for key in keys.values():
        fed.add(key, b"" if key.site == "empty" else TEXT)
    fed.end(keys["equal"], TEXT, 10)
    fed.end(keys["empty"], b"")
    fed.end(keys["damaged"], TEXT)
    fed.store.path(keys["damaged"]).write_bytes(TEXT.swapcase())
    fed.end(keys["wrong"], TEXT.swapcase())
    fed.add(keys["lost"], b"rest\n", (Loss(3, 4, "deleted"),))
    fed.end(keys["lost"], TEXT + b"rest\n")
    with pytest.raises(Exception, match="quota"):
        fed.add(keys["full"], bytes(1000))
    fed.clock.advance(20)
    fed.store.open(keys["open"])
    fed.clock.advance(20)
    fed.store.refuse(StreamKey(JOB, "no", "log.txt"), "the site does not allow it")
    fed.store.expect({StreamKey(JOB, "none", "log.txt"): "nothing arrived from it"})
    found = {finding.site: finding for finding in fed.client.verify(JOB)}
    assert {site: str(finding.result) for site, finding in found.items()} == {
        "equal": "equal",
        "empty": "equal",
        "damaged": "differs",
        "wrong": "differs",
        "open": "not closed",
        "silent": "incomplete",
        "lost": "incomplete",
        "full": "incomplete",
        "no": "refused",
        "none": "incomplete",
    }
    assert {site for site, finding in found.items() if finding.good} == {"equal", "empty", "no"}
    stored, said = (hashlib.sha256(data).hexdigest() for data in (TEXT.swapcase(), TEXT))
    assert stored in found["damaged"].detail and said in found["damaged"].detail
    assert "from byte 10 on" in found["equal"].detail and str(len(TEXT)) in found["open"].detail
    assert (
        "silent since" in found["silent"].detail
        and "deleted" in found["lost"].detail
        and "quota" in found["full"].detail
    )
    fed.store.path(keys["equal"]).write_bytes(b"")
    gone = next(finding for finding in fed.client.verify(JOB) if finding.site == "equal")
    assert gone.result == "incomplete" and "shorter" in gone.detail
    fed.store.close()


def test_a_copy_that_shrank_after_it_was_listed_is_a_finding(fed):
    """So is a reply about one log that cannot be read; the other logs are still checked."""
    for key in (KEY, OTHER):
        fed.add(key, TEXT)
        fed.end(key, TEXT)
    listed = [stream._replace(end=stream.end + 5 * (stream.key == KEY)) for stream in fed.client.streams(JOB)]
    shrunk, equal = verify_streams(listed, partial(fed.client.digest, JOB))
    assert shrunk.result == "incomplete" and f"ends at byte {len(TEXT)} now" in shrunk.detail
    assert equal.result == "equal"

    def damage(request: Request[Any], reply: dict[str, Any]) -> dict[str, Any]:
        return {"v": 1} if isinstance(request, DigestRequest) and request.site == KEY.site else reply

    fed.change = damage
    damaged, equal = fed.client.verify(JOB)
    assert damaged.result == "incomplete" and "digest: None is not allowed" in damaged.detail
    assert equal.result == "equal"


def test_a_lost_connection_ends_verifying_and_is_no_finding():
    stream = Stream(KEY, 5, state=State.CLOSED, agreed=True, digest="ab" * 32)

    def fail(stream: Stream, start: int) -> str:
        raise LostContactError(ErrorCode.TIMEOUT, "the server did not answer")

    with refused("TIMEOUT", "did not answer"):
        verify_streams([stream], fail)


# -- verifying an export -------------------------------------------------------------------------------------


def test_every_result_of_verifying_an_export(fed):
    for site in ("changed", "cut", "gone", "linked", "same"):
        fed.add(StreamKey(JOB, site, "log.txt"), TEXT)
    fed.store.refuse(StreamKey(JOB, "no", "log.txt"), "the site does not allow it")
    fed.store.expect({StreamKey(JOB, "none", "log.txt"): "nothing arrived from it"})
    fed.export()
    (fed.dest / "changed" / "log.txt").write_bytes(TEXT.swapcase())
    (fed.dest / "cut" / "log.txt").write_bytes(TEXT[:-1])
    (fed.dest / "gone" / "log.txt").unlink()
    (fed.dest / "linked" / "log.txt").rename(fed.dest / "elsewhere")
    (fed.dest / "linked" / "log.txt").symlink_to(fed.dest / "elsewhere")
    (fed.dest / "same" / "deep").mkdir()
    (fed.dest / "same" / "deep" / "file").touch()
    (fed.dest / "same" / "up").symlink_to(fed.dest)
    (fed.dest / "no").mkdir()
    (fed.dest / "no" / "log.txt").touch()
    (fed.dest / "other").mkdir()
    (fed.dest / "other" / "file").touch()
    (fed.dest / "site-99").mkdir()
    (fed.dest / "site-99" / "log.txt").write_bytes(TEXT)
    found = verify_export(fed.dest)
    assert sorted((finding.site, finding.file, str(finding.result)) for finding in found) == [
        ("", "elsewhere", "unexpected"),
        ("changed", "log.txt", "differs"),
        ("cut", "log.txt", "differs"),
        ("gone", "log.txt", "missing"),
        ("linked", "log.txt", "differs"),
        ("no", "log.txt", "refused"),
        ("no", "log.txt", "unexpected"),
        ("none", "log.txt", "incomplete"),
        ("other", "file", "unexpected"),
        ("same", "deep/file", "unexpected"),
        ("same", "log.txt", "equal"),
        ("same", "up", "unexpected"),
        ("site-99", "log.txt", "unexpected"),
    ]
    details = {finding.site: finding.detail for finding in found if finding.file == "log.txt"}
    assert all(hashlib.sha256(data).hexdigest() in details["changed"] for data in (TEXT, TEXT.swapcase()))
    assert str(len(TEXT)) in details["cut"] and str(len(TEXT) - 1) in details["cut"]
    assert "streaming" in details["same"] and "symbolic link" in details["linked"]


def test_a_linked_site_directory_is_not_looked_into(fed):
    fed.add(KEY, TEXT)
    fed.export()
    (fed.dest / "site-1").rename(fed.dest.parent / "outside")
    (fed.dest.parent / "outside" / "notes.txt").touch()
    (fed.dest / "site-1").symlink_to(fed.dest.parent / "outside")
    assert results(verify_export(fed.dest)) == {"site-1/log.txt": "differs"}


def test_a_link_or_a_file_in_the_place_of_a_site_that_has_no_copy_is_unexpected(fed):
    fed.store.refuse(KEY, "no")
    fed.store.refuse(OTHER, "no")
    fed.export()
    (fed.dest / "site-1").symlink_to(fed.dest.parent)
    (fed.dest / "site-2").write_bytes(TEXT)
    found = {(finding.site, finding.file): finding for finding in verify_export(fed.dest)}
    assert {name for name, finding in found.items() if finding.result == "unexpected"} == {
        ("", "site-1"),
        ("", "site-2"),
    }


def test_a_directory_that_cannot_be_looked_into_is_said(fed, monkeypatch):
    fed.add(KEY, TEXT)
    fed.export()
    (fed.dest / "hidden").mkdir()
    real = os.scandir

    def scan(place: Any) -> Any:
        if str(place).endswith("hidden"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(place)

    monkeypatch.setattr(os, "scandir", scan)
    found = {finding.name: finding for finding in verify_export(fed.dest)}
    assert set(found) == {"site-1/log.txt", "hidden"} and not found["hidden"].good
    assert "cannot be read: Permission denied" in found["hidden"].detail


def test_a_deep_directory_is_walked_to_its_end(fed):
    fed.add(KEY, TEXT)
    fed.export()
    place = fed.dest
    for _ in range(1200):
        place = place / "d"
        place.mkdir()
    (place / "x").touch()
    bad = [finding.name for finding in verify_export(fed.dest) if not finding.good]
    assert bad == ["d/" * 1200 + "x"]
    for path in [place / "x", *(fed.dest / ("d/" * depth) for depth in range(1200, 0, -1))]:
        path.rmdir() if path.is_dir() else path.unlink()  # rmtree would run out of stack


def test_a_site_directory_that_cannot_be_entered_is_a_finding(fed, monkeypatch):
    fed.add(KEY, TEXT)
    fed.export()
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path.name == "log.txt":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    (finding,) = verify_export(fed.dest)
    assert finding.result == "differs" and "cannot be read: Permission denied" in finding.detail


def test_a_pipe_in_the_place_of_a_log_is_not_waited_for(fed):
    fed.add(KEY, TEXT)
    fed.export()
    (fed.dest / "site-1" / "log.txt").unlink()
    os.mkfifo(fed.dest / "site-1" / "log.txt")
    (finding,) = verify_export(fed.dest)
    assert finding.result == "differs" and "not a regular file" in finding.detail


def test_an_unfinished_export_is_not_verified(fed):
    fed.add(KEY, TEXT)
    with cut(fed, 0):
        fed.export()
    with refused("EXPORT_UNFINISHED", "manifest.json", "finished"):
        verify_export(fed.dest)


MALFORMED = [
    ("format", 2),
    ("finished", "yes"),
    ("job_id", 3),
    ("streams", {}),
    ("streams[0]", 3),
    ("streams[0].site", "../x"),
    ("streams[0].file", 3),
    ("streams[0].path", "/etc/passwd"),
    ("streams[0].path", "../log.txt"),
    ("streams[0].bytes", -1),
    ("streams[0].bytes", True),
    ("streams[0].lines", "1"),
    ("streams[0].sha256", "abc"),
    ("streams[0].sha256", None),
    ("streams[0].losses", [[1, 2]]),
    ("streams[0].losses", [["x", 2, "y"]]),
    ("streams[0].losses", [[True, 2, "y"]]),
    ("streams[0].losses", [[0, -2, "y"]]),
    ("streams[0].losses", [[10**4000, 10**4000, "y"]]),
    ("streams[0].losses", [[0, float("inf"), "y"]]),
    ("streams[0].path", None),
    ("streams[0].bytes", float("inf")),
    ("format", float("inf")),
    ("streams[0].skew", "1"),
    ("streams[0].verdict", None),
    ("streams[0].verdict", "complete"),  # the other fields say that it is streaming
    ("streams[0].verdict", "good"),
    ("streams[0].state", "shut"),
    ("streams[0].skew", float("nan")),
    ("streams[0].losses", [[-1, 2, "y"]]),
    ("streams[0].total", -2),
    ("streams[0].closed", "never"),
    ("streams[0].damage", 3),
]


@pytest.mark.parametrize(("field", "value"), MALFORMED, ids=lambda value: str(value)[:20])
def test_a_malformed_manifest_is_refused_with_the_field(fed, field, value):
    fed.add(KEY, TEXT)
    fed.export()
    manifest = json.loads((fed.dest / "manifest.json").read_text())
    if field == "streams[0]":
        manifest["streams"][0] = value
    elif field.startswith("streams[0]."):
        manifest["streams"][0][field.partition(".")[2]] = value
    else:
        manifest[field] = value
    (fed.dest / "manifest.json").write_text(json.dumps(manifest))
    with refused("INVALID_MANIFEST", str(fed.dest / "manifest.json"), f": {field}: "):
        verify_export(fed.dest)


def test_a_log_that_a_manifest_has_twice_is_refused(fed):
    fed.add(KEY, TEXT)
    fed.export()
    manifest = json.loads((fed.dest / "manifest.json").read_text())
    manifest["streams"] *= 2
    (fed.dest / "manifest.json").write_text(json.dumps(manifest))
    with refused("INVALID_MANIFEST", "streams[1].file: 'log.txt' is not allowed; site-1 has it twice"):
        verify_export(fed.dest)


def test_a_manifest_of_absurd_size_is_not_read(fed, monkeypatch):
    fed.add(KEY, TEXT)
    fed.export()
    monkeypatch.setattr(manifest, "MAX_SIZE", 100)
    with refused("INVALID_MANIFEST", "larger than 100 bytes"):
        verify_export(fed.dest)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"[" * 100_000, b"{}"],
    ids=["empty", "binary", "list", "deep", "nothing"],
)
def test_what_is_not_a_manifest_is_refused(tmp_path, content):
    with refused("INVALID_MANIFEST", "No such file"):
        verify_export(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with refused("INVALID_MANIFEST", str(tmp_path / "manifest.json")):
        verify_export(tmp_path)


# -- the server's digest -------------------------------------------------------------------------------------


def digest_of(fed: Federation, start: int = 0, end: int = len(TEXT)) -> str | None:
    return fed.ask(JOB, DigestRequest(KEY.site, KEY.file, start, end), 20.0).digest


@pytest.mark.parametrize(("start", "end"), [(0, len(TEXT)), (3, 20), (5, 5)])
def test_a_digest_is_of_the_stored_bytes_in_the_range(fed, start, end):
    fed.add(KEY, TEXT)
    assert digest_of(fed, start, end) == hashlib.sha256(TEXT[start:end]).hexdigest()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"site": "../x"}, "site"),
        ({"file": None}, "file"),
        ({"start": -1}, "start"),
        ({"start": "0"}, "start"),
        ({"start": True}, "start"),
        ({"start": 6, "end": 5}, "start"),
        ({"end": 1 << 63}, "end"),
        ({"end": 1.5}, "end"),
    ],
)
def test_a_malformed_digest_request_is_answered_with_the_field(fed, fields, named):
    fed.add(KEY, TEXT)
    request = {**DigestRequest(KEY.site, KEY.file, 0, len(TEXT)).encode(), **fields}
    assert fed.answer(request)["error"].startswith(f"{named}: ")


def test_a_digest_of_what_is_not_there_is_an_error(fed):
    with refused("LOG_NOT_FOUND", "has no log"):
        digest_of(fed)


def test_the_server_hashes_two_at_a_time_and_the_client_comes_back(fed, monkeypatch):
    fed.add(KEY, TEXT)
    monkeypatch.setattr(hashing, "HASH_STEP", 16)
    (stream,) = fed.client.streams(JOB)
    inside, go_on, real = threading.Semaphore(0), threading.Event(), LogLines.read

    def slow(source: LogLines, offset: int, length: int) -> bytes:
        if not offset:
            inside.release()
            assert go_on.wait(10)
        return real(source, offset, length)

    monkeypatch.setattr(LogLines, "read", slow)
    digests: list[str | None] = []
    threads = [threading.Thread(target=lambda: digests.append(digest_of(fed))) for _ in range(MAX_HASHING)]
    for thread in threads:
        thread.start()
        assert inside.acquire(timeout=10)
    assert digest_of(fed) is None, "the server is busy"
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        go_on.set()
        for thread in threads:
            thread.join()

    fed.sleep = pause
    digest = hashlib.sha256(TEXT).hexdigest()
    assert fed.client.digest(JOB, stream) == digest
    assert len(paused) == 1 and digests == [digest] * MAX_HASHING


def test_a_failed_hashing_makes_room_for_the_next(fed):
    fed.add(KEY, TEXT)
    fed.store.path(KEY).write_bytes(b"short")
    for _ in range(MAX_HASHING + 1):
        with refused("LOG_CHANGED", "shorter"):
            digest_of(fed)


def test_the_time_for_a_digest_grows_with_the_log(fed):
    fed.add(KEY, TEXT)
    (stream,) = fed.client.streams(JOB)
    nothing = DigestReply("0" * 64).encode()
    fed.change = lambda request, reply: nothing if isinstance(request, DigestRequest) else reply
    fed.client.digest(JOB, stream._replace(end=10**10))
    assert fed.patience[-1] > 200
    fed.client.streams(JOB)
    assert fed.patience[-1] < 60
