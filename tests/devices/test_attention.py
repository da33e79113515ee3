"""Which attention scores are needed, counted here query by query."""

from hypothesis import given
from hypothesis import strategies as st

from hwsim.devices.attention import needed_scores

LENGTHS = st.integers(1, 40)


@given(q_len=LENGTHS, kv_len=LENGTHS, window=st.integers(0, 50))
def test_a_causal_query_sees_its_past_within_the_window(q_len, kv_len, window):
    offset = max(0, kv_len - q_len)
    seen = sum(min(offset + query + 1, kv_len, window or kv_len) for query in range(q_len))
    assert needed_scores(q_len, kv_len, causal=True, window=window) == seen


@given(q_len=LENGTHS, kv_len=LENGTHS)
def test_without_a_mask_all_scores_are_needed(q_len, kv_len):
    assert needed_scores(q_len, kv_len, causal=False) == q_len * kv_len


def test_a_causal_square_needs_half_and_half_the_diagonal():
    assert needed_scores(1024, 1024, causal=True) == 1024 * 1025 / 2
