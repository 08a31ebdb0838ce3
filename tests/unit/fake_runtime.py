"""The runtime's edge, faked: cells that reach each other in memory, and the engine of a process."""

from __future__ import annotations

import hashlib
import shutil
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.fl_constant import FLContextKey, RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.workspace import Workspace
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.message import Message
from nvflare.fuel.hci.conn import Connection
from nvflare.fuel.hci.reg import CommandEntry, CommandSpec
from nvflare.fuel.hci.server.authz import AuthzFilter
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.fuel.sec.authz import AuthorizationService
from nvflare.private.defs import CellMessageHeaderKeys
from nvflare.security.security import COMMAND_CATEGORIES, FLAuthorizer

from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.receiver import Receiver
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import StreamId, StreamKey
from nvflare_logstream.wire.peer import Peer
from nvflare_logstream.wire.upload import Close, Frame, RequestWriter
from nvflare_logstream.wire.upload_reply import decode_reply

ID = "8f3c0000-1111-2222-3333-444455556666"  # of the one job that a session lists


class Network:
    """Cells by their full names; a name that is not among them does not answer."""

    def __init__(self):
        self.cells: dict[str, Cell] = {}
        self.secure = True  # the server knows who sends

    def cell(self, name: str) -> Cell:
        return self.cells.setdefault(name, Cell(self, name))


class Cell:
    """A cell and its core in one."""

    def __init__(self, network: Network, name: str):
        self.network, self.name, self.core_cell = network, name, self
        self.callbacks: dict[tuple[str, str], Any] = {}
        self.asked: list[str] = []  # targets of its requests
        self.dead = False  # its runtime raises whatever is asked of it
        self.req_reg = self

    def find(self, channel: str, topic: str) -> Any:
        """As the runtime's registry of callbacks."""
        callback = self.callbacks.get((channel, topic))
        return callback and SimpleNamespace(cb=callback, args=(), kwargs={})

    def get_fqcn(self) -> str:
        return self.name

    def register_request_cb(self, channel, topic, cb):
        self.callbacks[channel, topic] = cb

    def send_request(self, channel, topic, target, request, timeout=None, optional=False):
        if self.dead:
            raise RuntimeError("cell is stopped")
        self.asked.append(target)
        if target not in self.network.cells:
            return make_reply(ReturnCode.TIMEOUT)
        callback = self.network.cells[target].callbacks.get((channel, topic))
        if callback is None:
            return make_reply(ReturnCode.PROCESS_EXCEPTION, error="no callback")
        reply = callback(self._authenticated(request))
        reply.set_header(MessageHeaderKey.RETURN_CODE, ReturnCode.OK)
        return reply

    def fire_and_forget(self, channel, topic, target, message, optional=False):
        if self.dead:
            raise RuntimeError("cell is stopped")
        if target not in self.network.cells:
            return {target: "target_unreachable"}
        callback = self.network.cells[target].callbacks.get((channel, topic))
        if callback is not None:
            callback(self._authenticated(message))
        return {target: ""}

    def _authenticated(self, message: Message) -> Message:
        message.set_header(MessageHeaderKey.ORIGIN, self.name)
        if self.network.secure:
            message.set_header(CellMessageHeaderKeys.CLIENT_NAME, self.name.split(".")[0])
        return message


class JobStore:
    """A job store that says what it is told to say."""

    def __init__(self):
        self.metas: dict[str, dict[str, Any]] = {}
        self.archives: dict[str, Path] = {}
        self.client_data: dict[tuple[str, str], bytes] = {}  # by job and component
        self.broken = False
        self.saved: list[str] = []
        self.asked = 0

    def get_job(self, job_id: str, fl_ctx: object) -> Any:
        self.asked += 1
        if self.broken:
            raise RuntimeError("the storage is down")
        meta = self.metas.get(job_id)
        return None if meta is None else SimpleNamespace(meta=meta)

    def get_storage_for_download(self, job_id, directory, component, file, fl_ctx):
        target = Path(directory) / job_id / file
        target.parent.mkdir(exist_ok=True)
        if component == "workspace":
            shutil.copy(self.archives[job_id], target)
        elif (job_id, component) in self.client_data:  # else nothing, as the runtime does
            target.write_bytes(self.client_data[job_id, component])

    def set_client_data(self, job_id, data, client_name, data_type, fl_ctx):
        path = Path(data)
        self.client_data[job_id, f"{data_type}_{client_name}"] = path.read_bytes()
        path.unlink()

    def save_workspace(self, job_id, path, fl_ctx):
        self.saved.append(job_id)
        shutil.copy(path, self.archives[job_id])

    def archive(self, path: Path, job_id: str, files: Mapping[str, bytes]) -> None:
        """Archive a job as the runtime does."""
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("site-1/", b"")
            for name, data in files.items():
                archive.writestr(name, data)
        self.archives[job_id] = path

    def archived(self, job_id: str) -> dict[str, bytes]:
        with zipfile.ZipFile(self.archives[job_id]) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


