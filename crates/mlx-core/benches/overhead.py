"""The peer of overhead.rs: the same graphs by MLX in Python.

Prints one JSON object of nanoseconds by name for each line that it reads, so that both programs
can take turns on one machine.
"""

import json
import sys
import time

import mlx.core as mx

N = 10_000


def block(x, w, cos, sin):
    """A rotary attention layer of small ops, 26 calls."""
    q = (x @ w).reshape(1, 8, 4, 16).transpose(0, 2, 1, 3)
    k = (x @ w).reshape(1, 8, 4, 16).transpose(0, 2, 1, 3)
    v = (x @ w).reshape(1, 8, 4, 16).transpose(0, 2, 1, 3)
    q = rotate(q, cos, sin)
    k = rotate(k, cos, sin)
    scores = (q * 0.25) @ k.swapaxes(-1, -2)
    out = mx.softmax(scores, axis=-1) @ v
    return x + out.transpose(0, 2, 1, 3).reshape(1, 8, 64) * 0.5


BLOCK_CALLS = 9 + 2 * 7 + 3 + 2 + 4


def rotate(x, cos, sin):
    half = mx.concatenate([-x[..., 8:], x[..., :8]], axis=-1)
    return x * cos + half * sin


def chain(f, x):
    for _ in range(N):
        x = f(x)
    return x


def once(build):
    start = time.perf_counter_ns()
    graph = build()
    elapsed = time.perf_counter_ns() - start
    del graph
    return elapsed


def main():
    mx.set_default_device(mx.cpu)
    x, y = mx.ones((4, 8)), mx.ones((4, 8))
    square = mx.ones((8, 8))
    states, w = mx.ones((1, 8, 64)), mx.ones((64, 64))
    cos, sin = mx.ones((8, 16)), mx.ones((8, 16))
    mx.eval(x, y, square, states, w, cos, sin)
    ops = {
        "add": lambda x: x + y,
        "multiply by number": lambda x: x * 2.0,
        "exp": lambda x: mx.exp(x),
        "matmul": lambda x: x @ square,
        "softmax": lambda x: mx.softmax(x, axis=-1),
        "reshape": lambda x: x.reshape(4, 8),
        "transpose": lambda x: x.transpose(0, 1),
        "slice": lambda x: x[:, :8],
        "astype": lambda x: x.astype(mx.float32),
    }

    def layers():
        h = states
        for _ in range(N // BLOCK_CALLS):
            h = block(h, w, cos, sin)
        return h

    def evals():
        h = x
        for _ in range(N // 10):
            h = h + y
            mx.eval(h)
        return h

    for _ in sys.stdin:
        times = {name: once(lambda: chain(f, x)) / N for name, f in ops.items()}
        times["a layer's calls"] = once(layers) / (N // BLOCK_CALLS * BLOCK_CALLS)
        times["add and eval"] = once(evals) / (N // 10)
        chains = 0
        for _ in range(10):
            h = x
            for _ in range(1000):
                h = h + y
            chains += once(lambda: mx.eval(h))
        times["eval of a chain of 1,000"] = chains / 10_000
        print(json.dumps(times), flush=True)


main()
