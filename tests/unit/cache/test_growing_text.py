from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.cache.growing_text import GrowingText
from rapid_integrations.cache.suffix_index import LONGEST

TOKENS = st.lists(st.integers(0, 3), max_size=30)


@given(TOKENS, st.lists(TOKENS, max_size=4), TOKENS)
def test_it_is_searched_as_a_list_is(first, more, tail):
    text = GrowingText(first)
    whole = list(first)
    for part in more:
        text.extend(part)
        whole += part
    assert len(text) == len(whole)
    wanted = []
    for place in range(2, len(whole)):
        common = 0
        while common < min(place, len(tail), LONGEST) and whole[place - common - 1] == tail[-common - 1]:
            common += 1
        if common >= 2:
            wanted.append((common, place))
    found = text.matches(tail)
    assert set(found) <= set(wanted) and len(found) == min(len(wanted), 32) and len(set(found)) == len(found)
    assert [length for length, _ in found] == sorted((length for length, _ in found), reverse=True)
    for _, place in found:
        assert text.after(place, 4) == tuple(whole[place : place + 4])
