#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times PyTorch, CuPy, cuBLAS and ByzFL on the same device, each checked against bragg before it counts.

    peers.py --bragg PATH [--times BENCH.json] [--device cuda] [--json OUT.json] [--seconds 0.1] [--n 16 64] [--d 1e6 1e7]

Updates are random, on the device. Times are medians by CUDA events (on a CPU: the clock), after two calls to warm up. At
the first --d the updates go through `bragg aggregate` too, with the rule that the peer computes: one whose result
differs by more than 1e-4 of the largest |x| is reported as differing, and has no ratio. --times: a result of `bragg
bench` of the same run, whose rows of the same rule, n and d give the ratios. --json is written anew after each row: a run
that is stopped leaves what it has. What is not installed is left out and named. ByzFL is found as any package, or in the
folder `python` beside the bragg that is given.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import torch

TOLERANCE = 1e-4
MOST_TIMINGS = 200


class Unsupported(Exception):
    """Why there is no figure."""


# What is compared: name of the peer, rule as bragg has it (F: n // 5), rule that the peer computes, and the call --------------


def torch_nnm(x, f):
    """Neighbour mixing as a matrix product: what one writes who cares for memory. Not safe beside NaN."""
    n = len(x)
    nearest = torch.topk(torch.cdist(x, x), n - f, dim=1, largest=False).indices
    return torch.zeros(n, n, device=x.device).scatter_(1, nearest, 1 / (n - f)) @ x


def torch_trimmed_mean(x, f):
    return torch.sort(x, dim=0).values[f : len(x) - f].mean(dim=0)


def torch_krum(x, f):
    distances = torch.cdist(x, x).square_()
    scores = distances.sort(dim=1).values[:, 1 : len(x) - f - 1].sum(dim=1)
    return x[torch.argmin(scores)]


def torch_geometric_median(x, iterations=3, nu=0.1):
    z = torch.zeros_like(x[0])
    for _ in range(iterations):
        weights = 1 / torch.linalg.norm(x - z, dim=1).clamp_(min=nu)
        z = (weights @ x) / weights.sum()
    return z


def torch_centered_clipping(x, tau=100.0, iterations=5):
    v = torch.zeros_like(x[0])
    for _ in range(iterations):
        difference = x - v
        factors = (tau / torch.linalg.norm(difference, dim=1)).clamp_(max=1)
        v = v + (factors @ difference) / len(x)
    return v


THREE_STEPS = "geometric_median(nu=0.1, max_iters=3, tol=0, start=origin)"
CLIPPING = "centered_clipping(tau=100, iters=5)"
CLIPPING_FROM_ORIGIN = "centered_clipping(tau=100, iters=5, start=origin)"
NNM = "nnm(f=F) | trimmed_mean(f=F)"


def torch_cases():
    yield "torch.median", "median", "median(even=lower)", lambda x, f: torch.median(x, dim=0).values
    yield "torch.sort", "trimmed_mean(f=F)", "", torch_trimmed_mean
    yield "torch.cdist", "krum(f=F)", "", torch_krum
    yield "torch, mixed by a product", NNM, "", lambda x, f: torch_trimmed_mean(torch_nnm(x, f), f)
    yield "torch, 3 steps", "geometric_median", THREE_STEPS, lambda x, f: torch_geometric_median(x)
    yield "torch", CLIPPING, CLIPPING_FROM_ORIGIN, lambda x, f: torch_centered_clipping(x)


