"""Prints mlx-lm's speeds on the CPU with random weights: mlx_lm_speed.py CONFIG N_PROMPT N_GENERATE

One line as `pp16 7.20 tok/s  tg4 2.90 tok/s`, for `cargo xtask bench cpu --mlx-lm PYTHON`.
"""

import importlib
import json
import sys
import time

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache


def main() -> None:
    config = json.load(open(sys.argv[1]))
    n_prompt, n_generate = int(sys.argv[2]), int(sys.argv[3])
    mx.set_default_device(mx.cpu)
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    if quantization := config.get("quantization"):
        # Packing real weights takes minutes here, and any bits are as fast as others.
        nn.quantize(model, **quantization)
    mx.eval(model.parameters())

    cache = make_prompt_cache(model)
    tokens = mx.array([[(100 + 37 * i) % 5000 for i in range(n_prompt)]])
    start = time.perf_counter()
    logits = model(tokens, cache=cache)[:, -1]
    mx.eval(logits)
    prompt = n_prompt / (time.perf_counter() - start)
    start = time.perf_counter()
    for _ in range(n_generate):
        logits = model(mx.argmax(logits, axis=-1)[None], cache=cache)[:, -1]
        mx.eval(logits)
    generate = n_generate / (time.perf_counter() - start)
    print(f"pp{n_prompt} {prompt:.3f} tok/s  tg{n_generate} {generate:.3f} tok/s")


main()
