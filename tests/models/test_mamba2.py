from collections.abc import Callable

import torch
from transformers import Mamba2Config as ReferenceConfig
from transformers import Mamba2ForCausalLM

from hwsim.models.language import LanguageModel
from hwsim.models.mamba2 import Mamba2, Mamba2Config

SMALL = Mamba2Config(layers=2, width=32, state=6, head_dim=8, groups=2, vocab=61, chunk=4)
NAMES = {
    "backbone.embeddings": "embedding",
    "backbone.norm_f": "norm",
    "backbone.layers": "layers",
    ".norm.weight": ".mixer_norm.weight",
    ".mixer.mixer_norm": ".mixer.norm",
    ".in_proj": ".inputs",
    ".out_proj": ".output",
    ".conv1d": ".convolution",
    ".A_log": ".rates",
    ".dt_bias": ".steps",
    ".D": ".skip",
}


def test_logits_equal_transformers() -> None:
    reference = Mamba2ForCausalLM(
        ReferenceConfig(
            num_hidden_layers=2,
            hidden_size=32,
            state_size=6,
            head_dim=8,
            num_heads=8,
            n_groups=2,
            vocab_size=61,
            chunk_size=4,
            tie_word_embeddings=True,
        )
    )
    weights = {}
    for name, value in reference.state_dict().items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        weights[name] = value
    model = Mamba2(SMALL)
    weights.pop("lm_head.weight", None)
    model.load_state_dict(weights)
    tokens = torch.randint(61, (2, 9))
    torch.testing.assert_close(model(tokens), reference(tokens).logits, rtol=1e-4, atol=1e-4)


def test_decode_continues_prefill(assert_decode_continues_prefill: Callable[[LanguageModel], None]) -> None:
    assert_decode_continues_prefill(Mamba2(SMALL))


def test_state_bytes_per_layer() -> None:
    # 4·H·P·N for the float32 state and e·c·(d_in + 2·G·N) for the inputs of the convolution, in bfloat16.
    with torch.device("meta"):
        model = Mamba2(Mamba2Config(layers=1)).to(torch.bfloat16)
        state = model.make_state(3, 1000)[0]
    assert [t.nbytes for t in state] == [3 * 4 * 80 * 64 * 128, 3 * 2 * 4 * (5120 + 2 * 128)]