def byzfl_cases():
    try:
        from byzfl.aggregators import aggregators, preaggregators
    except Exception as error:  # whatever a package may raise that is not whole
        raise Unsupported(f"byzfl: {error}") from error

    def nnm(x, f):
        needed = 4 * len(x) * (len(x) - f) * x.shape[1]  # it gathers that many rows
        free = torch.cuda.mem_get_info()[0] if x.is_cuda else 4 << 30
        if 2 * needed > free:
            raise Unsupported(f"NNM gathers {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        return aggregators.TrMean(f=f)(preaggregators.NNM(f=f)(x))

    yield "ByzFL Median", "median", "", lambda x, f: aggregators.Median()(x)
    yield "ByzFL TrMean", "trimmed_mean(f=F)", "", lambda x, f: aggregators.TrMean(f=f)(x)
    yield "ByzFL Krum", "krum(f=F)", "krum(f=F, neighbors=N)", lambda x, f: aggregators.Krum(f=f)(x)
    yield "ByzFL NNM, TrMean", NNM, "", nnm
    yield "ByzFL GeometricMedian", "geometric_median", THREE_STEPS, lambda x, f: aggregators.GeometricMedian(nu=0.1, T=3)(x)
    yield "ByzFL CenteredClipping", CLIPPING, CLIPPING_FROM_ORIGIN, lambda x, f: aggregators.CenteredClipping(L=5, tau=100.0)(x)


def cupy_cases(device):
    if device != "cuda":
        raise Unsupported("cupy: it needs a CUDA device")
    try:
        import cupy
    except ImportError as error:
        raise Unsupported(f"cupy: {error}") from error

    def on_cupy(rule):
        return lambda x, f: torch.from_dlpack(rule(cupy.from_dlpack(x), f))

    yield "cupy.median", "median", "", on_cupy(lambda x, f: cupy.median(x, axis=0))
    yield "cupy.sort", "trimmed_mean(f=F)", "", on_cupy(lambda x, f: cupy.sort(x, axis=0)[f : len(x) - f].mean(axis=0))


# cuBLAS on a matrix that is a thousand to a million times as wide as high -----------------------------------------------------


def gram_cases(device):
    """name, function of the updates that returns their n × n products."""

    def pieces(product, width):
        def gram(x):
            total = None
            for part in x.split(width, dim=1):
                found = product(part)
                total = found if total is None else total.add_(found)
            return total

        return gram

    def single(x):
        return x @ x.T

    def double(x):
        wide = x.double()
        return wide @ wide.T

    yield "sgemm", single, False
    yield "sgemm, TF32", single, True
    yield "dgemm, converted first", double, False
    for width in (1 << 14, 1 << 17, 1 << 20):  # of 16 rows in f64: 2, 16 and 134 MB
        yield f"dgemm, {width} coordinates at a time", pieces(double, width), False
    if device != "cuda":
        return
    try:
        import cupy
        from cupy import cublas
    except ImportError:
        return

    def syrk(x):
        # A row-major matrix is its transpose to cuBLAS.
        return torch.from_dlpack(cublas.syrk("T", cupy.from_dlpack(x.double()).T, lower=True))

    yield "dsyrk, converted first", syrk, False
    yield "dsyrk, 131072 coordinates at a time", pieces(syrk, 1 << 17), False


# Measuring --------------------------------------------------------------------------------------------------------------------


def timings(call, device, seconds):
    """Milliseconds of calls, after two to warm up; and the last result."""
    for _ in range(2):
        result = call()
    if device == "cuda":
        torch.cuda.synchronize()
    times, total = [], 0.0
    while len(times) < 3 or (total < 1e3 * seconds and len(times) < MOST_TIMINGS):
        del result
        if device == "cuda":
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            result = call()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop))
        else:
            before = time.perf_counter()
            result = call()
            times.append(1e3 * (time.perf_counter() - before))
        total += times[-1]
    return times, result


def attempt(call, device, seconds):
    """The fields of a timing, and the result; or why there is none."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    try:
        times, result = timings(call, device, seconds)
    except Unsupported as reason:
        return {"unsupported": str(reason)}, None
    except Exception as error:  # one peer's failure is not the others'
        return {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}, None
    found = {"ms": {"median": statistics.median(times), "min": min(times), "max": max(times)}, "timings": len(times)}
    if device == "cuda":
        found["extra_memory_bytes"] = torch.cuda.max_memory_allocated() - before
    return found, result


class Bragg:
    """bragg's result of a rule on updates in a file."""

    def __init__(self, program, device, folder):
        self.program, self.device, self.folder = program, device, pathlib.Path(folder)
        self.known = {}

    def take(self, updates):
        self.known = {}
        numpy.save(self.folder / "updates.npy", updates.cpu().numpy())

    def result(self, rule):
        """@raises RuntimeError: what bragg says of its failure."""
        if rule not in self.known:
            out = self.folder / "out.npy"
            out.unlink(missing_ok=True)
            command = [self.program, "aggregate", str(self.folder / "updates.npy"), "--rule", rule, "-o", str(out),
                       "--device", self.device, "--quiet"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"bragg aggregate --rule '{rule}': {done.stderr.strip()}")
            self.known[rule] = numpy.load(out)
        return self.known[rule]


def bragg_times(path):
    """(form, n, d) -> milliseconds of f32 rows."""
    if not path:
        return {}
    result = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    return {(row["form"], row["n"], row["d"]): row["ms"]["median"] for row in result["rows"] if row["dtype"] == "f32"}


