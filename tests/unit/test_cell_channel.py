"""The private channel over a fake of the runtime's cells: where requests go, and who sent them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.f3.message import Message
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.private.fed.server.job_cmds import JobCommandModule

from nvflare_logstream.errors import LinkError
from nvflare_logstream.flare.admin_command import LogCommands
from nvflare_logstream.flare.cell_channel import CellLink, has_receiver, peer_of, pusher, serve, take_pushed
from nvflare_logstream.wire.peer import Peer
from tests.unit.fake_runtime import Network


@pytest.fixture
def network():
    """A site's cells, a server that does not take logs, and its job's server process."""
    network = Network()
    for name in ("server", "server.job-1", "site-1", "site-1.job-1"):
        network.cell(name)
    return network


def serve_at(network, name):
    """Answer each request with the cell's name and what it was asked; returns the peers."""
    peers = []

    def handle(payload, peer, told):
        peers.append(peer)
        return f"{name}: ".encode() + bytes(payload)

    serve(network.cell(name), handle)
    return peers


def test_a_request_is_answered_by_the_servers_parent_process(network):
    peers = serve_at(network, "server")
    link = CellLink(network.cell("site-1.job-1"), "job-1")
    assert link.send(b"hello") == b"server: hello"
    assert peers == [Peer("site-1", "job-1")]


def test_a_job_asks_its_own_server_process_where_the_parent_takes_no_logs(network):
    serve_at(network, "server.job-1")
    link = CellLink(network.cell("site-1.job-1"), "job-1")
    for _ in range(2):
        assert link.send(b"hello") == b"server.job-1: hello"
    assert network.cell("site-1.job-1").asked == ["server", "server.job-1", "server.job-1"]


def test_a_job_finds_back_to_the_parent_when_its_own_server_process_is_done(network):
    serve_at(network, "server.job-1")
    link = CellLink(network.cell("site-1.job-1"), "job-1")
    link.send(b"hello")
    network.cell("server.job-1").callbacks.clear()
    serve_at(network, "server")
    assert link.send(b"again") == b"server: again"


def test_a_parent_asks_the_servers_parent_only(network):
    serve_at(network, "server.job-1")
    with pytest.raises(LinkError, match=r"^server: .*no callback"):
        CellLink(network.cell("site-1")).send(b"hello")
    assert network.cell("site-1").asked == ["server"]


def test_a_server_that_does_not_answer_is_not_passed_over(network):
    """Only "no callback" says that it takes no logs; two receivers must not get one stream."""
    serve_at(network, "server.job-1")
    del network.cells["server"]
    with pytest.raises(LinkError, match=r"^server: timeout"):
        CellLink(network.cell("site-1.job-1"), "job-1").send(b"hello")


def test_whatever_the_cell_raises_is_a_link_error(network):
    link = CellLink(network.cell("site-1"))
    network.cell("site-1").dead = True
    for call in (link.send, link.post):
        with pytest.raises(LinkError, match=r"^server: RuntimeError: cell is stopped"):
            call(b"hello")


def test_a_posted_request_is_answered_by_a_message_of_its_own(network):
    peers = serve_at(network, "server")
    link = CellLink(network.cell("site-1"))
    collect = link.post(b"hello")
    assert collect() == b"server: hello" and peers == [Peer("site-1")]


def test_a_post_goes_where_the_last_request_was_answered(network):
    serve_at(network, "server.job-1")
    link = CellLink(network.cell("site-1.job-1"), "job-1")
    link.send(b"first")
    assert link.post(b"next")() == b"server.job-1: next"


def test_a_reply_to_an_earlier_post_is_not_taken_for_the_last_ones(network):
    serve_at(network, "server")
    link = CellLink(network.cell("site-1"), timeout=0.01)
    kept = []
    site = network.cell("site-1")
    take = site.callbacks["nvflare_logstream", "reply"]
    site.callbacks["nvflare_logstream", "reply"] = kept.append
    first = link.post(b"first")
    with pytest.raises(LinkError, match=r"no reply within 0.01 s"):
        first()
    second = link.post(b"second")
    late, in_time = kept
    take(late)
    with pytest.raises(LinkError, match="no reply"):
        second()
    take(in_time)
    assert second() == b"server: second"


def test_a_post_that_cannot_be_delivered_is_a_link_error(network):
    del network.cells["server"]
    with pytest.raises(LinkError, match=r"^server: target_unreachable"):
        CellLink(network.cell("site-1")).post(b"hello")()


