"""Records of `creps bench` as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def record_table(record: dict[str, Any]) -> str:
    """A record of `measure_machine` as Markdown."""
    load = f", load {record['load']:.1f} at the beginning" if "load" in record else ""
    head = (
        f"{record['processor']}, {record['threads']} threads, torch {record['torch']}, Python {record['python']}, "
        f"{record['date']}{load}; medians of {record['runs']} runs, lowest and highest in brackets."
    )
    lines = [
        head,
        "",
        "| 512 x 512 | seconds | times the unfused | heap kept | of torch's product |",
        "| - | - | - | - | - |",
    ]
    lines += _speed_rows(record["cpu"], record.get("heap_kept"))
    if "gpu" in record:
        lines += ["", f"On {record['gpu_name']}:", "", *lines[2:4], *_speed_rows(record["gpu"], None)]
    return "\n".join([*lines, "", *_notes(record)])


def _speed_rows(speed: dict[str, Any], kept: dict[str, Any] | None) -> Iterator[str]:
    for name, section in speed.items():
        if name in ("gate", "trained", "refused"):
            continue
        title = "per-pixel stage" if name == "pixels" else f"whole picture, widths {name}"
        for contestant, row in section.items():
            if contestant == "gemm_gflops":
                continue
            seconds = _spread(row["seconds"], row["seconds_range"], 3)
            if contestant == "unfused":
                kept_seconds = f"{kept[name]['unfused']['seconds']:.3f} s" if kept else ""
                yield f"| {title}, unfused | {seconds} | 1 | {kept_seconds} | {100 * row['of_gemm']:.0f} % |"
                continue
            ratio = _spread(row["ratio"], row["ratio_range"], 1)
            other = kept[name].get(contestant) if kept else None
            kept_ratio = _spread(other["ratio"], other["ratio_range"], 1) if other else ""
            yield f"| {title}, {contestant} | {seconds} | {ratio} | {kept_ratio} | {100 * row['of_gemm']:.0f} % |"


def _spread(median: float, extremes: list[float], digits: int) -> str:
    low, high = extremes
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _notes(record: dict[str, Any]) -> Iterator[str]:
    film = record["film"]
    yield (
        f"- {film['frames']} frames of a latent interpolation, widths {film['widths']}: {film['before']:.1f} s before, "
        f"{film['after']:.1f} s after ({film['before'] / film['after']:.1f} times)."
    )
    for memory in record.get("memory", []):
        yield (
            f"- Memory at {memory['side']} x {memory['side']}, {memory['precision']}: {memory['peak']:.0f} MiB in all, "
            f"{memory['growth']:.0f} beyond weights, picture and lines."
        )
    for device, speed in (("CPU", record["cpu"]), ("GPU", record.get("gpu"))):
        if speed is None:
            continue
        yield f"- {device}, largest errors relative to float64, and 8-bit values within 1:"
        for title, errors in {
            **{f"widths {w}": e for w, e in speed["gate"].items()},
            "`alpine`": speed["trained"],
        }.items():
            each = (f"{p} {relative:.1e}, {100 * within:.1f} %" for p, (relative, within) in errors.items())
            yield f"  {title}: {'; '.join(each)}."
        for precision, reason in speed["refused"].items():
            yield f"- {device}, {precision} is not timed: {reason}."


def training_table(machine: dict[str, Any], found: dict[str, Any]) -> str:
    """The results of `measure_training` as Markdown."""
    device = machine.get("gpu_name", f"{machine['processor']}, {machine['threads']} threads")
    lines = [
        f"Training on {device}, torch {machine['torch']}, {machine['date']}.",
        "",
        "| milliseconds | batch | | Gmain | Greg | Dmain | Dreg | rest of a step | images per second | peak MiB |",
        "| - | - | - | - | - | - | - | - | - | - |",
    ]
    for case in found["cases"]:
        batch = str(case["batch"]) + (f" in micro-batches of {case['micro_batch']}" if case["micro_batch"] else "")
        for mode in ("eager", "graph"):
            if mode in case:
                ms = case[mode]["ms"]
                times = " | ".join(
                    f"{ms[p]:.1f}" if p in ms else "" for p in ("Gmain", "Greg", "Dmain", "Dreg", "rest")
                )
                peak = f"{case['peak']:.0f}" if "peak" in case else ""
                lines.append(
                    f"| {case['name']} | {batch} | {mode} | {times} | {case[mode]['images_per_second']:.1f} | {peak} |"
                )
        if "refused" in case:
            lines.append(f"| {case['name']} | {batch} | no graph: {case['refused']} | | | | | | | |")
    lines.append("")
    if not found["gate"]:
        lines.append("- The steps were not compared with the published ones, whose numbers come with the repository.")
    for mode, precisions in found["gate"].items():
        each = (f"{name} {loss:.1e}, {gradient:.1e}" for name, (loss, gradient) in precisions.items())
        lines.append(f"- {mode}: largest errors of losses and of gradients of the published steps: {'; '.join(each)}.")
    return "\n".join(lines)
