"""What is shown on a terminal."""

import pytest

from ragkit.terminal import printable


@pytest.mark.parametrize(
    "text", ["10\u00a0km", "10\u202f%", "東京\u3000大阪", "می\u200cخواهم", "\U0001f469\u200d\U0001f52c", "a\tb\nc"]
)
def test_words_stay_apart_and_letters_as_they_are(text: str) -> None:
    assert printable(text) == text


def test_what_could_rewrite_the_screen_is_gone() -> None:
    assert printable("a\x1b[2J\r\x07\x85\u202e\u2066b\udcff") == "a[2Jb"