def test_what_is_told_reaches_the_receiver_and_nothing_comes_back(network):
    peers = serve_at(network, "server")
    site = network.cell("site-1")
    link, back = CellLink(site), []
    site.callbacks["nvflare_logstream", "reply"] = back.append
    link.tell(b"hello")
    assert peers == [Peer("site-1")] and not back
    del network.cells["server"]
    with pytest.raises(LinkError, match=r"^server: target_unreachable"):
        link.tell(b"hello")


def test_only_the_answer_no_callback_says_that_there_is_no_receiver(network):
    cell = network.cell("server.job-1")
    assert not has_receiver(cell)
    serve_at(network, "server")
    assert has_receiver(cell)
    del network.cells["server"]
    assert has_receiver(cell)


@pytest.mark.parametrize(
    "site, origin, peer",
    [
        ("site-1", "site-1", Peer("site-1")),
        ("site-1", "site-1.job-1", Peer("site-1", "job-1")),
        ("site-1", "relay.site-1", Peer("site-1")),
        ("site-1", "relay.site-1.job-1", Peer("site-1", "job-1")),
        ("", "site-1.job-1", Peer("site-1", "job-1")),  # nothing is verified: the simulator
        ("", "site-1", Peer("site-1")),
        ("", "", Peer("")),
        ("site-1", "", Peer("site-1")),
    ],
)
def test_who_sent_a_request(site, origin, peer):
    assert peer_of(site, origin) == peer


@pytest.mark.parametrize(
    "name, job_id, peer",
    [
        ("relay.site-1", "", Peer("site-1")),
        ("relay.site-1.job-1", "job-1", Peer("site-1", "job-1")),
        ("relay-1.relay-2.site-1.job-1", "job-1", Peer("site-1", "job-1")),
        ("site-1", "", Peer("site-1")),
        ("site-1", "job-1", Peer("site-1")),
        ("site-1.job-1", "job-1", Peer("site-1", "job-1")),
    ],
)
def test_behind_a_relay_an_insecure_federation_tells_the_site_from_the_relay(network, name, job_id, peer):
    network.secure = False
    peers = serve_at(network, "server")
    link = CellLink(network.cell(name), job_id)
    link.send(b"hello")
    link.post(b"hello")()
    assert peers == [peer, peer]


def test_what_a_sender_says_of_itself_does_not_count_where_its_name_is_verified():
    assert (
        peer_of("site-1", "site-1.job-1", "")
        == peer_of("site-1", "site-1.job-1", "x")
        == Peer("site-1", "job-1")
    )


def test_an_insecure_federation_takes_the_name_from_the_origin(network):
    network.secure = False
    peers = serve_at(network, "server")
    CellLink(network.cell("site-1.job-1"), "job-1").send(b"hello")
    assert peers == [Peer("site-1", "job-1")]


def test_what_is_pushed_comes_to_the_admin_who_asked_as_it_is(network):
    taken: list[bytes] = []
    take_pushed(network.cell("admin-1"), taken.append)
    push = pusher(network.cell("server"), Message({MessageHeaderKey.ORIGIN: "admin-1"}))
    assert push({"text": "é"}) and push({"text": 2})
    assert [json.loads(message) for message in taken] == [{"text": "é"}, {"text": 2}]


def test_a_message_that_cannot_be_pushed_is_said_to_be_so(network, monkeypatch):
    push = pusher(network.cell("server"), Message({MessageHeaderKey.ORIGIN: "admin-1"}))
    core = network.cell("server").core_cell
    monkeypatch.setattr(core, "fire_and_forget", lambda *args, **kwargs: {"admin-1": "target_unreachable"})
    assert not push({})
    monkeypatch.setattr(core, "fire_and_forget", lambda *args, **kwargs: 1 / 0)
    assert not push({})


def test_the_admin_command_can_push_to_the_cell_that_sent_it(network):
    taken: list[bytes] = []
    take_pushed(network.cell("admin-1"), taken.append)

    def answer(job_id, request, push):
        assert push({"of": job_id, "asked": request})
        return {"answered": True}

    replies = []
    request = Message({MessageHeaderKey.ORIGIN: "admin-1"})
    props = {
        JobCommandModule.JOB_ID: "job-1",
        ConnProps.CMD_PROPS: {"op": "follow"},
        ConnProps.REQUEST: request,
    }
    conn = SimpleNamespace(
        get_prop=props.get,
        app_ctx=SimpleNamespace(get_cell=lambda: network.cell("server")),
        append_dict=lambda reply, meta: replies.append(reply),
    )
    (spec, _) = LogCommands(answer, lambda question, named: {}).get_spec().cmd_specs
    spec.handler_func(conn, ["logstream", "job-1"])
    assert replies == [{"answered": True}]
    assert json.loads(taken[0]) == {"of": "job-1", "asked": {"op": "follow"}}
