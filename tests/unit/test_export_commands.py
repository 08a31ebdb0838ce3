"""`export` and `verify` as they are typed: a real store, and no network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nvflare.lighter.utils import serialize_pri_key

from nvflare_logstream.cli.main import run
from nvflare_logstream.flare import admin_session
from nvflare_logstream.streams import Loss, StreamKey
from tests.unit.export_world import JOB, KEY, OTHER, TEXT, Federation
from tests.unit.kit_world import Authority, make_kit, rsa_key


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


@pytest.mark.parametrize("against", [False, True])
@pytest.mark.parametrize("what", ["never seen", "refused", "lost", "stopped", "complete"])
def test_a_directory_is_judged_as_its_job_is_in_the_same_words(fed, typed, what, against):
    """What is missing on the server is missing in an export of it."""
    fed.add(KEY, TEXT, (Loss(7, 3, "truncated"),) if what == "lost" else ())
    fed.end(KEY, TEXT)
    if what == "never seen":
        fed.store.expect({OTHER: "the site was not connected"})
    elif what == "refused":
        fed.store.refuse(OTHER, "the site does not allow it")
    elif what == "stopped":
        fed.add(OTHER, TEXT)
        fed.store.unreadable(OTHER, fed.clock(), "permission denied", "exit code 0")
    of_job = typed("verify", JOB)
    fed.export()
    of_export = typed("verify", str(fed.dest), *(("--against", JOB) if against else ()))
    assert of_export.code == of_job.code == (0 if what in ("refused", "complete") else 1)
    bad = [line for line in of_job.out.splitlines() if line.startswith("✗") or "not as they should" in line]
    assert bad == [
        line for line in of_export.out.splitlines() if line.startswith("✗") or "not as they should" in line
    ]


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
    exported_at = json.loads((fed.dest / "manifest.json").read_text())["exported"]
    assert said.code == 0 and said.out.startswith(f"export of job {JOB}, as of {exported_at}\n")
    assert "✓ site-1/log.txt matches its manifest: complete\n" in said.out
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


@pytest.mark.parametrize("depth", [20, 900, 990, 100_000])
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")], ids=["list", "map"])
def test_a_manifest_that_is_nested_deeply_is_refused_in_words(fed, typed, depth, pair):
    text = json.dumps(exported(fed))
    deep = pair[0] * depth + "1" + pair[1] * depth
    for field in ("job_id", "losses", "exported", "finished"):
        value = text.partition(f'"{field}": ')[2]
        changed = text.replace(f'"{field}": {value}', f'"{field}": {deep}, "was": {value}')
        (fed.dest / "manifest.json").write_text(changed)
        said = typed("verify", str(fed.dest))
        assert said.code == 1 and "INVALID_MANIFEST" in said.err and len(said.err) < 1000
        assert f"{field}: " in said.err or "manifest.json: nested too deeply" in said.err
        assert "recursion" not in said.err


def test_the_time_of_an_export_is_shown_and_no_markup(fed, typed):
    rewrite(fed, {**exported(fed), "exported": "[red]\x1b[2J\n✓"})
    assert r"as of [red]\x1b[2J\n✓" in typed("verify", str(fed.dest)).out


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
    assert said.code == (0 if field in ("outcome", "damage") else 1) and said.out.encode()
    assert all(character.isprintable() for character in said.out.replace("\n", ""))
    assert said.out.count("\n") == 5
    assert (r"\u202e" in said.out) is (field in ("site_digest", "state_reason"))


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([float("inf"), float("nan"), -1, 10**400, 1e300, "", "\ud800", "\x1b[2J", "../x", 2**63]),
    st.sampled_from([[], {}, [[]], [[0, 1, "x"]], [[[[[[[[]]]]]]]], {"a": {"b": {}}}]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
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
    for path in ("./gone", "/gone/export", "gone/"):
        said = typed("verify", path)
        assert said.code == 4 and f"{path} is no directory and no job's id" in said.err, said
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


# -- who signed it -------------------------------------------------------------------------------------------


@pytest.fixture
def kit(tmp_path) -> str:
    return str(make_kit(tmp_path / "kit", Authority.root()))


def test_an_export_is_signed_with_the_kit_that_was_used(fed, typed, kit, monkeypatch):
    exported(fed)
    said = typed("export", JOB, "-o", "out", "--startup-kit", kit)
    assert said.code == 0 and "signed" not in said.err
    by = "admin@nvidia.com (nvidia, lead) of federation logstream"
    said = typed("verify", "out", "--startup-kit", kit)
    assert said.code == 0 and f"✓ manifest.json signed by {by}\n" in said.out
    said = typed("verify", "out")
    assert said.code == 0 and f"- manifest.json signed with a certificate that names {by};" in said.out
    monkeypatch.setenv("NVFLARE_STARTUP_KIT_DIR", kit)
    assert f"✓ manifest.json signed by {by}\n" in typed("verify", "out").out
    answer = typed("verify", "out", "--format", "json").data
    assert answer["good"] and answer["job_id"] == JOB
    known = {
        "signer": "admin@nvidia.com",
        "organisation": "nvidia",
        "role": "lead",
        "federation": "logstream",
    }
    assert answer["signature"] == {"trust": "signed", "detail": f"signed by {by}", **known}
    assert typed("export", JOB, "-o", "again", "--format", "json").data["signer"] == "admin@nvidia.com"


def test_what_a_signature_forbids_is_an_error(fed, typed, kit, tmp_path):
    exported(fed)
    typed("export", JOB, "-o", "out", "--startup-kit", kit)
    other = str(make_kit(tmp_path / "other", Authority.root("elsewhere", key=1)))
    said = typed("verify", "out", "--startup-kit", other)
    assert said.code == 1 and "✗ manifest.json signed by a certificate of another federation" in said.out
    assert "the manifest's signature is not as it should be" in said.out
    manifest = Path("out/manifest.json")
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    said = typed("verify", "out")
    assert said.code == 1 and "✗ manifest.json the signature does not match" in said.out
    assert not typed("verify", "out", "--format", "json").data["good"]
    Path("out/manifest.sig").unlink()
    said = typed("verify", "out")
    assert said.code == 1 and "manifest.sig is missing" in said.out
    Path("out/manifest.crt").unlink()
    said = typed("verify", "out")
    assert said.code == 0 and "- manifest.json not signed" in said.out


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(data=st.data())
def test_no_byte_of_a_signed_export_can_change_unseen(fed, typed, kit, data):
    if not Path("out").exists():
        exported(fed)
        typed("export", JOB, "-o", "out", "--startup-kit", kit)
    name = data.draw(st.sampled_from(["manifest.json", "manifest.sig", "site-1/log.txt", "site-2/log.txt"]))
    path = Path("out") / name
    content = path.read_bytes()
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    try:
        assert typed("verify", "out").code == 1
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("problem", ["passphrase", "no key", "another's key", "no kit"])
def test_a_kit_that_cannot_sign_is_said_in_a_line_and_the_export_goes_on(fed, typed, tmp_path, problem):
    exported(fed)
    passphrase = b"secret" if problem == "passphrase" else None
    kit = make_kit(tmp_path / "kit", Authority.root(), passphrase=passphrase)
    typed("export", JOB, "-o", "out", "--startup-kit", str(make_kit(tmp_path / "good", Authority.root())))
    assert Path("out/manifest.sig").exists()
    if problem == "no key":
        (kit / "startup" / "client.key").unlink()
    if problem == "another's key":
        (kit / "startup" / "client.key").write_bytes(serialize_pri_key(rsa_key(3)))
    if problem == "no kit":
        shutil.rmtree(kit)
    said = typed("export", JOB, "-o", "out", "--force", "--startup-kit", str(kit))
    assert said.code == 0 and said.err.count("\n") == 1
    assert said.err.startswith("the manifest is not signed: ") and str(kit) in said.err
    said = typed("verify", "out")
    assert said.code == 0 and "- manifest.json not signed" in said.out, (
        "nothing of the earlier signature is left"
    )


def test_a_kit_that_was_named_and_is_none_is_said(fed, typed, kit):
    exported(fed)
    typed("export", JOB, "-o", "out", "--startup-kit", kit)
    said = typed("verify", "out", "--startup-kit", "nowhere")
    assert said.code == 2 and "nowhere" in said.err and "STARTUP_KIT_MISSING" in said.err


def test_the_names_in_a_certificate_are_shown_and_never_sent_to_the_terminal(fed, typed, tmp_path):
    exported(fed)
    hostile = "\u202eeve\x1b[2J\n✓ fine"
    kit = make_kit(tmp_path / "kit", Authority.root(), org=hostile, role=hostile)
    typed("export", JOB, "-o", "out", "--startup-kit", str(kit))
    said = typed("verify", "out", "--startup-kit", str(kit))
    assert said.code == 0 and r"\u202eeve\x1b[2J\n✓ fine" in said.out
    assert all(character.isprintable() for character in said.out.replace("\n", ""))


# -- against the server --------------------------------------------------------------------------------------


def forge(fed: Federation, number: int, data: bytes, **fields: Any) -> None:
    """Change an exported log, and its manifest so that both match."""
    manifest = json.loads((fed.dest / "manifest.json").read_text())
    entry = manifest["streams"][number]
    (fed.dest / entry["path"]).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    entry |= {"sha256": digest, "site_digest": digest, "bytes": len(data), "total": len(data), **fields}
    rewrite(fed, manifest)


def test_an_export_that_is_what_the_server_has(fed, typed):
    exported(fed)
    fed.store.refuse(KEY._replace(site="site-3"), "the site does not allow it")
    fed.export(force=True)
    said = typed("verify", str(fed.dest), "--against", "3f32")
    assert said.code == 0 and "✓ site-1/log.txt is what the server has: complete\n" in said.out
    assert (
        "✓ site-3/log.txt refused: the site does not" in said.out
        and "all 3 logs are what the server has" in said.out
    )


@pytest.mark.parametrize("data", [TEXT.swapcase(), TEXT[:-1], TEXT + b"more\n", b""], ids=len)
def test_a_forgery_that_matches_its_own_manifest_is_found(fed, typed, data):
    exported(fed)
    forge(fed, 0, data)
    assert typed("verify", str(fed.dest)).code == 0, "nothing here tells"
    said = typed("verify", str(fed.dest), "--against", JOB)
    assert said.code == 1 and "✗ site-1/log.txt " in said.out and "✓ site-2/log.txt" in said.out


def test_a_forgery_that_hides_that_the_servers_copy_is_damaged_is_found(fed, typed):
    exported(fed)
    fed.store.path(KEY).write_bytes(TEXT.swapcase())
    forge(fed, 0, TEXT.swapcase())
    said = typed("verify", str(fed.dest), "--against", JOB)
    assert (
        said.code == 1 and "✗ site-1/log.txt differs: is what the server has, but the site's file" in said.out
    )


def test_a_copy_that_was_damaged_on_the_server_after_the_export_differs(fed, typed):
    exported(fed)
    fed.store.path(KEY).write_bytes(TEXT.swapcase())
    said = typed("verify", str(fed.dest), "--against", JOB)
    assert said.code == 1 and "✗ site-1/log.txt differs: has sha256" in said.out
    fed.store.path(KEY).write_bytes(b"")
    said = typed("verify", str(fed.dest), "--against", JOB)
    assert said.code == 1 and "✗ site-1/log.txt incomplete: cannot be compared" in said.out


def test_what_a_forged_manifest_leaves_out_adds_or_belittles_is_found(fed, typed):
    fed.add(OTHER, b"", (Loss(0, 4, "deleted"),))
    manifest = exported(fed)
    added = {**manifest["streams"][0], "site": "site-99", "path": "site-99/log.txt"}
    shutil.copytree(fed.dest / "site-1", fed.dest / "site-99")
    shutil.rmtree(fed.dest / "site-1")
    manifest["streams"][0] = added
    manifest["streams"][1] |= {"losses": [], "verdict": "complete", "reason": "", "agreed": True}
    rewrite(fed, manifest)
    assert typed("verify", str(fed.dest)).code == 0, "nothing here tells"
    said = typed("verify", str(fed.dest), "--against", JOB)
    assert said.code == 1 and "3 of 3 files are not as they should be" in said.out
    assert "✗ site-99/log.txt differs: the server has no such log" in said.out
    assert "✗ site-2/log.txt differs: the manifest says complete, the server lost (" in said.out
    assert f"✗ site-1/log.txt missing: the server has {len(TEXT)} bytes of it" in said.out


def test_an_export_of_a_job_that_went_on_is_its_beginning(fed, typed):
    fed.add(KEY, TEXT)
    fed.store.expect({OTHER: "nothing arrived from it"})
    fed.export()
    as_it_was = typed("verify", str(fed.dest), "--against", JOB)
    assert "✓ site-1/log.txt is what the server has: streaming" in as_it_was.out
    assert "1 of 2 logs are not as they should be" in as_it_was.out, "the other one never came"
    fed.add(KEY, b"more\n")
    fed.add(OTHER, b"more\n")
    said = typed("verify", str(fed.dest), "--against", JOB)
    assert said.code == 1
    assert (
        f"✗ site-1/log.txt incomplete: has the first {len(TEXT)} bytes of the {len(TEXT) + 5} that"
        in said.out
    )
    assert "✗ site-2/log.txt incomplete: was not exported; the server has 5 bytes of it now" in said.out


def test_a_log_that_the_job_lacks_by_now_is_lacking_in_its_export_too(fed, typed):
    """A site that was asked to take part after the export, and of which nothing ever came."""
    fed.add(KEY, TEXT)
    fed.end(KEY, TEXT)
    fed.export()
    fed.store.expect({OTHER: "nothing came"})
    fed.store.refuse(StreamKey(JOB, "site-3", "log.txt"), "it stays there")
    of_job, said = typed("verify", JOB), typed("verify", str(fed.dest), "--against", JOB)
    for line in ("✗ site-2/log.txt incomplete: never seen (nothing came)", "✓ site-3/log.txt refused: it"):
        assert line in of_job.out and line in said.out
    assert of_job.code == said.code == 1


def test_against_wants_a_directory_and_the_job_of_it(fed, typed):
    exported(fed)
    fed.add(KEY._replace(job_id="job-2"), TEXT)
    fed.dest.rename("3f32")
    said = typed("verify", "3f32", "--against", JOB)
    assert said.code == 0 and "what the server has" in said.out and not said.err, "what else could be meant"
    said = typed("verify", JOB, "--against", JOB)
    assert said.code == 4 and f"'{JOB}' is not a directory" in said.err
    other = "ffffffff-9849-4d5f-b867-a5e7a7558f42"
    fed.add(KEY._replace(job_id=other), TEXT)
    said = typed("verify", "3f32", "--against", other)
    assert said.code == 4 and f"is an export of job {JOB}, not of {other}" in said.err


# -- names of sites, as they are typed -----------------------------------------------------------------------


def test_a_status_of_no_site_of_the_job_names_the_sites_that_there_are(fed, typed):
    """An empty table would read as if nothing had come."""
    exported(fed)
    said = typed("status", JOB, "--site", "site-typo")
    assert said.code == 1 and not said.out
    assert "site-typo: no such site in this job; the job has site-1, site-2" in said.err
    both = typed("status", JOB, "--site", "site-typo,site-1")
    assert both.code == 0 and "site-1" in both.out and "site-typo: no such site" in both.err


@pytest.mark.parametrize("name", ["all", "ALL", "All", "*", "*,ALL"])
@pytest.mark.parametrize("command", ["logs", "status"])
def test_all_sites_are_meant_in_capitals_too(fed, typed, command, name):
    exported(fed)
    said = typed(command, JOB, "--site", name)
    assert said.code == 0 and "site-1" in said.out and "site-2" in said.out
    if command == "logs":
        followed = typed(command, JOB, "--site", name, "--follow")
        assert followed.code == 0 and "site-1 line 0\n" in followed.out and "no such site" not in followed.err
