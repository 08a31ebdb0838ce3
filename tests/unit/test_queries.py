"""The read protocol: what is encoded comes back, and whatever else comes is refused with the field's name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.errors import ErrorCode, WireError
from nvflare_logstream.filters.line_filter import LineState
from nvflare_logstream.filters.reading import STAGES, Reading
from nvflare_logstream.streams import Loss, State, Stream, StreamKey
from nvflare_logstream.wire.queries import (
    DigestReply,
    DigestRequest,
    ErrorReply,
    FetchReply,
    FetchRequest,
    FilterOptions,
    FollowedPart,
    FollowReply,
    FollowRequest,
    Growing,
    JobStreams,
    Place,
    Pushed,
    ReadReply,
    ReadRequest,
    Reply,
    Request,
    StreamsReply,
    StreamsRequest,
    decode_reply,
    decode_request,
)

JOB = "job-1"
NAMES = st.sampled_from(["site-1", "log.txt", "a_b+c@d"])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
SPOKEN = st.text("abc é", max_size=20)  # without control characters, which a reply shows as escapes
OFFSETS = st.integers(0, 1 << 40)
FILTERS = st.builds(
    FilterOptions,
    since=st.sampled_from([None, "10m", "2026-04-28T10:00:00Z"]),
    level=st.sampled_from([None, "ERROR"]),
    grep=st.sampled_from([None, "", "x+"]),
    ignore_case=st.booleans(),
    before=st.integers(0, 1000),
    tail=st.none() | st.integers(0, 1 << 53),
    max_bytes=st.none() | st.just(0),
    exclude=st.lists(st.sampled_from(["", "x+", r"\d$"]), max_size=2).map(tuple),
)
STATES = st.builds(
    LineState, st.booleans(), st.booleans(), st.lists(TEXTS, max_size=3).map(tuple), st.integers(0, 1000)
)
READINGS = st.builds(
    lambda at, rest, **fields: Reading(at, at + rest, **fields),
    OFFSETS,
    OFFSETS,
    json=st.booleans(),
    timed=st.booleans(),
    truncated=st.booleans(),
    skip_lines=OFFSETS,
    state=st.none() | STATES,
    stage=st.sampled_from(STAGES),
    counted=OFFSETS,
    copy=OFFSETS,
)
PLACES = st.builds(Place, NAMES, NAMES, READINGS)
TIMES = st.floats(0, 2e9)
STREAMS = st.builds(
    Stream,
    st.builds(StreamKey, st.just(JOB), NAMES, NAMES),
    end=OFFSETS,
    cursor=st.just(b""),  # readers do not get it
    lines=OFFSETS,
    state=st.sampled_from(State),
    reason=SPOKEN,
    total=st.integers(-1, 1 << 40),
    digest=st.sampled_from(["", "0" * 64]),
    digest_from=OFFSETS,
    agreed=st.booleans(),
    outcome=SPOKEN,
    opened=TIMES,
    last_seen=TIMES,
    last_data=TIMES,
    closed=TIMES,
    utc_offset=st.integers(-86400, 86400),
    skew=st.floats(-1e9, 1e9),
    losses=st.lists(st.builds(Loss, OFFSETS, st.none() | OFFSETS, SPOKEN), max_size=3).map(tuple),
    silent=st.booleans(),
    came=st.just(""),  # nor this
    copy=OFFSETS,
)
JOBS = st.builds(JobStreams, st.just(JOB), SPOKEN, st.lists(STREAMS, max_size=3).map(tuple), TIMES)
REQUESTS = st.one_of(
    st.just(StreamsRequest()),
    st.builds(ReadRequest, NAMES, NAMES, FILTERS, st.booleans(), st.none() | READINGS),
    st.builds(
        FollowRequest,
        st.lists(PLACES, max_size=3).map(tuple),
        FILTERS,
        st.floats(0, 10),
        st.text(max_size=64),
    ),
    st.builds(FetchRequest, NAMES, NAMES, OFFSETS, st.integers(0, 1 << 20)),
    st.builds(lambda start, size: DigestRequest("site-1", "log.txt", start, start + size), OFFSETS, OFFSETS),
)
REPLIES: dict[Request[Any], Any] = {
    StreamsRequest(): st.builds(StreamsReply, JOBS),
    ReadRequest("site-1", "log.txt"): st.builds(ReadReply, TEXTS, READINGS, OFFSETS),
    FollowRequest(()): st.builds(
        FollowReply,
        JOBS,
        st.lists(st.builds(FollowedPart, PLACES, TEXTS), max_size=3).map(tuple),
        st.text("0123456789abcdef", max_size=64),
        st.booleans(),
    ),
    FetchRequest("site-1", "log.txt"): st.builds(FetchReply, st.binary(max_size=20), OFFSETS),
    DigestRequest("site-1", "log.txt", 0, 1): st.builds(DigestReply, st.sampled_from([None, "0" * 64])),
}
ERRORS = st.builds(ErrorReply, st.sampled_from(ErrorCode), SPOKEN)


def travelled(message: Request[Any] | Reply) -> Any:
    return json.loads(json.dumps(message.encode()))


@given(REQUESTS)
def test_a_request_comes_back_as_it_was(request_):
    assert decode_request(travelled(request_)) == request_


@given(st.data(), st.sampled_from(list(REPLIES)))
def test_a_reply_comes_back_as_it_was(data, request_):
    reply = data.draw(REPLIES[request_] | ERRORS)
    assert decode_reply(JOB, request_, travelled(reply)) == reply


@given(REQUESTS)
def test_fields_that_nobody_knows_are_ignored(request_):
    assert decode_request({**travelled(request_), "from the future": {"v": 9}}) == request_


@pytest.mark.parametrize("version", [None, 0, 2])
@pytest.mark.parametrize("request_", list(REPLIES), ids=lambda request_: request_.operation)
def test_a_reply_of_another_version_is_refused_with_both(request_, version):
    with pytest.raises(WireError) as caught:
        decode_reply(JOB, request_, {"v": version})
    spoken = "this side speaks version 1 of the query protocol"
    assert str(caught.value) == f"v: {version} is not allowed; {spoken}"


def test_an_error_is_read_whatever_its_version():
    """It may be about the version; the server of release 0.1.0 gives none."""
    error = {"error": "v: 1 is not allowed", "code": "INVALID_ARGS"}
    wanted = ErrorReply(ErrorCode.INVALID_ARGS, "v: 1 is not allowed")
    for answer in (error, {**error, "v": 9}):
        assert decode_reply(JOB, StreamsRequest(), answer) == wanted


def test_an_error_that_only_later_servers_have_keeps_its_words():
    answer = {"v": 1, "error": "the store is being moved", "code": "OUT_OF_CHEESE"}
    wanted = ErrorReply(ErrorCode.INTERNAL_ERROR, "the store is being moved")
    assert decode_reply(JOB, StreamsRequest(), answer) == wanted


def test_only_a_null_says_that_the_server_is_too_busy_to_hash():
    request_ = DigestRequest("a", "b", 0, 1)
    assert decode_reply(JOB, request_, {"v": 1, "digest": None}).digest is None
    with pytest.raises(WireError, match=r"^digest: None is not allowed; 64 lower-case hex digits"):
        decode_reply(JOB, request_, {"v": 1})


def damaged(reply: Reply, path: str, value: object) -> dict[str, Any]:
    encoded = place = travelled(reply)
    *way, last = path.split(".")
    for name in way:
        place = place[int(name) if name.isdecimal() else name]
    place[last] = value
    return encoded


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("job_status", 3),
        ("now", "noon"),
        ("now", float("nan")),
        ("streams", {}),
        ("streams.0.site", "a/b"),
        ("streams.0.state", "sleeping"),
        ("streams.0.end", -1),
        ("streams.0.end", True),
        ("streams.0.lines", 0.5),
        ("streams.0.agreed", 1),
        ("streams.0.skew", float("inf")),
        ("streams.0.skew", float("nan")),
        ("streams.0.reason", None),
        ("streams.0.digest", "0" * 65),
        ("streams.0.utc_offset", 1 << 20),
        ("streams.0.silent", "no"),
        ("streams.0.losses", 3),
        ("streams.0.losses.0.offset", None),
        ("streams.0.losses.0.length", "all"),
        ("streams.0.losses.0.reason", []),
    ],
)
def test_a_damaged_record_is_refused_with_the_field_and_its_value(path, value):
    stream = Stream(StreamKey(JOB, "site-1", "log.txt"), losses=(Loss(0, None, "why"),))
    reply = damaged(StreamsReply(JobStreams(JOB, "RUNNING", (stream,), 1.0)), path, value)
    field = path.replace(".0.", "[0].")
    with pytest.raises(WireError) as caught:
        decode_reply(JOB, StreamsRequest(), reply)
    assert str(caught.value).startswith(f"{field}: ") and "allowed" in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "reply", "path", "value"),
    [
        (ReadRequest("a", "b"), ReadReply("", Reading(0, 1)), "text", None),
        (ReadRequest("a", "b"), ReadReply("", Reading(0, 1)), "reading.end", 1.5),
        (FetchRequest("a", "b"), FetchReply(b"", 0), "data", "%%%%"),
        (FetchRequest("a", "b"), FetchReply(b"", 0), "data", "é"),
        (DigestRequest("a", "b", 0, 1), DigestReply(""), "digest", 3),
        (DigestRequest("a", "b", 0, 1), DigestReply(""), "digest", ""),
        (DigestRequest("a", "b", 0, 1), DigestReply(""), "digest", "A" * 64),
        (DigestRequest("a", "b", 0, 1), DigestReply(""), "digest", "0" * 65),
        (StreamsRequest(), ErrorReply(ErrorCode.LOG_NOT_FOUND, ""), "code", 3),
        (FollowRequest(()), FollowReply(JobStreams(JOB, "", ()), (), ""), "mark", 3),
    ],
)
def test_a_damaged_reply_is_refused_with_the_field_and_its_value(request_, reply, path, value):
    with pytest.raises(WireError, match=rf"^{path}: .* is not allowed; "):
        decode_reply(JOB, request_, damaged(reply, path, value))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data(), REQUESTS, ANYTHING)
def test_whatever_stands_in_a_field_is_taken_or_refused(data, request_, value):
    encoded = travelled(request_)
    encoded[data.draw(st.sampled_from(sorted(encoded)))] = value
    try:
        decode_request(encoded)
    except WireError as error:
        assert len(str(error)) < 1000


@given(st.data(), st.sampled_from(list(REPLIES)), ANYTHING)
def test_whatever_stands_in_a_reply_is_taken_or_refused(data, request_, value):
    encoded = travelled(data.draw(REPLIES[request_]))
    encoded[data.draw(st.sampled_from(sorted(encoded)))] = value
    try:
        decode_reply(JOB, request_, encoded)
    except WireError as error:
        assert len(str(error)) < 1000


@given(
    TEXTS,
    st.integers(0, 1 << 20),
    st.lists(st.builds(FollowedPart, PLACES, TEXTS), max_size=3),
    st.lists(st.builds(Growing, NAMES, NAMES, TEXTS), max_size=3),
)
def test_a_pushed_message_comes_back_as_it_was(name, number, parts, growing):
    pushed = Pushed(name, number, tuple(parts), tuple(growing))
    assert Pushed.decode(json.loads(json.dumps(pushed.encode()))) == pushed


@pytest.mark.parametrize("field", ["v", "push", "number"])
def test_a_pushed_message_without_a_field_is_refused_with_its_name(field):
    message = Pushed("p", 0, ()).encode()
    del message[field]
    with pytest.raises(WireError, match=f"^{field}: "):
        Pushed.decode(message)


def test_following_goes_on_without_the_bounds_of_the_beginning():
    options = FilterOptions(grep="x", tail=3, max_bytes=5)
    assert options.unbounded() == replace(options, tail=None, max_bytes=None) == FilterOptions(grep="x")
    assert FilterOptions(exclude=("x",), head=3).unbounded() == FilterOptions(exclude=("x",))
