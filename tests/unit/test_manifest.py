"""Manifests come back as they were written, also those of release 0.1.0."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nvflare_logstream.client.checks import verify_export
from nvflare_logstream.client.manifest import ExportedStream, Manifest
from nvflare_logstream.streams import Loss, State, Stream, StreamKey

JOB = "job-1"
KEY = StreamKey(JOB, "site-1", "log.txt")
RECORDS = [
    Stream(KEY),
    Stream(KEY, 9, lines=2, opened=1.5, last_seen=3.25, last_data=2.125, utc_offset=-3600, skew=-0.25),
    Stream(KEY, 9, last_seen=3.25, silent=True),
    Stream(KEY, 9, total=9, digest="ab" * 32, digest_from=4, state=State.CLOSED, agreed=True, closed=7.5),
    Stream(
        KEY,
        9,
        total=8,
        digest="ab" * 32,
        state=State.CLOSED,
        reason="the digests differ",
        outcome="exit code 1",
    ),
    Stream(
        KEY,
        9,
        state=State.CLOSED,
        agreed=True,
        reason="not shown",
        losses=(Loss(0, 4, "a"), Loss(7, None, "b")),
    ),
    Stream(KEY, 9, state=State.STOPPED, reason="the quota is used up", losses=(Loss(1, 0, "deleted"),)),
    Stream(KEY, state=State.REFUSED, reason="the site does not allow it"),
    Stream(KEY, state=State.EXPECTED, reason="nothing arrived from it"),
]


@pytest.mark.parametrize("stream", RECORDS, ids=lambda stream: str(stream.verdict))
def test_a_stream_comes_back_whole_from_a_manifest(tmp_path, stream):
    manifest = Manifest(JOB, "RUNNING", "2026-04-28T10:00:00Z", False, (ExportedStream.of(stream),))
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest


# What release 0.1.0 wrote, with the standing that it gave each stream.
OLD = {
    "streaming": ("streaming", "", []),
    "complete": ("complete", "", []),
    "partial (site silent since 2026-04-28 09:58:41)": (
        "partial",
        "site silent since 2026-04-28 09:58:41",
        [],
    ),
    "refused (the site does not allow it)": ("refused", "the site does not allow it", []),
    "lost (bytes 3-7 of the source: deleted; from byte 9, length unknown: truncated)": (
        "lost",
        "bytes 3-7 of the source: deleted; from byte 9, length unknown: truncated",
        [[3, 4, "deleted"], [9, None, "truncated"]],
    ),
    "never seen (nothing arrived from it)": ("never seen", "nothing arrived from it", []),
}
OLD_MANIFEST = """{
  "format": 1,
  "package_version": "0.1.0",
  "job_id": "job-1",
  "job_status": "FINISHED:COMPLETED",
  "exported": "2026-04-28T10:00:00Z",
  "finished": true,
  "streams": [
    {
      "site": "site-1",
      "file": "log.txt",
      "path": "site-1/log.txt",
      "bytes": 6,
      "lines": 1,
      "sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
      "verdict": VERDICT,
      "reason": REASON,
      "outcome": "exit code 0",
      "site_digest": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
      "digest_from": 0,
      "losses": LOSSES,
      "utc_offset": 3600,
      "skew": 0.5
    }
  ]
}
"""


def old_manifest(verdict: str, reason: str, losses: list[Any]) -> str:
    values = {"VERDICT": verdict, "REASON": reason, "LOSSES": losses}
    text = OLD_MANIFEST
    for name, value in values.items():
        text = text.replace(name, json.dumps(value))
    return text


@pytest.mark.parametrize("standing", OLD)
def test_a_manifest_of_release_0_1_0_is_read_with_the_same_verdicts(tmp_path, standing):
    text = old_manifest(*OLD[standing])
    (tmp_path / "manifest.json").write_text(text)
    manifest = Manifest.load(tmp_path)
    (entry,) = manifest.streams
    assert entry.stream.standing == standing and manifest.package_version == "0.1.0"
    assert (entry.stream.end, entry.stream.lines, entry.stream.skew) == (6, 1, 0.5)
    written = manifest.as_json()
    for name, value in json.loads(text)["streams"][0].items():
        assert written["streams"][0][name] == value, name


def test_an_export_of_release_0_1_0_is_verified(tmp_path):
    (tmp_path / "manifest.json").write_text(old_manifest(*OLD["complete"]))
    (tmp_path / "site-1").mkdir()
    (tmp_path / "site-1" / "log.txt").write_bytes(b"hello\n")
    (finding,) = verify_export(tmp_path)
    assert finding.good and finding.detail.endswith("the log was complete")


@pytest.mark.parametrize("standing", [name for name in OLD if name.startswith("never seen")])
def test_of_an_export_of_release_0_1_0_it_is_said_what_never_came(tmp_path, standing):
    """Its manifest names every log of the job with its verdict: there is nothing that it cannot say."""
    text = json.loads(old_manifest(*OLD[standing]))
    text["streams"][0] |= {"path": None, "sha256": None, "bytes": 0, "lines": 0}
    (tmp_path / "manifest.json").write_text(json.dumps(text))
    (finding,) = verify_export(tmp_path)
    assert not finding.good and f"{finding.result}: {finding.detail}" == f"incomplete: {standing}"
