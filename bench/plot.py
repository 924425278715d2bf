#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plots and tables from results of `bragg bench --json`.

    plot.py RESULT.json [--throughput OUT.svg] [--roofline OUT.svg] [--tables]

--throughput: updates read a second against the size of the model, at one n (--n, 16) and dtype (--dtype, f32).
--roofline: each pass by operations per byte, beneath what the machine gives. --tables prints Markdown: times by rule and
n, times by dtype, and other libraries where the result has them. Plots need matplotlib; tables, only Python.
"""

import argparse
import io
import pathlib
import re
import sys

from result_file import Unusable, load

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]


def machine(result):
    hardware = result["hardware"]
    if result["device"] == "cuda":
        return hardware["cuda_device"]
    return "%s, %d threads, %s" % (hardware["cpu"], result["threads"], hardware["instruction_set"])


def distinct(values):
    return list(dict.fromkeys(values))


def count_text(d):
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if d >= size:
            return "%.3g%s" % (d / size, unit)
    return str(d)


def model_text(name):
    """"llama-2-7b/256" is one of 256 parts."""
    return name.replace("/", ", 1/") if name else ""


# tables ---------------------------------------------------------------------------------------------------


def time_text(ms):
    if ms is None:
        return ""
    if ms < 0.9995:
        return "%.3g µs" % (1e3 * ms)
    return ("%.0f ms" if ms >= 99.5 else "%.3g ms") % ms if ms < 9999.5 else "%.3g s" % (1e-3 * ms)


def markdown(header, rows):
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [header, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]]) + "\n"


def cell(row):
    if row is None:
        return ""
    return "%s (%.0f %%)" % (time_text(row["ms"]["median"]), 100 * row["floor_share"])


def table_by_n(result, d, dtype):
    rows = [row for row in result["rows"] if row["d"] == d and row["dtype"] == dtype and not row["model"]]
    counts = sorted(distinct(row["n"] for row in rows))
    by = {(row["form"], row["n"]): row for row in rows}
    body = [["`%s`" % form] + [cell(by.get((form, n))) for n in counts] for form in distinct(row["form"] for row in rows)]
    return markdown(["rule"] + ["n = %d" % n for n in counts], body) if len(counts) > 1 else ""


def table_of_passes(result, d, dtype):
    """The floor's share of each pass."""
    rows = [row for row in result["rows"] if row["d"] == d and row["dtype"] == dtype and not row["model"]]
    counts = sorted(distinct(row["n"] for row in rows))
    by = {(one["name"], row["form"], row["n"]): one for row in rows for one in row["passes"]}
    body = []
    for name, form in sorted(distinct((name, form) for name, form, _ in by)):
        shares = []
        for n in counts:
            one = by.get((name, form, n))
            known = one is not None and one["ms"] and one["floor_ms"]
            shares.append("%.0f %%" % (100 * one["floor_ms"] / one["ms"]) if known else "–")
        body.append([name, "`%s`" % form] + shares)
    return markdown(["pass", "of"] + ["n = %d" % n for n in counts], body) if len(counts) > 1 and body else ""


def table_by_dtype(result):
    """Rules that there are times of in several dtypes at the same shape."""
    rows = [row for row in result["rows"] if not row["model"]]
    shapes = distinct((row["form"], row["n"], row["d"]) for row in rows)
    dtypes = [name for name in ("f64", "f32", "bf16", "f16") if any(row["dtype"] == name for row in rows)]
    by = {(row["form"], row["n"], row["d"], row["dtype"]): row for row in rows}
    body = []
    for form, n, d in shapes:
        found = [by.get((form, n, d, dtype)) for dtype in dtypes]
        if sum(row is not None for row in found) > 1:
            body.append(["`%s`" % form, str(n), count_text(d)] + [cell(row) for row in found])
    return markdown(["rule", "n", "d"] + dtypes, body) if body else ""


def table_of_models(rows):
    rows = [row for row in rows if row["model"]]
    forms = distinct(row["form"] for row in rows)
    by = {(row["form"], row["model"], row["n"]): row for row in rows}
    body = []
    for model, d, n in distinct((row["model"], row["d"], row["n"]) for row in rows):
        body.append([model_text(model), count_text(d), str(n)] + [cell(by.get((form, model, n))) for form in forms])
    return markdown(["model", "coordinates", "n"] + ["`%s`" % form for form in forms], body) if body else ""


