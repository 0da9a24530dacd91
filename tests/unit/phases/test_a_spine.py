"""Phase A's pure part: where the first box begins, for any way the text is cut into tokens."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from branchdiag.phases.a_spine import first_box_token


class PieceTokenizer:
    """Token i is the i-th piece of a text."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        assert skip_special_tokens is False
        return "".join(self.pieces[index] for index in ids)


@given(st.text("ab \\", max_size=12), st.text("cd{}5", max_size=8), st.data())
def test_the_token_is_the_one_that_holds_the_backslash(
    before: str, after: str, data: st.DataObject
) -> None:
    text = before + "\\boxed{" + after
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=8)))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges) if b > a]
    offset = text.find("\\boxed")
    expected, end = 0, 0
    for index, piece in enumerate(pieces):  # the slow way: walk the pieces
        end += len(piece)
        if end > offset:
            expected = index
            break
    assert first_box_token(PieceTokenizer(pieces), list(range(len(pieces)))) == expected


def test_no_box_no_token() -> None:
    tokenizer = PieceTokenizer(["so ", "it is ", "boxed 5"])
    assert first_box_token(tokenizer, [0, 1, 2]) is None
    assert first_box_token(tokenizer, []) is None
