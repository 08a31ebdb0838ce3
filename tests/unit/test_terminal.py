"""What reaches a terminal: our own words only, and nothing in them that it would obey."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvflare_logstream.lines import in_one_line, visible

EVIL = (
    "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\r\x08\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    "\u200b\u200c\u200d\u2060\ufeff\u2028\u2029\xad\U000e0001\U000e0041\U000e0100\ud800\udfff\u115f\u3164"
)
SITE = "site-\u115f\u3164\u034f\U000e0100"  # a site's name has to be printable, which these are

# -- one function --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "char", EVIL.replace("[2J", "").replace("]0;title", "").replace("31m", ""), ids=ascii
)
def test_what_a_terminal_obeys_or_hides_is_shown(char):
    for shown in (visible(f"a{char}b"), in_one_line(f"a{char}b")):
        assert shown.isprintable() and shown.encode() and char not in shown
        assert f"{ord(char):02x}" in shown


def test_every_control_and_every_sign_without_a_look_is_shown():
    """All of Unicode; signs that Arabic and hieroglyphs put before a number or join have a look."""
    seen = set("\t\n\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
    seen |= {chr(code) for code in range(0x13430, 0x13440)}
    for char in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in seen:
            assert visible(char) != char, ascii(char)


def test_text_in_all_scripts_and_emoji_stay_as_they_are():
    text = "\tÄrzte 病院 Больница مستشفى ✅ ⚠\ufe0f 50\xa0%\n"
    assert visible(text) == text
    assert in_one_line(text) == r"\tÄrzte 病院 Больница مستشفى ✅ ⚠" + "\ufe0f" + r" 50\xa0%\n"


@given(st.text())
def test_what_is_shown_stays_as_it_is(text):
    assert visible(visible(text)) == visible(text)
    assert in_one_line(in_one_line(text)) == in_one_line(text)
    assert len(in_one_line(text).splitlines()) <= 1
