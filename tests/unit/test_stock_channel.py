"""The runtime's own streaming code, over fake cells, to our receiver: what it sends, and who is believed."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReturnCode, Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.logging.constants import LIVE_LOG_TOPIC, Channels
from nvflare.app_common.streamers.log_streamer import _LogTailProducer
from nvflare.fuel.f3.cellnet.defs import CellChannel
from nvflare.fuel.f3.message import Message
from nvflare.private.aux_runner import AuxMsgTarget
from nvflare.private.stream_runner import HeaderKey, ObjectStreamer

from nvflare_logstream import JobLogReceiver
from nvflare_logstream.errors import StoreError
from nvflare_logstream.flare import job_log_receiver, stock_channel
from nvflare_logstream.flare.fallback import stock_receives
from nvflare_logstream.flare.receiver_settings import ReceiverSettings
from nvflare_logstream.flare.stock_channel import serve_stock
from nvflare_logstream.server.admission import Admission
from nvflare_logstream.server.unchecked import UncheckedReceiver
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import State, StreamKey
from nvflare_logstream.wire.upload_reply import Status
from tests.unit.fake_runtime import Engine, Network, context
from tests.unit.test_widgets import fire

JOB, FILE = "job-1", "log.txt"
TEXT = b"".join(b"2026-11-21 10:00:00,000 - x - INFO - line %d\n" % number for number in range(5000))
AUX = CellChannel.AUX_COMMUNICATION


@pytest.fixture(autouse=True)
def as_the_runtime_made_it(monkeypatch):
    """A site's component of another test has had this process's streamers ask its site, for good."""
    produce = _LogTailProducer.produce
    monkeypatch.setattr(_LogTailProducer, "produce", getattr(produce, "__wrapped__", produce))


class Aux:
    """The runtime's aux messages from one cell to the server's."""

    def __init__(self, network: Network, cell: str, server: str = "server"):
        self.network, self.cell, self.server = network, cell, server
        self.codes: list[str] = []
        self.began = threading.Event()  # a message is on its way to whoever takes such messages now

    def register_aux_message_handler(self, topic, message_handle_func):
        pass

    def send_aux_request(self, targets, topic, request, timeout, fl_ctx, secure=False, optional=False):
        request.set_peer_props(fl_ctx.get_all_public_props())
        server = self.network.cell(self.server)
        callback = server.callbacks.get((AUX, topic)) or server.callbacks[AUX, "*"]
        self.began.set()
        reply = callback(self.network.cell(self.cell)._authenticated(Message(payload=request)))
        if timeout:
            self.codes.append(reply.payload.get_return_code())
        return {"server": reply.payload} if timeout else {}


class Streaming:
    """A log that the runtime's own code streams to a server's process."""

    def __init__(self, root: Path, aux: Aux, text: bytes = TEXT, claims: str = "site-1", job_id: str = JOB):
        self.path, self.aux, self.claims, self.job_id = root / aux.cell / FILE, aux, claims, job_id
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_bytes(text)

    def run(self) -> None:
        fl_ctx = FLContext()
        fl_ctx.set_prop(ReservedKey.RUN_NUM, self.job_id, private=False, sticky=False)
        fl_ctx.set_prop(ReservedKey.IDENTITY_NAME, self.claims, private=False, sticky=False)
        fl_ctx.put(ReservedKey.RUN_ABORT_SIGNAL, Signal(), private=True, sticky=False)
        over = threading.Event()
        over.set()
        context = {"client_name": self.claims, "job_id": self.job_id, "Streamer.file_name": FILE}
        producer = _LogTailProducer(str(self.path), 64 * 1024, 5.0, 0.01, over, 10.0)
        targets = [AuxMsgTarget.server_parent_target()]
        ObjectStreamer(self.aux).stream(
            Channels.LOG_STREAMING_CHANNEL, LIVE_LOG_TOPIC, context, targets, producer, fl_ctx
        )
        producer.close()


class World:
    """A server's cell with our receiver behind it, and the runtime's own aux messages beside."""

    def __init__(self, root: Path):
        self.root = root
        self.network = Network()
        self.store = LogStore(root / "store")
        self.admission = Admission()
        self.runtimes: list[Shareable] = []  # what came to the runtime
        cell = self.network.cell("server")
        cell.register_request_cb(AUX, "*", self._runtime)
        self.receiver = UncheckedReceiver(self.store, lambda site, job_id: self.admission)
        serve_stock(cell, lambda: self.receiver)

    def _runtime(self, request: Message) -> Message:
        self.runtimes.append(request.payload)
        return Message(payload=make_reply(ReturnCode.TOPIC_UNKNOWN))

    def stream(self, cell: str, text: bytes = TEXT, claims: str = "site-1", job_id: str = JOB) -> list[str]:
        """Stream a log as the runtime does in the process of `cell`; returns what it was answered."""
        aux = Aux(self.network, cell)
        Streaming(self.root, aux, text, claims, job_id).run()
        return aux.codes

    def stored(self, site: str = "site-1") -> bytes:
        return self.store.path(StreamKey(JOB, site, FILE)).read_bytes()


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.store.close()


@pytest.mark.parametrize("cell", ["site-1.job-1", "site-1"])
@pytest.mark.parametrize("is_secure", [True, False])
def test_what_the_runtimes_own_streamer_sends_is_stored(world, cell, is_secure):
    world.network.secure = is_secure
    codes = world.stream(cell)
    assert set(codes) == {ReturnCode.OK} and len(codes) > 3
    assert world.stored() == TEXT
    (stream,) = world.store.streams()
    assert (stream.state, stream.unchecked, stream.losses) == (State.STOPPED, True, ())


def test_behind_a_relay_an_insecure_federation_tells_the_site(world):
    world.network.secure = False
    for cell in ("relay.site-1.job-1", "relay.site-1"):
        assert set(world.stream(cell)) == {ReturnCode.OK}
    assert world.stored() == TEXT and len(world.store.streams()) == 1


def test_the_name_that_counts_is_the_authenticated_one(world):
    world.stream("site-2.job-1", claims="site-1")
    (stream,) = world.store.streams()
    assert stream.site == "site-2"


def test_a_process_of_another_job_is_refused_and_gives_up(world):
    codes = world.stream("site-1.job-2", job_id=JOB)
    assert codes == [ReturnCode.TASK_ABORTED] and world.store.streams() == []


def test_a_job_that_is_not_known_yet_is_tried_again_by_the_streamer(world):
    world.admission = Admission(Status.LATER, "not started yet")
    judged = []

    def admit(site, job_id):
        judged.append(job_id)
        return Admission() if len(judged) > 3 else world.admission

    world.receiver._admit = admit
    codes = world.stream("site-1.job-1")
    assert codes[:3] == [ReturnCode.EXECUTION_EXCEPTION] * 3 and set(codes[3:]) == {ReturnCode.OK}
    assert world.stored() == TEXT


@pytest.fixture
def opening(world, memory_path, monkeypatch):
    """A job's server process where the runtime's own streamer begins while our receiver opens its store."""
    engine = Engine(memory_path / "job-process", world.network.cell(f"server.{JOB}"))
    engine.settings["site-1"] = {}
    runtime = ObjectStreamer(Aux(world.network, engine.cell.name))  # nobody takes logs there

    def refuse(request: Message) -> Message:
        return Message(payload=runtime._handle_request("", request.payload, FLContext()))

    engine.cell.register_request_cb(AUX, "*", refuse)
    aux = Aux(world.network, "site-1.job-1", engine.cell.name)
    streaming = threading.Thread(target=Streaming(memory_path, aux).run)
    opening = SimpleNamespace(aux=aux, streaming=streaming, receiver=JobLogReceiver(), open=LogStore)

    def open_store(settings, workspace):
        streaming.start()
        assert aux.began.wait(10)
        return opening.open(memory_path / "job-store")

    monkeypatch.setattr(ReceiverSettings, "open_store", open_store)
    opening.start = lambda: fire(opening.receiver, EventType.START_RUN, context(engine, JOB))
    yield opening
    streaming.join(10)
    fire(opening.receiver, EventType.SYSTEM_END, context(engine, JOB))


def test_what_comes_while_a_jobs_own_receiver_opens_its_store_waits_for_it(opening):
    opening.start()
    opening.streaming.join(10)
    assert set(opening.aux.codes) == {ReturnCode.OK}
    assert opening.receiver._job.store.path(StreamKey(JOB, "site-1", FILE)).read_bytes() == TEXT


def test_what_comes_before_a_receiver_that_cannot_start_goes_to_the_runtime(opening):
    def fail(root):
        raise StoreError("no disk")

    opening.open = fail
    opening.start()
    opening.streaming.join(10)
    assert opening.aux.codes == [ReturnCode.EXECUTION_EXCEPTION] * 11  # as often as it tries


def test_what_comes_to_a_job_whose_receiver_has_nothing_to_do_is_said_once(opening, monkeypatch, caplog):
    """The server's parent process has a receiver, and the job's own config sends to the job's process."""
    aux, text = opening.aux, "site-1 sends log.txt by the runtime's own streamer to this job's process"

    def server_does(cell):
        opening.streaming.start()
        assert aux.began.wait(10)
        return True

    monkeypatch.setattr(job_log_receiver, "server_receives", server_does)
    opening.start()
    opening.streaming.join(10)
    assert opening.receiver._job is None and set(aux.codes) == {ReturnCode.EXECUTION_EXCEPTION}
    assert len([message for message in caplog.messages if text in message]) == 1
    assert "target_parent_server" in caplog.text


