"""Edits of a JSON text: the value is what was meant, and what was not meant keeps every character."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.deploy.json_text import JsonText
from nvflare_logstream.errors import KitError

ENTRY = {"id": "x", "path": "a.B", "args": {"files": ["a", "b"], "n": 1}}

KIT = """{
  "format_version": 2,
  "class_allow_list": [
  "nvflare.a.A",
  "nvflare.b.B"
],
  "components": [
    {
        "id": "one",  "path" : "p"
    },
    {"id": "two",
        "args": { } }
  ],
  "end": 1e3
}
"""


def test_an_item_that_is_added_is_laid_out_as_its_neighbours():
    text = JsonText(KIT).added(("class_allow_list", 2), "ours.").added(("components", 2), ENTRY).text
    expected = KIT.replace('"nvflare.b.B"\n', '"nvflare.b.B",\n  "ours."\n').replace(
        "{ } }\n",
        """{ } },
    {
      "id": "x",
      "path": "a.B",
      "args": {
        "files": ["a", "b"],
        "n": 1
      }
    }
""",
    )
    assert text == expected


@pytest.mark.parametrize("number, gone", [(0, '{\n        "id": "one",  "path" : "p"\n    },\n    ')])
def test_an_item_that_is_removed_takes_its_comma_and_line_along(number, gone):
    assert JsonText(KIT).removed(("components", number)).text == KIT.replace(gone, "")
    last = ',\n    {"id": "two",\n        "args": { } }'
    assert JsonText(KIT).removed(("components", 1)).text == KIT.replace(last, "")


def test_a_value_that_is_replaced_stands_where_the_old_one_stood():
    text = (
        JsonText(KIT).replaced(("components", 1, "args"), {"log_files": ["a"]}).replaced(("end",), False).text
    )
    assert text == KIT.replace("{ } }", '{\n          "log_files": ["a"]\n        } }').replace(
        "1e3", "false"
    )


@pytest.mark.parametrize(
    "before, path, value, after",
    [
        ("{}", ("a",), 1, '{"a": 1}'),
        ("{ }\n", ("a",), [{}], '{\n  "a": [\n    {}\n  ]\n}\n'),
        ('{"a":[]}', ("a", 0), {"b": 1}, '{"a":[{"b": 1}]}'),
        ('{"a":["x"]}', ("a", 1), "y", '{"a":["x", "y"]}'),
        ('{\n\t"a": []\n}', ("a", 0), {"b": 1}, '{\n\t"a": [\n\t\t{\n\t\t\t"b": 1\n\t\t}\n\t]\n}'),
        ('{\r\n "a": [\r\n  1\r\n ]\r\n}', ("a", 1), 2, '{\r\n "a": [\r\n  1,\r\n  2\r\n ]\r\n}'),
        ('{\n "a": [1, 2]\n}', ("a", 2), 3, '{\n "a": [1, 2, 3]\n}'),
    ],
)
def test_each_style_of_layout_is_kept(before, path, value, after):
    assert JsonText(before).added(path, value).text == after


@pytest.mark.parametrize(
    "text", ["", "{", "{} x", '{"a": 1,}', "// c\n{}", "\ufeff{}", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_what_is_not_json_is_refused(text):
    with pytest.raises(KitError, match="it is not JSON"):
        JsonText(text)


def test_keys_that_are_repeated_are_named():
    text = JsonText('{"a": 1, "b": {"c": 1, "c": 2, "c": 3}, "a": 2}')
    assert text.repeated_keys() == ["a"] and text.repeated_keys(("b",)) == ["c"]
    with pytest.raises(KitError, match="cannot be edited"):
        text.removed(("a",))  # the earlier one would count from then on


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
layouts = st.fixed_dictionaries(
    {"indent": st.sampled_from([None, 0, 1, 2, 4, "\t"]), "ensure_ascii": st.booleans()}
)


@given(st.dictionaries(st.text(max_size=3), values), st.lists(values, max_size=4), values, layouts, st.data())
def test_what_is_added_and_removed_again_leaves_the_text_as_it_was(head, items, value, layout, data):
    """In any document and layout. What is taken out leaves each character before and after it."""
    document = {**head, "list": items}
    text = json.dumps(document, **layout)
    newline = data.draw(st.sampled_from(["\n", "\r\n"]))
    before = JsonText(text.replace("\n", newline))
    added = before.added(("list", len(items)), value)
    again = added.removed(("list", len(items))).text
    assert again == before.text or not items  # the inside of an empty array is not kept
    if items:
        number = data.draw(st.integers(0, len(items) - 1))
        after = before.removed(("list", number))
        pairs = zip(before.text + "\0", after.text + "\1", strict=False)
        start = next(i for i, (old, new) in enumerate(pairs) if old != new)
        tail = len(after.text) - start
        assert not tail or before.text.endswith(after.text[-tail:])
        replaced = before.replaced(("list", number), value)
        assert json.dumps(replaced.value["list"][number]) == json.dumps(value)
