"""`export` and `verify` as they are typed: a real store, and no network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvflare_logstream.cli.main import run
from nvflare_logstream.flare import admin_session
from tests.unit.export_world import JOB, KEY, OTHER, TEXT, Federation


@pytest.fixture
def fed(memory_path, monkeypatch) -> Iterator[Federation]:
    """The server that the commands log in to; they are typed in an empty directory."""
    fed = Federation(memory_path)
    (memory_path / "here").mkdir()
    monkeypatch.chdir(memory_path / "here")
    monkeypatch.setenv("HOME", str(memory_path))
    monkeypatch.delenv("NVFLARE_STARTUP_KIT_DIR", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(admin_session, "open_client", lambda *access: fed.client)
    yield fed
    fed.store.close()


@dataclass
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The answer of a command in JSON mode."""
        found: dict[str, Any] = json.loads(self.out)["data"]
        return found


@pytest.fixture
def typed(capsys) -> Callable[..., Said]:
    def run_command(*words: str) -> Said:
        code = run(words)
        said = capsys.readouterr()
        assert "Traceback" not in said.err and code != 5, said
        return Said(code, said.out, said.err)

    return run_command


def test_the_export_of_a_damaged_copy_fails_and_says_which(fed, typed):
    for key in (KEY, OTHER):
        fed.add(key, TEXT)
        fed.end(key, TEXT)
    fed.store.path(KEY).write_bytes(TEXT.swapcase())
    said = typed("export", JOB, "-o", "out")
    assert said.code == 1 and "site-1/log.txt: the copy is not what the site wrote" in said.err
    assert "site-2" not in said.err
    answer = typed("export", JOB, "-o", "again", "--format", "json")
    assert answer.code == 1 and not answer.data["good"]
    assert [bool(entry["damage"]) for entry in answer.data["streams"]] == [True, False]
    checked = typed("verify", "out")
    assert checked.code == 1 and "✗ site-1/log.txt differs: matches its manifest, but" in checked.out
    assert typed("verify", JOB).code == 1


# -- what a directory says of itself -------------------------------------------------------------------------


def exported(fed: Federation) -> dict[str, Any]:
    """Export two logs and return the manifest."""
    for key in (KEY, OTHER):
        fed.add(key, TEXT)
        fed.end(key, TEXT)
    fed.export()
    found: dict[str, Any] = json.loads((fed.dest / "manifest.json").read_text())
    return found


def rewrite(fed: Federation, manifest: Any) -> None:
    (fed.dest / "manifest.json").write_text(json.dumps(manifest))


def test_a_directory_matches_its_manifest_and_no_more_is_said(fed, typed):
    exported(fed)
    fed.add(KEY._replace(site="site-3"), TEXT)
    fed.export(force=True)
    said = typed("verify", str(fed.dest))
    assert said.code == 0 and "✓ site-1/log.txt matches its manifest: complete\n" in said.out
    assert "✓ site-3/log.txt matches its manifest: streaming\n" in said.out
    assert "all 3 logs match their manifest" in said.out
    answer = typed("verify", str(fed.dest), "--format", "json").data
    assert [finding["result"] for finding in answer["findings"]] == ["equal"] * 3
    assert [finding["standing"] for finding in answer["findings"]] == ["complete", "complete", "streaming"]


def test_a_forged_site_is_an_error(fed, typed):
    exported(fed)
    (fed.dest / "site-99").mkdir()
    (fed.dest / "site-99" / "log.txt").write_bytes(TEXT)
    said = typed("verify", str(fed.dest))
    assert said.code == 1 and "✗ site-99/log.txt unexpected: the manifest does not have it" in said.out


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_file_name_that_is_no_text_is_shown(fed, typed, form):
    exported(fed)
    name = os.fsencode(fed.dest) + b"/caf\xe9 \x1b[2J\n\xe2\x9c\x93 fine"
    Path(os.fsdecode(name)).touch()
    said = typed("verify", str(fed.dest), "--format", form)
    assert said.code == 1 and said.out.encode()
    if form == "json":
        assert said.data["findings"][2]["file"] == "caf\\xe9 \x1b[2J\n✓ fine"
    else:
        assert r"✗ caf\xe9 \x1b[2J\n✓ fine unexpected" in said.out


