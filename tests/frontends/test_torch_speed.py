"""Tracing 70B parameters takes seconds and no memory for weights."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("torch")

PROGRAM = """
    import json, pathlib, re, time
    import torch, transformers
    import hwsim

    shapes = dict(vocab_size=128256, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80,
                  num_attention_heads=64, num_key_value_heads=8)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shapes)).eval()
        cache = transformers.DynamicCache(config=model.config)
        for layer in range(80):
            cache.update(torch.empty(8, 8, 8192, 128), torch.empty(8, 8, 8192, 128), layer)
    start = time.process_time()
    prefill = hwsim.trace(model, kwargs={"input_ids": torch.zeros(8, 2048, dtype=torch.int64)})
    inputs = {"input_ids": torch.zeros(8, 1, dtype=torch.int64), "past_key_values": cache}
    decode = hwsim.trace(model, kwargs=inputs)
    print(json.dumps({
        "seconds": time.process_time() - start,
        # the peak of getrusage would be that of the process which started this one, where that was larger
        "bytes": 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]),
        "parameters": prefill.parameters,
        "prefill": prefill.matmul_flops,
        "decode": decode.matmul_flops,
    }))
"""


@pytest.mark.slow
def test_llama_70b() -> None:
    pytest.importorskip("transformers")
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, check=True)
    result = json.loads(run.stdout.splitlines()[-1])
    per_token = 80 * (2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672) + 8192 * 128256
    scores = 80 * 64 * 2 * 128  # MACs of a pair of query and key
    assert result["parameters"] == per_token + 80 * 2 * 8192 + 8192 + 128256 * 8192
    assert result["prefill"] == 2 * 8 * 2048 * per_token + 2 * 8 * 2048 * 2048 * scores
    assert result["decode"] == 2 * 8 * per_token + 2 * 8 * 8193 * scores
    assert result["seconds"] < 15  # about 2 on an idle core
    assert result["bytes"] < 1.5e9