def cases_of(device, left_out):
    cases = list(torch_cases())
    for more in (byzfl_cases, lambda: cupy_cases(device)):
        try:
            cases += list(more())
        except Unsupported as reason:
            left_out.append(str(reason))
    return cases


def check(row, result, rule, bragg, largest):
    """Holds a result against bragg's."""
    try:
        expected = bragg.result(rule)
        row["difference"] = float(numpy.abs(result.float().cpu().numpy().reshape(-1) - expected).max())
    except Exception as error:  # neither is bragg's failure the end
        row["unchecked"] = str(error)
        return
    row["agrees"] = row["difference"] <= TOLERANCE * largest


def measure_rules(options, n, cases, bragg, ours, take):
    f = n // 5
    agrees = {}
    for d in options.d:
        x = torch.empty(n, d, device=options.device).normal_()
        x *= (1 + 0.5 * ((torch.arange(n, device=options.device) * 7 + 3) % n) / n)[:, None]
        checked = d == options.d[0]
        if checked:
            bragg.take(x)
        for peer, form, computes, rule in cases:
            row = {"peer": peer, "form": form, "n": n, "d": d, "computes": computes or form}
            found, result = attempt(lambda: rule(x, f), options.device, options.seconds)
            row |= found
            if result is not None and checked:
                computed = row["computes"].replace("=F", f"={f}").replace("=N", f"={n - f - 1}")
                check(row, result, computed, bragg, float(x.abs().max()))
                agrees[peer, form] = row.get("agrees")
            row["agrees"] = agrees.get((peer, form))  # where it was checked: at the first d
            mine = ours.get((form, n, d))
            if mine and "ms" in row and row["agrees"]:
                row["bragg_ms"], row["ratio"] = mine, row["ms"]["median"] / mine
            take(row)
            del result
        del x


def measure_gram(options, n, take):
    for d in options.d:
        x = torch.empty(n, d, device=options.device).normal_()
        exact = None
        for name, gram, tf32 in gram_cases(options.device):
            if options.device == "cuda":
                torch.backends.cuda.matmul.allow_tf32 = tf32
            elif tf32:
                continue
            row = {"peer": name, "n": n, "d": d}
            found, result = attempt(lambda: gram(x), options.device, options.seconds)
            row |= found
            if result is not None:
                low = torch.tril(result).double()
                if exact is None:
                    exact = torch.tril(sum(part.double() @ part.double().T for part in x.split(1 << 20, dim=1)))
                row["relative_error"] = float((low - exact).abs().max() / exact.abs().max())
                row["gb_per_s"] = 4e-6 * n * d / row["ms"]["median"]
            take(row)
        del x


def show(row):
    said = row.get("unsupported") or row.get("failure") or f"{row['ms']['median']:.3f} ms"
    if row.get("agrees") is False:
        said += " DIFFERS"
    if "unchecked" in row:
        said += f" UNCHECKED: {row['unchecked']}"
    if "ratio" in row:
        said += f" ({row['ratio']:.1f} times bragg's)"
    print(f"{row.get('form', 'gram')}  n = {row['n']}, d = {row['d']}  {row['peer']}: {said}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bragg", required=True, help="the command that results are checked against")
    parser.add_argument("--times", help="result of `bragg bench --json` on this device")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=0.1, help="for each timing")
    parser.add_argument("--n", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--d", type=lambda text: int(float(text)), nargs="+", default=[10**6, 10**7])
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("peers.py: PyTorch sees no CUDA device; --device cpu runs the same there")
    sys.path.append(str(pathlib.Path(options.bragg).resolve().parent / "python"))
    torch.manual_seed(1)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    result = {"device": name, "torch": torch.__version__, "seconds": options.seconds, "complete": False, "rules": [], "gram": [],
              "left_out": []}

    def write():
        if options.json:
            whole = options.json.with_name(options.json.name + ".tmp")
            whole.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            whole.replace(options.json)

    def into(rows):
        def take(row):
            rows.append(row)
            write()
            show(row)

        return take

    with tempfile.TemporaryDirectory() as folder:
        bragg = Bragg(options.bragg, options.device, folder)
        cases = cases_of(options.device, result["left_out"])
        for reason in result["left_out"]:
            print(f"left out: {reason}")
        for n in options.n:
            measure_rules(options, n, cases, bragg, bragg_times(options.times), into(result["rules"]))
            measure_gram(options, n, into(result["gram"]))
    result["complete"] = True
    write()
    wrong = [row for row in result["rules"] if row.get("agrees") is False or "unchecked" in row]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