def test_a_directory_whose_name_is_no_text_is_exported_to_and_verified(fed, typed):
    fed.add(KEY, TEXT)
    name = os.fsdecode(b"caf\xe9\x1b[2J")
    said = typed("export", JOB, "-o", name)
    assert said.code == 0 and said.out.encode() and "\x1b" not in said.out
    assert typed("verify", name).code == 0
    (Path(name) / "manifest.json").unlink()
    said = typed("verify", name, "--format", "json")
    assert said.code == 1 and "\x1b" not in said.out + said.err


def test_a_manifest_without_a_log_has_nothing_to_check(fed, typed):
    rewrite(fed, {**exported(fed), "streams": []})
    said = typed("verify", str(fed.dest))
    assert said.code == 1 and said.out.count("unexpected") == 2 and "2 of 2 files are not" in said.out
    for site in ("site-1", "site-2"):
        (fed.dest / site / "log.txt").unlink()
    said = typed("verify", str(fed.dest))
    assert said.code == 1 and "there is nothing to check: the manifest names no log" in said.out
    assert "server" not in said.out


@pytest.mark.parametrize("field", ["reason", "outcome", "site_digest", "damage", "state_reason"])
def test_what_a_manifest_says_is_shown_and_never_sent_to_the_terminal(fed, typed, field):
    """Escape sequences, line ends, marks that turn text round, and halves of characters."""
    manifest = exported(fed)
    hostile = "\x1b[2J\r\n✓ all is fine \u202e\u200b\ud800 \x9b31m"
    manifest["streams"][0][field] = hostile
    if field in ("reason", "state_reason"):
        manifest["streams"][0] |= {"verdict": "partial", "state": "stopped", "agreed": False}
    rewrite(fed, manifest)
    said = typed("verify", str(fed.dest))
    assert said.code == (1 if field == "site_digest" else 0) and said.out.encode()
    assert all(character.isprintable() for character in said.out.replace("\n", ""))
    assert said.out.count("\n") == 3
    assert (r"\u202e" in said.out) is (field in ("site_digest", "state_reason"))


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([float("inf"), float("nan"), -1, 10**400, 1e300, "", "\ud800", "\x1b[2J", "../x", 2**63]),
    st.sampled_from([[], {}, [[]], [[0, 1, "x"]], [[[[[[[[]]]]]]]], {"a": {"b": {}}}]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(data=st.data())
def test_no_manifest_makes_a_command_fail_by_itself(fed, typed, data):
    if not fed.dest.exists():
        fed.clean = exported(fed)
    manifest = json.loads(json.dumps(fed.clean))
    for _ in range(data.draw(st.integers(1, 3))):
        entry = data.draw(st.sampled_from([manifest, *manifest["streams"]]))
        entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(_ODD)
        if not isinstance(manifest["streams"], list) or manifest["streams"] != [
            entry for entry in manifest["streams"] if isinstance(entry, dict)
        ]:
            break
    rewrite(fed, manifest)
    said = typed("verify", str(fed.dest))
    assert said.code in (0, 1) and (said.out + said.err).encode()
    assert all(character.isprintable() for character in (said.out + said.err).replace("\n", ""))


def test_a_name_that_no_file_can_have_is_no_file(fed, typed):
    said = typed("verify", "x" * 5000)
    assert said.code == 1 and "JOB_NOT_FOUND" in said.err


# -- which is meant: a job or a directory --------------------------------------------------------------------


@pytest.mark.parametrize("word", ["3f32", JOB, "@latest"])
def test_a_word_that_may_be_a_job_is_a_job_and_a_directory_of_that_name_is_said(fed, typed, word):
    exported(fed)
    assert typed("verify", word).code == 0
    fed.dest.rename(word)
    (Path(word) / "site-1" / "log.txt").unlink()  # so it shows which of both was looked at
    said = typed("verify", word)
    assert said.code == 0 and "all 2 logs are as they should be" in said.out
    hint = f"taken as a job's id; `nvflare-logstream verify ./{word}` checks the directory of that name"
    assert hint in said.err
    said = typed("verify", f"./{word}")
    assert said.code == 1 and "site-1/log.txt missing" in said.out and not said.err
    assert typed("verify", f"{word}/").code == 1


@pytest.mark.parametrize("word", ["last-night", "3F32", "..", "2026-04-28.export"])
def test_a_word_that_can_be_no_job_is_a_directory(fed, typed, word):
    exported(fed)
    if word != "..":
        fed.dest.rename(word)
        assert typed("verify", word).code == 0
    else:
        assert "INVALID_MANIFEST" in typed("verify", word).err
    said = typed("verify", "nothing-here")
    assert said.code == 1 and "JOB_NOT_FOUND" in said.err
