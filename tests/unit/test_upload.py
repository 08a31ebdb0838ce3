"""The messages: what goes in comes out, and whatever else comes in is a WireError that names the field."""

from __future__ import annotations

import tracemalloc
import zlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream import __version__
from nvflare_logstream.errors import WireError
from nvflare_logstream.streams import UNCHECKED_CURSOR, Loss, StreamId, Verdict
from nvflare_logstream.wire import zstd
from nvflare_logstream.wire.fields import Fields
from nvflare_logstream.wire.message import MAX_MESSAGE, PROTOCOL_VERSION
from nvflare_logstream.wire.upload import Close, Frame, Refusal, RequestWriter, Unreadable, Versions
from nvflare_logstream.wire.upload_reader import decode_request
from nvflare_logstream.wire.upload_reply import Reply, Status, StreamReply, decode_reply

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,30}", fullmatch=True)
STREAMS = st.builds(StreamId, NAMES, NAMES)
OFFSETS = st.integers(0, (1 << 63) - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
CURSORS = st.binary(max_size=50).filter(lambda cursor: not cursor.startswith(UNCHECKED_CURSOR))  # refused
LOSSES = st.builds(Loss, OFFSETS, st.none() | OFFSETS, TEXTS)
FRAMES = st.builds(
    Frame,
    STREAMS,
    OFFSETS,
    st.binary(max_size=2000),
    CURSORS,
    st.lists(LOSSES, max_size=3).map(tuple),
)
CLOSES = st.builds(lambda s, n, o: Close(s, n, "ab" * 32, n // 2, o), STREAMS, OFFSETS, TEXTS)
REFUSALS = st.builds(Refusal, STREAMS, TEXTS)
UNREADABLE = st.builds(Unreadable, STREAMS, st.floats(0, 9e10), TEXTS, st.none() | TEXTS)
STREAM_REPLIES = st.builds(
    StreamReply,
    STREAMS,
    st.sampled_from(Status),
    OFFSETS,
    st.binary(max_size=50),
    st.none() | st.sampled_from(Verdict),
    TEXTS,
)


def request(**changes: object) -> bytes:
    """A small valid request, with fields changed, added or (None) taken out."""
    row = {"job": "j", "file": "log.txt"}
    fields = {
        "v": 1,
        "clock": 1.8e9,
        "utc": 3600,
        "full": False,
        "zstd": False,
        "open": [row],
        "known": ["j"],
        "frames": [
            {**row, "at": 5, "n": 3, "crc": zlib.crc32(b"abc"), "cur": b"c", "lost": [[5, None, "cut"]]}
        ],
        "close": [{**row, "total": 8, "sha256": "00", "from": 0, "outcome": "exit code 0"}],
        "refuse": [{**row, "why": "policy"}],
        "unread": [{**row, "since": 1.8e9, "why": "no", "outcome": "exit code 0"}],
        "data": b"abc",
    } | changes
    return msgpack.packb({name: value for name, value in fields.items() if value is not None})


def changed(section: str, **changes: object) -> dict[str, object]:
    """The only row of a section of that request, with fields changed."""
    (row,) = msgpack.unpackb(request())[section]
    return {section: [row | changes]}


def use(payload: bytes) -> None:
    for frame in decode_request(payload).frames():
        assert isinstance(frame.data, bytes)


@given(
    st.lists(FRAMES, max_size=8),
    st.lists(STREAMS),
    st.lists(NAMES),
    st.lists(CLOSES),
    st.lists(REFUSALS),
    st.lists(UNREADABLE),
    st.booleans(),
)
def test_a_request_comes_out_as_it_went_in(frames, opens, known, closes, refusals, unreadable, full):
    writer = RequestWriter(1.8e9, -3600)
    for put, values in (
        (writer.frame, frames),
        (writer.open, opens),
        (writer.known, known),
        (writer.close, closes),
        (writer.refuse, refusals),
        (writer.unreadable, unreadable),
    ):
        for value in values:
            put(value)
    writer.full = full
    read = decode_request(writer.encode())
    assert list(read.frames()) == frames
    assert (read.clock, read.utc_offset, read.full) == (1.8e9, -3600, full)
    assert (read.opens, read.known, read.closes, read.refusals, read.unreadable) == tuple(
        map(tuple, (opens, known, closes, refusals, unreadable))
    )


@given(st.lists(STREAM_REPLIES, max_size=5), st.floats(0, 100), st.lists(NAMES))
def test_a_reply_comes_out_as_it_went_in(streams, wait, later):
    reply = Reply(tuple(streams), wait, "", tuple(later))
    assert decode_reply(reply.encode()) == reply


def test_a_newer_servers_words_are_read_as_the_most_careful_known_ones():
    """The other streams of the reply must not suffer."""
    newer = {"job": "j", "file": "log.txt", "end": 5, "st": "paused", "ver": "sealed", "why": "new"}
    known = Reply((StreamReply(StreamId("j", "other.txt"), Status.OK, 7),))
    fields = msgpack.unpackb(known.encode())
    reply = decode_reply(msgpack.packb(fields | {"streams": [newer, *fields["streams"]]}))
    assert reply.streams == (
        StreamReply(StreamId("j", "log.txt"), Status.LATER, 5, b"", Verdict.PARTIAL, "new"),
        *known.streams,
    )


# -- hostile input -------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_noise_is_a_wire_error(noise):
    for decode in (decode_request, decode_reply):
        with pytest.raises(WireError):
            decode(noise)


@given(st.integers(0, len(request()) - 1))
def test_a_cut_message_is_a_wire_error(length):
    with pytest.raises(WireError):
        decode_request(request()[:length])


@given(st.integers(0, 8 * len(request()) - 1))
def test_a_flipped_bit_is_a_wire_error_or_another_valid_message(bit):
    payload = bytearray(request())
    payload[bit // 8] ^= 1 << bit % 8
    try:
        use(bytes(payload))
    except WireError:
        return


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.binary(max_size=9)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


@given(st.sampled_from(sorted(msgpack.unpackb(request()))), JUNK)
def test_junk_in_any_field_is_a_wire_error_or_valid(name, junk):
    try:
        use(request(**{name: junk}))
    except WireError:
        return


@given(st.data(), st.sampled_from(["frames", "close", "refuse", "unread", "open"]), JUNK)
def test_junk_in_any_row_is_a_wire_error_or_valid(data, section, junk):
    name = data.draw(st.sampled_from(sorted(msgpack.unpackb(request())[section][0])))
    try:
        use(request(**changed(section, **{name: junk})))
    except WireError:
        return


@pytest.mark.parametrize(
    "payload, field",
    [
        ("text", "message: bytes are wanted, str came"),
        (msgpack.packb([1]), r"message: \[1\] is not allowed; a map"),
        (request(v="1"), "v: '1' is not allowed"),
        (request(v=7), "protocol version 7 is not supported; this side supports version 1"),
        (request(clock=float("nan")), "clock: nan"),
        (request(utc=100_000), "utc: 100000 is not allowed; a whole number from -86400 to 86400"),
        (request(full=1), "full: 1"),
        (request(zstd=b""), "zstd: b''"),
        (request(data=None), "data: "),
        (request(open="x"), "open: "),
        (request(open=[5]), r"open\[0\]"),
        (request(known=["../x"]), r"known\[0\]: '../x' is not allowed; a plain name"),
        (request(**changed("open", job="..")), r"open\[0\].job: '..'"),
        (request(**changed("close", file="a/b")), r"close\[0\].file: 'a/b'"),
        (request(**changed("refuse", why="x" * 401)), r"refuse\[0\].why: "),
        (request(**changed("unread", why="x" * 401)), r"unread\[0\].why: "),
        (request(**changed("unread", since=-1)), r"unread\[0\].since: -1"),
        (request(**changed("unread", outcome=5)), r"unread\[0\].outcome: 5"),
        (
            request(**changed("close", **{"from": 9})),
            r"close\[0\].from: 9 is not allowed; a whole number from 0 to 8",
        ),
        (request(**changed("frames", at=-1)), r"frames\[0\].at: -1"),
        (request(**changed("frames", at=True)), r"frames\[0\].at: True"),
        (request(**changed("frames", n=(1 << 20) + 1)), r"frames\[0\].n: 1048577"),
        (request(**changed("frames", n=4)), r"frames\[0\].length: 4 announced, 3 bytes are there"),
        (request(**changed("frames", crc=1)), r"frames\[0\].checksum: the data of log.txt were damaged"),
        (request(**changed("frames", cur=b"x" * 20_000)), r"frames\[0\].cur: "),
        (request(**changed("frames", lost=[[1, 2]])), r"frames\[0\].lost: "),
        (request(**changed("frames", lost=[[1, "", "why"]])), r"frames\[0\].lost.length: ''"),
        (request(**changed("frames", lost=[[1, 1, "why"]] * 65)), r"frames\[0\].lost: "),
        (request(zstd=True), "data: not a valid zstd block"),
    ],
)
def test_an_error_names_the_field(payload, field):
    with pytest.raises(WireError, match=field):
        use(payload)


def test_an_oversized_message_is_refused_before_it_is_read():
    with pytest.raises(WireError, match=f"{MAX_MESSAGE + 1} bytes are not allowed"):
        decode_request(b"\xc1" * (MAX_MESSAGE + 1))


@pytest.mark.parametrize("name", ["v", "clock", "known", "open"])
def test_a_value_nested_beyond_measure_is_a_wire_error(name):
    deep = b"\x91" * 1000 + b"\x00"
    with pytest.raises(WireError):
        decode_request(
            b"\x82"
            + (msgpack.packb("v") + b"\x01" if name != "v" else msgpack.packb("x") + b"\x01")
            + msgpack.packb(name)
            + deep
        )


def test_what_is_more_than_bytes_says_what_the_site_runs():
    frame = Frame(StreamId("j", "log.txt"), 0, b"x", b"c")
    for write, said in (
        (lambda writer: None, True),  # a sign of life
        (lambda writer: writer.open(frame.stream), True),
        (lambda writer: writer.frame(frame), False),  # many a second: each byte counts
        (lambda writer: (writer.frame(frame), writer.known("j")), True),
    ):
        writer = RequestWriter(1.0, 0, "2.9.0")
        write(writer)
        versions = decode_request(writer.encode()).versions
        assert versions == (Versions(__version__, "2.9.0", PROTOCOL_VERSION) if said else None)


@pytest.mark.parametrize("runtime", ["", "2.9 \x1b[31m", "x" * 41, None, 2.9])
def test_a_strange_version_of_the_runtime_stops_no_log(runtime):
    assert decode_request(RequestWriter(1.0, 0, runtime).encode()).versions == Versions(__version__)


@pytest.mark.parametrize(
    "who",
    [
        "0.2.0",
        [],
        {},
        {"package": "0.2.0"},
        {"package": "0.2.0", "runtime": "x" * 41},
        {"package": "0.2\x1b[31m", "runtime": "2.9.0"},
        {"package": b"0.2.0", "runtime": "2.9.0"},
        {"package": 2, "runtime": None},
    ],
)
def test_a_version_that_is_none_is_refused_with_the_field(who):
    request = msgpack.unpackb(RequestWriter(1.0, 0).encode())
    with pytest.raises(WireError, match=r"^who(\.\w+)?: .* is not allowed; "):
        decode_request(msgpack.packb({**request, "who": who}))


def test_an_older_site_says_no_versions_and_is_read():
    request = msgpack.unpackb(RequestWriter(1.0, 0).encode())
    del request["who"]
    assert decode_request(msgpack.packb(request)).versions is None


def test_unknown_fields_are_ignored():
    later = request(new={"of": "a later version"}, **changed("frames", flavour=7))
    assert [frame.data for frame in decode_request(later).frames()] == [b"abc"]
    assert decode_reply(msgpack.packb(msgpack.unpackb(Reply().encode()) | {"new": 1})) == Reply()


def test_an_error_from_a_later_version_is_readable():
    assert decode_reply(
        msgpack.packb({"v": 9, "err": "protocol version 1 is not supported"})
    ).error.startswith("protocol version 1")


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"wait": -1}, "wait"),
        ({"later": [5]}, r"later\[0\]"),
        ({"streams": [{"job": "j", "file": "f", "st": 5, "end": 0}]}, "st: 5 is not allowed; a text"),
        ({"streams": [{"job": "j", "file": "f", "st": "x" * 41, "end": 0}]}, "st: 'x.*at most 40 characters"),
        ({"streams": [{"job": "j", "file": "f", "end": 0}]}, "st: None is not allowed"),
        ({"streams": [{"job": "j", "file": "f", "st": "ok", "end": 0, "ver": 5}]}, "ver: 5"),
        ({"streams": [{"job": "j", "file": "f", "st": "ok", "end": -1}]}, "end: -1"),
        ({"v": 2}, "protocol version 2"),
        ({"err": 5}, "err: 5"),
    ],
)
def test_an_error_in_a_reply_names_the_field(changes, field):
    with pytest.raises(WireError, match=field):
        decode_reply(msgpack.packb(msgpack.unpackb(Reply().encode()) | changes))