class Engine:
    """What the components ask of an engine, in whatever process."""

    def __init__(self, root: Path, cell: Cell | None = None, site: str = "server"):
        (root / "startup").mkdir(parents=True)
        (root / "local").mkdir()
        self.workspace = Workspace(str(root), site_name=site)
        self.cell = cell
        self.job_def_manager = JobStore()
        self.job_runner = SimpleNamespace(running_jobs={})
        self.run_processes: dict[str, Any] = {}
        self.settings: dict[str, dict[str, Any]] = {}  # by site, what it said when it registered

    def run(self, job_id: str, *sites: str, **meta: Any) -> None:
        """A job runs at these sites."""
        clients = {site: SimpleNamespace(name=site) for site in sites}
        self.run_processes[job_id] = {RunProcessKey.PARTICIPANTS: clients}
        self.job_runner.running_jobs[job_id] = None
        self.job_def_manager.metas[job_id] = {"status": "RUNNING", **meta}

    def end(self, job_id: str, status: str = "FINISHED:COMPLETED") -> None:
        """The job is over."""
        del self.run_processes[job_id], self.job_runner.running_jobs[job_id]
        self.job_def_manager.metas[job_id]["status"] = status

    def fire_event(self, event_type: str, fl_ctx: object) -> None:
        """The runtime fires one for each warning in a log."""

    def get_cell(self) -> Cell | None:
        return self.cell

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_clients(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self.settings]

    def get_client_from_name(self, name: str) -> Any:
        settings = self.settings.get(name)
        return None if settings is None else SimpleNamespace(name=name, get_site_config=lambda: settings)

    @contextmanager
    def new_context(self) -> Iterator[object]:
        yield object()


class Session:
    """A session of the runtime that answers every command with `answer`, or raises it."""

    def __init__(self, answer: Any = None, study: str = "default"):
        self.answer, self._study = answer, study
        self.timeouts: list[float] = []
        self.asked: list[Any] = []
        self.closed: list[str] = []
        self.api = SimpleNamespace(close=lambda: self.closed.append("api"))

    def set_timeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def _do_command(self, command: str, enforce_meta: bool, props: dict[str, Any]) -> Any:
        self.asked.append((command, props))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def _get_dict_data(self, reply: Any) -> Any:
        return reply

    def list_jobs(self, **wanted: Any) -> list[dict[str, str]]:
        self.asked.append(wanted)
        if isinstance(self.answer, Exception):
            raise self.answer
        return [{"job_id": ID, "status": "RUNNING"}]

    def close(self) -> None:
        self.closed.append("session")


def context(engine: Engine, job_id: str = "", **props: Any) -> FLContext:
    """The context of an event, as the runtime sets it for a client's parent and a job's process."""
    fl_ctx = FLContext()
    fl_ctx.get_engine = lambda: engine
    fl_ctx.get_workspace = engine.get_workspace
    fl_ctx.get_job_id = lambda: job_id
    everything = {FLContextKey.WORKSPACE_OBJECT: engine.workspace, FLContextKey.CURRENT_JOB_ID: job_id}
    for key, value in {**everything, **props}.items():
        fl_ctx.set_prop(key, value, private=True, sticky=False)
    return fl_ctx


class AdminConsole:
    """Sends admin commands as users with roles, through the runtime's own check of rights.

    Args:
        monkeypatch: takes back what is changed in the runtime.
        policy: the server's authorization policy.
        commands: names of the commands that are registered.
        app_ctx: what the commands are given as the server's engine.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, policy: Any, commands: Iterable[str], app_ctx: Any = None
    ):
        for name in commands:
            monkeypatch.setitem(COMMAND_CATEGORIES, name, "view")
        monkeypatch.setattr(AuthorizationService, "the_authorizer", FLAuthorizer("nvidia", policy))
        self._app_ctx = app_ctx

    def send(self, spec: CommandSpec, role: str, **props: Any) -> dict[str, Any] | None:
        """The answer that the user `ann` gets; None if she may not ask."""
        entry = CommandEntry("s", spec.name, "", "", spec.handler_func, spec.authz_func, False, "auth", None)
        conn, said = Connection(app_ctx=self._app_ctx), []
        user = {ConnProps.USER_NAME: "ann", ConnProps.USER_ORG: "nvidia", ConnProps.USER_ROLE: role}
        conn.set_props({ConnProps.CMD_ENTRY: entry, **user, **props})
        conn.append_dict = lambda answer, meta: said.append(answer)
        if AuthzFilter().pre_command(conn, [spec.name]):
            spec.handler_func(conn, [spec.name])
        return said[0] if said else None


def upload(store: LogStore, key: StreamKey, data: bytes, closed: bool = True) -> None:
    """Store a stream as its site sends it, and close it."""
    stream, writer = StreamId(key.job_id, key.file), RequestWriter(time.time(), 0)
    writer.open(stream)
    writer.frame(Frame(stream, 0, data, b"cursor"))
    if closed:
        writer.close(Close(stream, len(data), hashlib.sha256(data).hexdigest(), 0, "exit code 0"))
    receiver = Receiver(store, lambda site, job_id: Admission())
    for answer in decode_reply(receiver.handle(writer.encode(), Peer(key.site))).streams:
        assert answer.status == "ok", answer