def part(**headers) -> Shareable:
    """The first part of a log; `headers` that are None are left out."""
    names = {
        HeaderKey.CHANNEL: Channels.LOG_STREAMING_CHANNEL,
        HeaderKey.TOPIC: LIVE_LOG_TOPIC,
        HeaderKey.TX_ID: "tx",
        HeaderKey.SEQ: 0,
        HeaderKey.CTX: {"job_id": JOB, "Streamer.file_name": FILE},
    }
    payload = Shareable()
    payload["Streamer.data"] = b"data\n"
    for name, value in {**names, **headers}.items():
        if value is not None:
            payload.set_header(name, value)
    return payload


def send(world, payload: object, topic: str = "ObjectStreamer.Request") -> Message:
    message = world.network.cell("site-1.job-1")._authenticated(Message(payload=payload))
    return world.network.cell("server").callbacks[AUX, topic](message)


def no_headers() -> Shareable:
    payload = Shareable()
    payload["__headers__"] = "none"
    return payload


@pytest.mark.parametrize(
    "payload",
    [
        part(**{HeaderKey.CHANNEL: "models"}),
        part(**{HeaderKey.TOPIC: "another"}),
        part(**{HeaderKey.CHANNEL: None}),
        part(**{HeaderKey.SEQ: "0"}),
        part(**{HeaderKey.SEQ: True}),
        part(**{HeaderKey.TX_ID: 7}),
        part(**{HeaderKey.TX_ID: None}),
        part(**{HeaderKey.CTX: {"job_id": 1, "Streamer.file_name": FILE}}),
        part(**{HeaderKey.CTX: {"job_id": JOB, "Streamer.file_name": ["x"]}}),
        part(**{HeaderKey.CHANNEL: ["log_streaming"]}),
        no_headers(),
        b"bytes",
        None,
    ],
)
def test_all_else_goes_to_the_runtime_as_it_came(world, payload):
    send(world, payload)
    assert len(world.runtimes) == 1 and world.runtimes[0] is payload
    assert world.store.streams() == []


