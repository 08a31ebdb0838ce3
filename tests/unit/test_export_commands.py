"""`export` and `verify` as they are typed: a real store, and no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

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
