"""Benchmark results as a Markdown page."""

from typing import Any


def markdown(documents: list[dict[str, Any]]) -> str:
    """One section a document: what it ran on, then a row for each entry with its slow-down against the best."""
    lines = ["# Benchmarks", "", "Written by `make benchmarks`; times are wall clock, milliseconds an item.", ""]
    for content in documents:
        lines += [f"## {content['name'].capitalize()}", "", _machine(content["machine"]), ""]
        lines += [
            "| benchmark | size | variant | threads | median ms | min .. max | CPU ms | items/s "
            "| times the best | same faces | of the step |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        best: dict[tuple[Any, ...], float] = {}
        for e in content["entries"]:
            key = (e["benchmark"], e["settings"].get("size"), e["threads"])
            best[key] = min(best.get(key, float("inf")), e["ms_median"])
        for e in content["entries"]:
            s = e["settings"]
            share, part = s.get("same_face_as_torch"), s.get("share_of_step")
            ratio = e["ms_median"] / best[(e["benchmark"], s.get("size"), e["threads"])]
            cpu = f"{e['ms_cpu']:.2f}" if e["ms_cpu"] else ""
            lines.append(
                f"| {e['benchmark']} | {s.get('size', '')} | {e['variant']} | {e['threads']} | {e['ms_median']:.2f} "
                f"| {e['ms_min']:.2f} .. {e['ms_max']:.2f} | {cpu} | {e['items_per_second']:.0f} | {ratio:.1f} "
                f"| {'' if share is None else f'{100 * share:.3f} %'} | {'' if part is None else f'{100 * part:.0f} %'} |"
            )
        lines.append("")
    lines += [
        "*CPU ms*: processor time of all threads, hardly touched by other work. *times the best*: median over the fastest",
        "variant's of the same benchmark, size and threads. *same faces*: share of pixels whose visible face is torch's. *of the",
        "step*: processor time of a part over that of the whole training step.",
        "",
    ]
    return "\n".join(lines)


def _machine(m: dict[str, Any]) -> str:
    packages = ", ".join(f"{k} {m['packages'][k]}" for k in ("python", "torch", "numba") if k in m["packages"])
    load = "unknown" if m["load_at_start"] is None else f"{m['load_at_start']:.1f}"
    busy = (m["load_at_start"] or 0.0) > 0.5
    note = " (**not idle**: other work slowed this run down)" if busy else ""
    commit = str(m["commit"])[:12] + (" with local changes" if m.get("dirty") else "")
    gpu = f", {m['gpu']}" if m.get("gpu") else ""
    return f"{m['cpu']}, {m['cores']} cores{gpu}; {packages}; commit {commit}; load at start {load}{note}."