# -- compression and memory ----------------------------------------------------------------------------------


def test_a_block_that_is_given_up_leaves_nothing_in_the_next():
    for number in range(3):
        zstd.Packer().put(b"given up " * number)
        packer = zstd.Packer()
        packer.put(b"whole")
        assert zstd.Unpacker(packer.finish()).take(100) == b"whole"


def test_a_zstd_bomb_costs_no_more_than_what_was_announced():
    """A few KiB that unpack to 256 MiB, announced as three bytes."""
    packer = zstd.Packer()
    for _ in range(256):
        packer.put(bytes(1 << 20))
    bomb = packer.finish()
    payload = request(zstd=True, data=bomb, **changed("frames", crc=zlib.crc32(bytes(3))))
    tracemalloc.start()
    frames = list(decode_request(payload).frames())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [frame.data for frame in frames] == [bytes(3)] and peak < 4 << 20


def test_a_block_that_wants_a_giant_window_is_refused():
    options = {
        zstd.zstd.CompressionParameter.window_log: 27,
        zstd.zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    compressor = zstd.zstd.ZstdCompressor(options=options)
    block = compressor.compress(b"abc" * 100_000) + compressor.flush()
    with pytest.raises(WireError, match="not a valid zstd block"):
        zstd.Unpacker(block).take(3)


@given(st.lists(st.binary(max_size=3000), max_size=10), st.integers(1, 5000))
def test_unpacking_in_any_steps_gives_back_what_was_packed(parts, step):
    packer = zstd.Packer()
    for part in parts:
        packer.put(part)
    unpacker, found = zstd.Unpacker(packer.finish()), b""
    while data := unpacker.take(step):
        found += data
    assert found == b"".join(parts)


def test_the_writer_counts_cursors_too():
    """Many small frames must not add up to a message the receiver refuses."""
    writer, frame = RequestWriter(0.0, 0), Frame(StreamId("j" * 128, "f" * 128), 0, b"x", b"c" * 1500)
    for number in range(4000):
        if writer.size >= 1 << 20:
            break
        writer.frame(frame._replace(offset=number))
    assert len(writer.encode()) < 1.2 * (1 << 20)


# -- the validator -------------------------------------------------------------------------------------------


INFINITE = float("inf")


@pytest.mark.parametrize("value", [None, "1", True, float("nan"), INFINITE, -INFINITE, -1, 10**400])
@pytest.mark.parametrize("high", [2.0, INFINITE])
def test_a_number_that_is_not_finite_or_out_of_bounds_is_refused(value, high):
    with pytest.raises(WireError, match=r"row\.x: .* is not allowed; a number from 0 to"):
        Fields({"x": value}, "row.").real("x", 0.0, high)
    assert Fields({"x": 2}).real("x", 0.0, high) == 2.0


def test_a_default_stands_in_for_a_field_that_is_absent_or_null_and_for_nothing_else():
    reads = [
        (lambda fields: fields.number("x", 9, default=None), "9", 9),
        (lambda fields: fields.real("x", 0, 9, default=None), "9", 9.0),
        (lambda fields: fields.time("x", default=None), -1, 9.0),
        (lambda fields: fields.text("x", default=None), 9, "9"),
        (lambda fields: fields.word("x", Status, default=None), "perhaps", Status.OK),
        (lambda fields: fields.octets("x", 9, default=None), "9", b"9"),
        (lambda fields: fields.name("x", default=None), "../9", "9"),
        (lambda fields: fields.map("x", default=None), [9], {}),
    ]
    for read, bad, good in reads:
        assert read(Fields({})) is None and read(Fields({"x": None})) is None
        with pytest.raises(WireError, match="x: "):
            read(Fields({"x": bad}))
        if good != {}:
            assert read(Fields({"x": good})) == good
    assert Fields({"x": {"y": 5}}, "row.").map("x").number("y", 9) == 5
    with pytest.raises(WireError, match=r"row\.x\.y: 'z' is not allowed; a whole number from 0 to 9"):
        Fields({"x": {"y": "z"}}, "row.").map("x").number("y", 9)
    with pytest.raises(WireError, match="x: None is not allowed; a map"):
        Fields({}).map("x")


@pytest.mark.parametrize(
    ("read", "value", "problem"),
    [
        (lambda fields: fields.rows("x", 2), [1, 2, 3], "3 entries are not allowed; at most 2"),
        (lambda fields: fields.rows("x", 2), "abc", "'abc' is not allowed; a list of at most 2 entries"),
        (lambda fields: fields.octets("x", 2), b"abc", "3 bytes are not allowed; at most 2"),
        (lambda fields: fields.octets("x", 2), "ab", "'ab' is not allowed; at most 2 bytes"),
        (lambda fields: fields.text("x", 2), "a" * 100, f"'{'a' * 100}' is not allowed; a text of at most 2"),
        (lambda fields: fields.maps("x", 2), ["a"], "x[0]: 'a' is not allowed; a map"),
    ],
)
def test_an_error_says_what_came_and_what_is_allowed(read, value, problem):
    with pytest.raises(WireError) as caught:
        read(Fields({"x": value}))
    assert problem in str(caught.value)


@pytest.mark.parametrize("value", [None, "1", True, -1, 10, 1.5, float("nan")])
def test_several_numbers_are_read_as_each_alone(value):
    fields = Fields({"x": value, "y": 9})
    with pytest.raises(WireError, match=r"^x: .* is not allowed; a whole number from 0 to 9$"):
        fields.numbers(("y", "x"), 9)
    assert list(Fields({"y": 9}).numbers(("x", "y"), 9, default=4)) == [4, 9]


@pytest.mark.parametrize("value", [None, "1", True, -1, 1e11, float("nan"), float("inf")])
def test_several_times_are_read_as_each_alone(value):
    with pytest.raises(WireError, match=r"^x: .* is not allowed; a time in seconds since 1970$"):
        Fields({"x": value, "y": 9.0}).times(("y", "x"))
    assert list(Fields({"x": 1, "y": 9.0}).times(("y", "x"))) == [9.0, 1.0]


# -- what a request may cost ---------------------------------------------------------------------------------


def peak_of(call) -> int:
    """Bytes that a call took at its peak."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "value",
    [
        b"\xdd" + (4_000_000).to_bytes(4, "big") + b"\x90" * 4_000_000,
        b"\xdd" + (4_000_000).to_bytes(4, "big") + b"\x80" * 4_000_000,
        b"\xdc\x10\x00" + (b"\xdc\x03\xe8" + b"\x90" * 1000) * 4096,
        b"\xdc\x10\x00" + (b"\xdc\x01\x2c" + b"\xcd\x12\x34" * 300) * 4096,
        b"\xdc\x10\x00" + (b"\xdc\x01\x2c" + b"\xa2xy" * 300) * 4096,
        b"\xdc\x10\x00" * 1000,
        b"\xdd\x00\x3f\xff\xff" * 1000,
    ],
    ids=["lists", "maps", "lists in lists", "numbers", "texts", "nested", "nested and announced longer"],
)
@pytest.mark.parametrize("decode", [decode_request, decode_reply])
def test_a_message_of_many_small_values_takes_little_memory(decode, value):
    payload = request()[:1] + msgpack.packb("x") + value
    payload = b"\xde\x00\x0c" + payload[1:] + request()[1:]

    def refused() -> None:
        with pytest.raises(WireError):
            decode(payload)

    assert peak_of(refused) < 64 << 20


def test_the_largest_lists_that_are_allowed_are_read():
    writer = RequestWriter(1.8e9, 0)
    for number in range(4096):
        stream = StreamId("j", f"file-{number}")
        writer.open(stream)
        writer.frame(Frame(stream, 0, b"x", b"c", (Loss(0, None, "cut"),)))
    decoded = decode_request(writer.encode())
    assert (len(decoded.opens), len(list(decoded.frames()))) == (4096, 4096)
    streams = tuple(StreamReply(StreamId("j", f"file-{number}"), Status.OK) for number in range(16384))
    assert len(decode_reply(Reply(streams).encode()).streams) == 16384


def test_a_request_may_carry_no_more_raw_bytes_than_a_sender_reads_at_a_time():
    """34 KB of zeros stored 400 MiB."""
    writer = RequestWriter(1.8e9, 0)
    for number in range(17):
        writer.frame(Frame(StreamId("j", "log.txt"), number << 20, bytes(1 << 20), b"c"))
    with pytest.raises(WireError, match="frames: 17825792 bytes of data are not allowed; at most 16777216"):
        decode_request(writer.encode())