def table_of_peers(result):
    """Only where results agree is there a ratio."""
    body = []
    for row in result["rows"]:
        for peer in row["peers"]:
            if peer["unsupported"] or peer["failure"]:
                continue
            factor = "%.3g×" % peer["ratio"] if peer["ratio"] else "results differ"
            memory = peer["extra_memory_bytes"]
            body.append(
                ["`%s`" % row["rule"], str(row["n"]), count_text(row["d"]), "%s %s" % (peer["peer"], peer["version"] or "")]
                + [time_text(peer["ms"]["median"]), time_text(row["ms"]["median"]), factor]
                + ["" if memory is None else "%.3g MB" % (1e-6 * memory)]
            )
    header = ["rule", "n", "d", "library", "its time", "bragg", "factor", "its extra memory"]
    return markdown(header, body) if body else ""


def by_source(result):
    """The rows of files are no longer among those of updates in memory."""
    rows = {source: [row for row in result["rows"] if row.get("source", "memory") == source]
            for source in ("memory", "page cache", "disk")}
    return {**result, **rows, "rows": rows["memory"]}


def tables(result):
    floors = result["floors"]
    text = "%s; bragg %s (%s), %s, `%s`. " % (
        machine(result), result["version"], result["commit"], result["date"][:10], result["command"].replace('"', "'"))
    text += "Median time and, in parentheses, the floor's share of it.\n"
    if floors["read_gb_per_s"]:
        text += "Floor: read %.1f GB/s, copy %.1f GB/s; FMA f64 %.0f GFLOP/s; min/max of f32 and f64 %.0f and %.0f Gop/s.\n" % (
            floors["read_gb_per_s"], floors["copy_gb_per_s"], floors["fma_f64_gflop_per_s"],
            floors["min_max_32_gop_per_s"], floors["min_max_64_gop_per_s"])
    for d, dtype in distinct((row["d"], row["dtype"]) for row in result["rows"] if not row["model"]):
        by_n = table_by_n(result, d, dtype)
        if by_n:
            text += "\nd = %s, %s\n\n%s" % (count_text(d), dtype, by_n)
            text += "\nPasses alone, the floor's share of their time\n\n%s" % table_of_passes(result, d, dtype)
    for title, table in (
        ("By type of element", table_by_dtype(result)),
        ("By size of the model", table_of_models(result["rows"])),
        ("From files in the page cache", table_of_models(result["page cache"])),
        ("From files on disk", table_of_models(result["disk"])),
        ("Other libraries, f32", table_of_peers(result)),
    ):
        if table:
            text += "\n%s\n\n%s" % (title, table)
    return text


# plots ----------------------------------------------------------------------------------------------------


def pyplot():
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot

    matplotlib.rcParams.update(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e6e6e6",
            "legend.frameon": False,
            "svg.hashsalt": "bragg",
            "svg.fonttype": "none",
            "figure.facecolor": "white",
        }
    )
    return matplotlib.pyplot


def save(figure, path):
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    # A path is a line, not one per point.
    pathlib.Path(path).write_text(re.sub(r"\s*\n(?=[MLCQz\"])", " ", text.getvalue()), encoding="utf-8")


