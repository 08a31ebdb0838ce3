"""Set-up of resources files of any content and layout: ours is there, the stock ones go, all else stays."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.deploy.components import is_ours, is_stock
from nvflare_logstream.deploy.kits import Role
from nvflare_logstream.deploy.resources import Choices, set_up, take_out

texts = st.text(max_size=4)
scalars = st.none() | st.booleans() | st.integers() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2)
)
PATHS = [
    "x.Y",
    "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer",
    "nvflare.app_common.logging.job_log_receiver.JobLogReceiver",
    "nvflare.app_common.logging.log_sender.ErrorLogSender",
]
entries = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "site_log_streamer", "log_receiver", "log_receiver_2"])},
    optional={"path": st.sampled_from(PATHS), "name": st.just("JobLogReceiver"), "args": values},
)
resources = st.fixed_dictionaries(
    {},
    optional={
        "components": st.lists(entries, max_size=4),
        "class_allow_list": st.lists(st.sampled_from(["a.", "*", "nvflare_logstream.", "b.C"]), max_size=3),
        "allow_log_streaming": scalars,
        "other": values,
    },
)
choices = st.builds(
    Choices,
    files=st.none() | st.just(("a.txt", "b.txt")),
    opt_out=st.booleans(),
    keep_days=st.none() | st.integers(1, 100),
)


def rest(found: dict[str, Any], role: Role) -> str:
    """All that set-up has no business with, in its order."""
    listed = [name for name in found.get("class_allow_list", []) if name != "nvflare_logstream."]
    components = [
        entry for entry in found.get("components", []) if not (is_stock(entry) or is_ours(entry, role))
    ]
    ours = ("class_allow_list", "components", "allow_log_streaming")
    return json.dumps([listed, components, {key: found[key] for key in found if key not in ours}])


@given(
    resources, choices, st.sampled_from([Role.CLIENT, Role.SERVER]), st.sampled_from([None, 0, 2, 4, "\t"])
)
def test_whatever_a_file_holds(found, chosen, role, indent):
    text = json.dumps(found, indent=indent)
    edited = set_up(role, text, chosen).text
    made = json.loads(edited)
    ours = [entry for entry in made["components"] if is_ours(entry, role)]
    assert len(ours) == 1 and not any(map(is_stock, made["components"]))
    assert sum(entry["id"] == ours[0]["id"] for entry in made["components"]) == 1
    assert rest(made, role) == rest(found, role)
    assert [key for key in made if key in found] == list(found)
    assert ("class_allow_list" in made) is ("class_allow_list" in found)
    assert {"nvflare_logstream.", "*"} & set(made.get("class_allow_list", ["*"]))
    before, after = (what.get("allow_log_streaming", True) for what in (found, made))
    assert after is False if role is Role.CLIENT and chosen.opt_out else after == before
    assert set_up(role, edited, chosen).text == edited

    back = json.loads(take_out(role, edited, text).text)
    assert rest(back, role) == rest(found, role)
    assert sorted(map(is_stock, back["components"])) == sorted(map(is_stock, found.get("components", [])))
    assert back.get("allow_log_streaming", True) == after
    assert take_out(role, json.dumps(back), text).text == json.dumps(back)
