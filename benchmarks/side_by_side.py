"""Ratios for speed claims: every contender called in turn in one process, medians, agreement checked first.

    python benchmarks/side_by_side.py layers  [--batch 2 16] [--threads 1 2]
    python benchmarks/side_by_side.py network [--batch 1 8]  [--threads 2]

`layers` compares each layer of ST-GCN with the eager composition: format by format, and the best of ours with
the best of eager's. `network` compares inference of the whole network with eager, torch.compile, ONNX Runtime
and OpenVINO (those that are installed), and a training step with eager and torch.compile. torch's allocator
returns large blocks to the system after every use; to compare with a tuned one set
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stgcn_fast import nn as fast_nn
from stgcn_fast import ops
from stgcn_fast.cli.timing import (
    LAYER_SHAPES,
    EagerSTGCN,
    alternate,
    backend_line,
    check_agreement,
    check_network_gradient,
    difference,
    eager_graph_conv,
    gradient,
    gradient_difference,
)
from stgcn_fast.models import STGCN

AGREEMENT = 2e-4  # largest difference over the largest magnitude, float32
# The float32 gradients of all contenders, of norms; ours and eager's are compared in float64 besides.
ROUNDED_GRADIENT_AGREEMENT = 1e-2
JOINTS = 25
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Contenders = dict[str, Callable[[], Any]]


def medians(contenders: Contenders, repeats: int, seconds: float) -> dict[str, float]:
    """Median seconds of each contender, by name."""
    return dict(zip(contenders, alternate(list(contenders.values()), repeats, seconds)))


def agree(name: str, results: dict[str, Tensor]) -> None:
    """Stop unless every result equals the first one."""
    first, *others = results
    for other in others:
        value = difference(results[other], results[first])
        check_agreement(f"{name}, {other} and {first}", value, AGREEMENT)


def agree_in_gradient(name: str, results: dict[str, list[Tensor]], limit: float) -> None:
    """Stop unless every gradient equals the first one."""
    first, *others = results
    for other in others:
        value = gradient_difference(results[other], results[first])
        check_agreement(f"{name}, gradients of {other} and {first}", value, limit)


def masked_graph_conv(x: Tensor, weight: Tensor, bias: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
    """The public composition with edge importance."""
    return eager_graph_conv(x, weight, bias, adjacency * mask)


def layer_calls(
    kind: str, c: int, o: int, t: int, stride: int, batch: int
) -> tuple[Contenders, dict[str, list[Tensor]]]:
    """Both ways to compute one layer, in both formats; and the leaves of each."""
    adjacency = STGCN(2).A
    mask = (torch.rand_like(adjacency) + 0.5).requires_grad_()
    gcn, tcn = fast_nn.GraphConv(c, o, adjacency.shape[0]), fast_nn.TemporalConv(o, o, 9, stride)
    fast_nn.init_as_public(gcn.conv)
    channels = c if kind == "graph_conv" else o
    x = torch.randn(batch, channels, t, JOINTS)
    calls: Contenders = {}
    leaves: dict[str, list[Tensor]] = {}
    shared = [*gcn.parameters(), mask] if kind == "graph_conv" else list(tcn.parameters())
    for name, memory_format in FORMATS.items():
        y = x.clone(memory_format=memory_format).requires_grad_(channels != 3)
        if kind == "graph_conv":
            weight, bias = gcn.conv.weight, gcn.conv.bias
            eager = partial(masked_graph_conv, y, weight, bias, adjacency, mask)
            ours = partial(gcn, y, adjacency, mask)
        else:
            eager = partial(functional.conv2d, y, tcn.weight, tcn.bias, (stride, 1), (4, 0))
            ours = partial(ops.temporal_conv, y, tcn.weight, tcn.bias, stride, 4)
        own = [*shared, y] if y.requires_grad else shared
        calls |= {f"eager {name}": eager, f"ours {name}": ours}
        leaves |= {f"eager {name}": own, f"ours {name}": own}
    return calls, leaves


def layers(batches: list[int], repeats: int, seconds: float) -> None:
    """Table of every layer: forward, and forward with backward."""
    print("| layer | N | step | ours / eager, ms | contiguous | channels_last | best against best |")
    print("|---|---|---|---|---|---|---|")
    for c, o, t, stride in LAYER_SHAPES:
        for kind in ("graph_conv", "temporal_conv"):
            shape = f"{c} to {o}, T {t}" if kind == "graph_conv" else f"{o}, T {t}, stride {stride}"
            for batch in batches:
                calls, leaves = layer_calls(kind, c, o, t, stride, batch)
                results = {name: call().detach() for name, call in calls.items()}
                agree(f"{kind} {shape}", results)
                upstream = torch.randn_like(results["ours contiguous"])
                found = {name: gradient(call, leaves[name], upstream) for name, call in calls.items()}
                agree_in_gradient(f"{kind} {shape}", found, AGREEMENT)
                incoming = {name: torch.empty_like(r).copy_(upstream) for name, r in results.items()}

                def training(name: str, calls: Contenders = calls, incoming: Any = incoming) -> None:
                    torch.autograd.backward(calls[name](), incoming[name])

                def forward(name: str, calls: Contenders = calls) -> None:
                    with torch.no_grad():
                        calls[name]()

                for step, run in (("forward", forward), ("training", training)):
                    times = medians({name: partial(run, name) for name in calls}, repeats, seconds)
                    plain, last = (times[f"eager {f}"] / times[f"ours {f}"] for f in FORMATS)
                    ours = min(times[f"ours {f}"] for f in FORMATS)
                    eager = min(times[f"eager {f}"] for f in FORMATS)
                    print(
                        f"| {kind} {shape} | {batch} | {step} | {1e3 * ours:.2f} / {1e3 * eager:.2f} "
                        f"| {plain:.2f} | {last:.2f} | {eager / ours:.2f} |",
                        flush=True,
                    )


def exported(model: torch.nn.Module, x: Tensor, folder: Path) -> Path:
    """The eager composition as an ONNX file."""
    path = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the new exporter needs one package more
        torch.onnx.export(model, (x,), str(path), dynamo=False, opset_version=17)
    return path


def inference_calls(model: STGCN, x: Tensor, folder: Path, threads: int) -> Contenders:
    """Every installed way to run the network."""
    eager = {name: EagerSTGCN(model, form).eval() for name, form in FORMATS.items()}
    calls: Contenders = {f"eager {name}": (lambda n=network: n(x)) for name, network in eager.items()}
    compiled = torch.compile(eager["contiguous"], fullgraph=True)
    calls["torch.compile"] = lambda: compiled(x)
    have = {name: importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime", "openvino")}
    array = x.numpy()
    if have["onnx"]:
        path = exported(eager["contiguous"], x, folder)
        if have["onnxruntime"]:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            feed = {session.get_inputs()[0].name: array}
            calls["ONNX Runtime"] = lambda: torch.from_numpy(session.run(None, feed)[0])
        if have["openvino"]:
            import openvino

            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
            request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
            calls["OpenVINO"] = lambda: torch.from_numpy(next(iter(request.infer([array]).values())).copy())
    calls["ours"] = lambda: model(x)
    return calls


def network(batches: list[int], repeats: int, seconds: float) -> None:
    """Table of the ten-block network on NTU shapes: inference, and a training step without dropout."""
    model = STGCN(60)
    for batch in batches:
        x = torch.randn(batch, 3, 300, JOINTS, 2)
        labels = torch.arange(batch) % 60
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            model.eval()
            calls = inference_calls(model, x, Path(folder), torch.get_num_threads())
            agree("network", {name: call() for name, call in calls.items()})
            report(f"inference, N {batch}", medians(calls, repeats, seconds))
        model.train()
        plain = EagerSTGCN(model)
        networks = {"eager": plain, "torch.compile": torch.compile(plain, fullgraph=True), "ours": model}

        def loss(name: str, networks: dict[str, Any] = networks, x: Tensor = x, y: Tensor = labels) -> Tensor:
            return functional.cross_entropy(networks[name](x), y)

        def step(name: str, loss: Callable[[str], Tensor] = loss) -> None:
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(loss(name))

        agree("training step", {name: loss(name).detach() for name in networks})
        check_network_gradient("training step", model, x, labels)
        parameters = list(model.parameters())
        found = {name: gradient(partial(loss, name), parameters) for name in networks}
        agree_in_gradient("training step", found, ROUNDED_GRADIENT_AGREEMENT)
        times = medians({name: partial(step, name) for name in networks}, repeats, seconds)
        report(f"training step, N {batch}", times)


def report(title: str, times: dict[str, float]) -> None:
    """One line a contender: its median and how many times longer it took than ours."""
    print(f"\n{title}")
    for name, value in sorted(times.items(), key=lambda entry: entry[1]):
        print(f"  {name:22s} {1e3 * value:9.1f} ms  {value / times['ours']:5.2f} x", flush=True)


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["layers", "network"])
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=6.0, help="budget of one comparison")
    options = parser.parse_args()
    tuned = os.environ.get("MALLOC_MMAP_MAX_") == "0"
    for threads in options.threads:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        print(f"\n{backend_line()}, torch {torch.__version__}, {'tuned' if tuned else 'default'} allocator")
        if options.what == "layers":
            layers(options.batch or [2, 16], options.repeats, options.seconds)
        else:
            network(options.batch or [1, 8], options.repeats, options.seconds)


if __name__ == "__main__":
    main()