@pytest.mark.parametrize("context", [None, {}, "text", {"job_id": JOB}])
def test_a_part_without_a_name_is_refused(world, context):
    reply = send(world, part(**{HeaderKey.CTX: context}))
    assert reply.payload.get_return_code() == ReturnCode.TASK_ABORTED
    assert world.store.streams() == [] and world.runtimes == []


def test_an_abort_ends_an_upload_of_its_sender_and_all_else_goes_to_the_runtime(world):
    send(world, part())
    abort = part(**{HeaderKey.TX_ID: "another"})
    send(world, abort, "ObjectStreamer.Abort")
    assert world.runtimes == [abort] and world.store.streams()[0].state is State.OPEN
    send(world, part(), "ObjectStreamer.Abort")
    assert world.runtimes == [abort] and world.store.streams()[0].state is State.STOPPED


@pytest.mark.parametrize(
    "code, receives", [(ReturnCode.EXECUTION_EXCEPTION, False), (ReturnCode.TIMEOUT, True)]
)
def test_only_the_answer_that_nobody_listens_says_that_there_is_no_receiver(code, receives):
    asked = []

    def send(targets, topic, request, timeout, fl_ctx, optional):
        asked.append((targets, topic))
        return {"server": make_reply(code)}

    engine = SimpleNamespace(new_context=FLContext, send_aux_request=send)
    assert stock_receives(engine) is receives
    assert asked == [(["server_parent"], "ObjectStreamer.Request")]


def test_the_question_whether_there_is_a_receiver_leaves_nothing_open(world):
    aux, fl_ctx = Aux(world.network, "site-1.job-1"), FLContext()
    fl_ctx.set_prop(ReservedKey.RUN_NUM, JOB, private=False, sticky=False)
    engine = SimpleNamespace(
        new_context=lambda: fl_ctx,
        send_aux_request=lambda targets, topic, request, timeout, context, optional: aux.send_aux_request(
            targets, topic, request, timeout, context
        ),
    )
    assert stock_receives(engine)
    assert not world.receiver._uploads and world.store.streams() == []


def test_a_runtime_whose_streamers_send_nothing_live_is_left_alone(memory_path, monkeypatch):
    monkeypatch.setattr(stock_channel, "stock_names", lambda: None)
    cell = Network().cell("server")
    serve_stock(cell, lambda: None)
    assert cell.callbacks == {}
