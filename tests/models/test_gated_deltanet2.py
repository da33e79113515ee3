from collections.abc import Callable

import pytest
import torch

from hwsim.models.gated_deltanet2 import GatedDeltaNet2, GatedDeltaNet2Config
from hwsim.models.language import LanguageModel

SMALL = {"width": 32, "heads": 2, "key_dim": 8, "value_dim": 12, "hidden": 48, "vocab": 61, "chunk": 4}


@pytest.mark.parametrize("window", [0, 3, 5, 100])
def test_decode_continues_prefill(
    assert_decode_continues_prefill: Callable[[LanguageModel], None], window: int
) -> None:
    config = GatedDeltaNet2Config(layers=4 if window else 2, window=window, attention_heads=4, **SMALL)
    assert_decode_continues_prefill(GatedDeltaNet2(config))


def test_published_counts_leave_out_embedding_head_and_final_norm() -> None:
    outside = 2 * 32000 * 2304 + 2304
    for hidden, window, published in ((6208, 0, 1_302_638_112), (6784, 2048, 1_300_314_384)):
        with torch.device("meta"):
            model = GatedDeltaNet2(GatedDeltaNet2Config(hidden=hidden, window=window))
        assert sum(p.numel() for p in model.parameters()) == published + outside
    assert sum(p.numel() for p in model.layers[0].mixer.parameters()) == 29_454_480


def test_state_bytes_per_layer() -> None:
    # 262,144 floats of state and 36,864 B of convolution inputs in bfloat16; a window keeps its last 2048 tokens.
    with torch.device("meta"):
        model = GatedDeltaNet2(GatedDeltaNet2Config(layers=2, window=2048)).to(torch.bfloat16)
        recurrent, window = model.make_state(1, 10_000)
        short = model.make_state(1, 100)[1]
    assert recurrent[0].nbytes == 4 * 262_144
    assert sum(t.nbytes for t in recurrent[1:]) == 36_864
    assert sum(t.nbytes for t in window) == 2 * 18 * 128 * 2 * 2048
    assert sum(t.nbytes for t in short) == 2 * 18 * 128 * 2 * 100


def test_a_prompt_enters_an_empty_window_only() -> None:
    model = GatedDeltaNet2(GatedDeltaNet2Config(layers=2, window=3, attention_heads=4, **SMALL))
    tokens, state = torch.randint(61, (1, 6)), model.make_state(1, 6)
    model(tokens[:, :3], state, 0)
    with pytest.raises(ValueError, match="starts empty, got 3 past tokens"):
        model(tokens[:, 3:], state, 3)


def test_a_prompt_in_two_parts_equals_one() -> None:
    torch.manual_seed(0)
    model = GatedDeltaNet2(GatedDeltaNet2Config(layers=2, **SMALL))
    tokens, state = torch.randint(61, (2, 11)), model.make_state(2, 11)
    model(tokens[:, :6], state, 0)
    torch.testing.assert_close(model(tokens[:, 6:], state, 6), model(tokens)[:, -1:], rtol=1e-4, atol=1e-4)
