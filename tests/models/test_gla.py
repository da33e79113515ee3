from collections.abc import Callable

import torch

from hwsim.models.gla import GLA, GLAConfig
from hwsim.models.language import LanguageModel

SMALL = GLAConfig(layers=2, width=32, heads=2, hidden=48, vocab=61, rank=4, chunk=4)


def test_decode_continues_prefill(assert_decode_continues_prefill: Callable[[LanguageModel], None]) -> None:
    assert_decode_continues_prefill(GLA(SMALL))


def test_mixer_parameters() -> None:
    # d·(d/2)·2 for q and k, 3d² for v, gate and output, the low rank decay with its bias, the norm of one head.
    with torch.device("meta"):
        mixer = GLA(GLAConfig(layers=1)).layers[0].mixer
    d, rank = 2048, 16
    expected = 4 * d * d + rank * (d + d // 2) + d // 2 + d // 4
    assert sum(p.numel() for p in mixer.parameters()) == expected


def test_state_bytes_per_layer() -> None:
    # d²/(2H) floats: 524,288 at d 2048, H 4.
    with torch.device("meta"):
        (state,) = GLA(GLAConfig(layers=1)).to(torch.bfloat16).make_state(3, 1000)[0]
    assert state.nbytes == 3 * 4 * 524_288


def test_decay_is_slow() -> None:
    # α = σ(·)^(1/16) of a random gate stays near 1: an early token still moves the last logits.
    torch.manual_seed(0)
    model = GLA(SMALL)
    tokens = torch.randint(61, (1, 20))
    other = tokens.clone()
    other[0, 0] = (tokens[0, 0] + 1) % 61
    assert not torch.allclose(model(tokens)[:, -1], model(other)[:, -1], atol=1e-6)