def plot_throughput(result, path, n, dtype):
    rows = [row for row in result["rows"] if row["n"] == n and row["dtype"] == dtype]
    sizes = distinct(row["d"] for row in rows)
    if len(sizes) < 2:
        raise Unusable("--throughput: fewer than two sizes with n = %d and %s" % (n, dtype))
    # Rules that were measured at a single size make no line.
    forms = [form for form in distinct(row["form"] for row in rows) if len({row["d"] for row in rows if row["form"] == form}) > 2]
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 4.6))
    for k, form in enumerate(forms or distinct(row["form"] for row in rows)):
        points = sorted((row["d"], row) for row in rows if row["form"] == form)
        rate = [1e-6 * row["input_bytes"] / row["ms"]["median"] for _, row in points]
        low = [1e-6 * row["input_bytes"] / row["ms"]["q3"] for _, row in points]
        high = [1e-6 * row["input_bytes"] / row["ms"]["q1"] for _, row in points]
        colour = COLOURS[k % len(COLOURS)]
        axes.plot([d for d, _ in points], rate, color=colour, marker=MARKERS[k % len(MARKERS)], markersize=5, label=form)
        axes.fill_between([d for d, _ in points], low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    read = result["floors"]["read_gb_per_s"] or result["floors"]["copy_gb_per_s"]
    axes.set_ylim(0, 1.1 * max([read or 0] + [1e-6 * row["input_bytes"] / row["ms"]["median"] for row in rows]))
    if read:
        axes.axhline(read, color="#666666", linestyle="--", linewidth=1)
        axes.annotate("memory is read at %.0f GB/s" % read, (0.99, read), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points", ha="right", va="bottom", color="#444444", fontsize=9)
    for d, name in sorted({row["d"]: row["model"] for row in rows if row["model"]}.items()):
        axes.axvline(d, color="#e6e6e6", linewidth=0.8, zorder=0)
        axes.annotate(model_text(name), (d, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points", rotation=35, ha="left", va="bottom", color="#444444", fontsize=8)
    axes.set_xlabel("coordinates of an update, d")
    axes.set_ylabel("updates aggregated, GB/s")
    axes.set_title("Throughput by model size: %d workers, %s\n%s" % (n, dtype, machine(result)), loc="left", fontsize=10, pad=58)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    save(figure, path)


def plot_roofline(result, path):
    """Passes by what they do per byte. An operation is a multiply-add, a minimum or a maximum of one lane."""
    floors = result["floors"]
    if not floors["fma_f64_gflop_per_s"]:
        raise Unusable("--roofline: the result has no arithmetic peaks (a CUDA device's)")
    kinds = [("gram", "o"), ("combine", "s"), ("select", "^"), ("mix+select", "D")]
    points = {name: [] for name, _ in kinds}
    for row in result["rows"]:
        for part in row["passes"]:
            moved = part["bytes_read"] + part["bytes_written"]
            operations = part["fma_f64"] + part.get("fma_f32", 0) + part["min_max"]
            if part["name"] in points and part["ms"] and operations and not row["in_cache"] and row["dtype"] == "f32":
                points[part["name"]].append((operations / moved, 1e-6 * operations / part["ms"], row["n"]))
    if not any(points.values()):
        raise Unusable("--roofline: no f32 row out of the cache")
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 4.6))
    everything = [point for found in points.values() for point in found]
    low, high = min(p[0] for p in everything) / 3, max(p[0] for p in everything) * 4
    peaks = [
        ("min/max f32", floors["min_max_32_gop_per_s"], COLOURS[2]),
        ("FMA f64", floors["fma_f64_gflop_per_s"] / 2, COLOURS[0]),
    ]
    memory = max(floors["read_gb_per_s"], floors["copy_gb_per_s"])
    for name, peak, colour in peaks:
        corner = peak / memory
        axes.plot([low, corner, high], [low * memory, peak, peak], color=colour, linewidth=1.2, alpha=0.8)
        axes.annotate("%s, %.0f Gop/s" % (name, peak), (high, peak), ha="right", va="bottom", color=colour, fontsize=9)
    axes.annotate("%.0f GB/s" % memory, (low * 1.4, low * 1.4 * memory), xytext=(-4, 6), textcoords="offset points", ha="right", va="bottom", color="#444444", fontsize=9)
    for k, (name, marker) in enumerate(kinds):
        if points[name]:
            xs, ys, _ = zip(*points[name])
            axes.scatter(xs, ys, marker=marker, s=26, color=COLOURS[(1, 4, 2, 3)[k]], edgecolors="white", linewidths=0.5, label=name, zorder=3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte moved")
    axes.set_ylabel("operations, Gop/s")
    axes.set_title("Passes beneath the roofline: f32, n = %d to %d\n%s" % (min(p[2] for p in everything), max(p[2] for p in everything), machine(result)), loc="left", fontsize=10)
    axes.legend(loc="lower right", fontsize=9)
    save(figure, path)


def main(arguments):
    parser = argparse.ArgumentParser(description="Plots and tables from a result of `bragg bench --json`.")
    parser.add_argument("result", metavar="RESULT.json")
    parser.add_argument("--throughput", metavar="OUT.svg", help="throughput against model size")
    parser.add_argument("--roofline", metavar="OUT.svg", help="passes beneath the machine's peaks")
    parser.add_argument("--tables", action="store_true", help="print Markdown tables")
    parser.add_argument("--n", type=int, default=16, help="of the plot of throughput; default 16")
    parser.add_argument("--dtype", default="f32", help="of the plot of throughput; default f32")
    options = parser.parse_args(arguments)
    if not (options.throughput or options.roofline or options.tables):
        parser.error("give --throughput, --roofline or --tables")
    try:
        result = by_source(load(options.result))
        if options.tables:
            print(tables(result), end="")
        if options.throughput:
            plot_throughput(result, options.throughput, options.n, options.dtype)
        if options.roofline:
            plot_roofline(result, options.roofline)
    except Unusable as error:
        print("plot.py: error: %s" % error, file=sys.stderr)
        return 2
    except ImportError as error:
        print("plot.py: error: plots need matplotlib (python3 -m pip install matplotlib): %s" % error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
