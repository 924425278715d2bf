#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""All figures of a run of scripts/gpu_check.sh in 30 lines at most, made from whatever files are there.

  check_table.py FOLDER    of an unpacked results.tar.gz
"""

import csv
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import result_file  # noqa: E402

MOST_LINES = 30
MOST_CHARACTERS = 10000  # what comes back of a rented machine's output is little more
BENCHES = ["rules", "rules-odd", "rules-tensors", "rules-f64", "rules-96", "rules-dependent", "readme", "tiny", "large-n", "huge"]
CHOICES = "gram-choices"
# What decides on a kernel, as the profiler's raw page calls it: the first column with all of the words.
METRICS = [("ms", ("gpu__time_duration", "sum"), 1e-6), ("DRAM %", ("dram__throughput", "pct_of_peak_sustained_elapsed"), 1),
           ("SM %", ("sm__throughput", "pct_of_peak_sustained_elapsed"), 1), ("L1 hits %", ("l1tex__t_sector_hit_rate",), 1),
           ("L2 hits %", ("lts__t_sector_hit_rate",), 1), ("warps %", ("sm__warps_active", "pct_of_peak_sustained_active"), 1),
           ("issued", ("smsp__issue_active", "per_cycle"), 1), ("stall no_instruction", ("issue_stalled_no_inst", "ratio"), 1),
           ("long_scoreboard", ("issue_stalled_long_scoreboard", "ratio"), 1), ("barrier", ("issue_stalled_barrier", "ratio"), 1),
           ("math_pipe", ("issue_stalled_math_pipe", "ratio"), 1)]


def number(value):
    """Three digits."""
    return "%d" % round(value) if abs(value) >= 100 else "%.3g" % value


def duration(ms):
    return number(1e3 * ms) + "us" if ms < 1 else number(ms) + "ms"


def size(d):
    text = "%g" % d
    return text.replace("e+0", "e") if d >= 1e4 and d == float("%.3g" % d) else str(d)


def shape(row):
    """Rows x coordinates."""
    text = "%dx%s" % (row["n"], row.get("model") or size(row["d"]))
    if row.get("tensors", 1) != 1:
        text += " in %d" % row["tensors"]
    return text if row["dtype"] == "f32" else "%s %s" % (text, row["dtype"])


def text_of(path):
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def state(folder):
    check = json.loads(text_of(folder / "check.json") or "{}")
    steps = check.get("steps", [])
    gpu = (text_of(folder / "gpu.csv").strip().splitlines() or ["unknown"])[-1]
    yield "%s call, %s s, %s; GPU: %s; commit %s" % (
        check.get("call", "unknown"), check.get("seconds", "?"), check.get("state", "not known how it ended"), gpu,
        text_of(folder / "commit").strip() or "unknown")
    of = {result: [step for step in steps if step["result"] == result] for result in ("ok", "failed", "left out")}
    yield "ok: " + (", ".join("%s %s s" % (step["step"], number(step["seconds"])) for step in of["ok"]) or "nothing")
    for result in ("failed", "left out"):
        if of[result]:
            yield "%s: %s" % (result.upper(), ", ".join("%s (%s)" % (step["step"], step["why"]) for step in of[result]))
    if check.get("to_come"):
        yield "NOT BEGUN OR NOT FINISHED: " + ", ".join(check["to_come"])
    clocks = ["%s %g to %g MHz, %g W" % (step["step"], *step["sm_mhz"], step["watts"]) for step in steps
              if "sm_mhz" in step and step["step"] in ("variants", *BENCHES)]
    if clocks:
        yield "SM clocks and most power: " + "; ".join(clocks)


def choice(row):
    """One of who computes products."""
    alone = [one["ms"] for one in row["passes"] if one["name"] == "gram" and one["ms"] is not None]
    difference = row.get("gram_difference")
    text = "%s %s %s" % (shape(row), row["gram"], duration(alone[0]) if alone else "-")
    return text if difference is None else "%s (%.1e%s)" % (text, difference, "" if difference <= 1 else " DIFFERS")


def pipelines(folder):
    """A line for each rule: all its shapes, with the share of the floor and the time of a graph. One for choices."""
    lines, skipped = {}, []
    for name in (*BENCHES, CHOICES):
        path = folder / (name + ".json")
        if not path.exists():
            continue
        result = result_file.load(path)
        if name == "rules":
            floors = result["floors"]
            cuda = floors.get("cuda") or {}
            yield "below: ROWSxCOORDINATES time/in a graph, share of the floor; floors: " + ", ".join(
                "%s %s" % (what, number(value)) for what, value in [*floors.items(), *cuda.items()]
                if isinstance(value, (int, float)) and what != "memory_bytes")
        for row in result["rows"] if name != CHOICES else []:
            text = "%s %s" % (shape(row), duration(row["ms"]["median"]))
            if row.get("graph_ms"):
                text += "/" + duration(row["graph_ms"])
            text += " %.0f%%" % (100 * row["floor_share"])
            if row.get("note"):
                text += " " + row["note"]
            lines.setdefault(row["form"], {}).setdefault(name, []).append(text)
        if name == CHOICES:
            of_form = {}
            for row in result["rows"]:
                of_form.setdefault(row["form"], []).append(choice(row))
            yield "products by choice, gram alone (difference / bound): " + "; ".join(
                "%s %s" % (form, ", ".join(some)) for form, some in of_form.items())
        if not result.get("complete", True):
            skipped.append("%s was stopped after %d rows" % (name, len(result["rows"])))
        skipped += ["%s %s%s: %s" % (row["form"], shape(row), " " + row["gram"] if row.get("gram") else "", row["why"])
                    for row in result["skipped"]]
    for form, of in lines.items():
        yield "%s: %s" % (form, "; ".join("[%s] %s" % (name, ", ".join(some)) for name, some in of.items()))
    if skipped:
        yield "benchmarks left out: " + "; ".join(skipped)


def peer(row, chosen):
    """What others have for a pass: no choice of ours, however long it takes."""
    text = "%s by %s %s" % (shape(row), row["variant"], duration(row["ms"]))
    if chosen:
        text += " x%s" % number(row["ms"] / chosen)
    if "sort_ms" in row:
        text += ", its sort %s" % duration(row["sort_ms"])
    return text + (" not compared" if row["agrees"] is None else "")


def variants(folder):
    """A line for each pass: what is chosen, what is faster than that or wrong, and what others take."""
    path = folder / "variants.jsonl"
    if not path.exists():
        return
    rows = [row for row in result_file.load_lines(path) if "pass" in row]
    chosen = {(row["pass"], shape(row)): row["ms"] for row in rows if row["chosen"] and "ms" in row}
    lines = {}
    for row in rows:
        where = shape(row)
        best = chosen.get((row["pass"], where))
        if "failure" in row:
            text = "%s %s FAILED: %s" % (where, row["variant"], row["failure"])
        elif row["agrees"] is False:
            text = "%s %s DIFFERS" % (where, row["variant"])
        elif row.get("peer"):
            text = peer(row, best)
        elif row["chosen"]:
            text = "%s %s %s GB/s" % (where, duration(row["ms"]), number(row["gb_per_s"]))
        elif best and row["ms"] < 0.98 * best:
            text = "%s faster: %s %s" % (where, row["variant"], duration(row["ms"]))
        else:
            continue
        lines.setdefault(row["pass"], []).append(text)
    for name, some in lines.items():
        yield "pass %s: %s" % (name, "; ".join(some))


def profiles(folder):
    """A line for the kernels that the profiler saw."""
    found = list(profile(folder))
    if found:
        yield "; ".join(found)


def profile(folder):
    for path in sorted(folder.glob("ncu-*.csv")):
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            rows = list(csv.reader(line for line in file if line.startswith('"')))
        if len(rows) < 3:  # names, units, values
            yield "%s: %s" % (path.stem, " ".join(text_of(path).split())[:200] or "nothing")
            continue
        values = dict(zip(rows[0], rows[2]))
        found = []
        for label, words, factor in METRICS:
            for name, value in values.items():
                if all(word in name for word in words):
                    try:
                        found.append("%s %s" % (label, number(factor * float(value.replace(",", "")))))
                    except ValueError:
                        continue
                    break
        yield "%s: %s" % (path.stem, ", ".join(found) or "none of the metrics that are wanted")


def others(folder):
    path = folder / "peers.json"
    if path.exists():
        result = json.loads(text_of(path))
        for name in ("rules", "gram"):
            texts = []
            for row in result[name]:
                text = "%s %dx%s " % (row["peer"], row["n"], size(row["d"]))
                if "ms" in row:
                    text += duration(row["ms"]["median"])
                    text += " x%s" % number(row["ratio"]) if "ratio" in row else ""
                    text += " DIFFERS" if row.get("agrees") is False else ""
                else:
                    text += row.get("unsupported") or row.get("failure", "")
                texts.append(text)
            if texts:
                yield "peers, %s: %s" % (name, "; ".join(texts))
    if (folder / "pass-sums.log").exists():
        yield "whole by sum of passes: " + "; ".join(text_of(folder / "pass-sums.log").splitlines())
    verified = []
    for path in sorted(folder.glob("verify*.json")):
        result = json.loads(text_of(path))
        verified.append("%s: %s cases, %s wrong" % (path.stem, result.get("cases"), result.get("breaches")))
    if verified:
        yield "; ".join(verified)


def table(folder):
    lines = []
    for part in (state, pipelines, variants, profiles, others):
        try:
            lines += part(folder)
        except Exception as error:  # a file that is not as it should be costs its own lines only
            lines.append("%s: %s: %s" % (part.__name__, type(error).__name__, error))
    lines = [" ".join(line.split()) for line in lines]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES - 1 :] = ["and %d lines more, of which: %s" % (
            len(lines) - MOST_LINES + 1, " | ".join(line[:60] for line in lines[MOST_LINES - 1 :]))]
    return "\n".join(lines) + "\n"


def short(text):
    """The longest lines cut, until all is short enough."""
    lines = text.splitlines()
    most = max(map(len, lines), default=0)
    while sum(min(len(line), most) + 1 for line in lines) > MOST_CHARACTERS:
        most = most * 9 // 10
    return "\n".join(line if len(line) <= most else line[: most - 3] + "..." for line in lines)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    print(table(pathlib.Path(sys.argv[1])), end="")


if __name__ == "__main__":
    main()
