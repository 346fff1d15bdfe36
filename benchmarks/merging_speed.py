"""What merging costs: the trim, one update of a streaming merge after 3 and after 100 checkpoints, and its memory.

    python benchmarks/merging_speed.py                                  # seconds: small matrices
    python benchmarks/merging_speed.py --shapes 2048x2048x4             # four matrices of that shape
    python benchmarks/merging_speed.py --shapes 0.5B --folder /big/disk --write  # those of a model of that size
    python benchmarks/merging_speed.py --shapes 3B --folder /big/disk --write    # needs some 120 GB of disk

Disk: 48 bytes per entry for the accumulators of two counts and the new state of one, and 2 for each of the
``--files`` + 1 checkpoints: 21 GB for 0.5B, 76 GB for 1.5B. Every part runs in a process of its own, so that the peak
of its resident memory is its own. Checkpoints are read from safetensors files, and accumulators live in files.
*Argsort TIES of 8* is the usual batch form: it reads 8 checkpoints tensor by tensor, trims each by a full sort, elects
and averages; it writes nothing. For small matrices the flushing of files weighs more than the arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from environments import markdown, tell, write_page
from torch import Tensor

from gtr_agents.merging import ShardedState, StreamingTies, write_shards
from gtr_agents.merging.trim import kth_largest, n_kept
from gtr_agents.seeding import torch_generator

DATA = Path("docs/results_data/merging")
PAGE = Path("docs/merging.md")
MARKS = ("<!-- speed: begin -->", "<!-- speed: end -->")
DENSITY = 0.8

# (rows, columns, how many): the linear layers of the language models of Qwen2.5-0.5B, Qwen2.5-1.5B and Qwen2.5-VL-3B.
PRESETS = {
    "small": [(256, 256, 4), (256, 1024, 3)],
    "0.5B": [(896, 896, 48), (128, 896, 48), (4864, 896, 72)],
    "0.5B-quarter": [(896, 896, 12), (128, 896, 12), (4864, 896, 18)],  # a quarter of its layers
    "1.5B": [(1536, 1536, 56), (256, 1536, 56), (8960, 1536, 84)],
    "3B": [(2048, 2048, 72), (256, 2048, 72), (11008, 2048, 108)],
}


def shapes(text: str) -> list[tuple[int, int, int]]:
    """Read the name of a preset, or ``ROWSxCOLUMNSxCOUNT`` separated by commas."""
    if text in PRESETS:
        return PRESETS[text]
    parts = [part.split("x") for part in text.split(",")]
    return [(int(rows), int(columns), int(count)) for rows, columns, count in parts]


def checkpoint(text: str, number: int) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors of a made-up checkpoint; 0 is the base. Later ones move on from it step by step."""
    for group, (rows, columns, count) in enumerate(shapes(text)):
        for layer in range(count):
            name = f"layers.{layer}.{group}.weight"
            start = torch.randn(rows, columns, generator=torch_generator(0, name))
            if number:
                common = torch.randn(rows, columns, generator=torch_generator(1, name))
                own = torch.randn(rows, columns, generator=torch_generator(2, name, number))
                start += 0.001 * (common + own)
            yield name, start.bfloat16()


def n_entries(text: str) -> int:
    """How many numbers a checkpoint has."""
    return sum(rows * columns * count for rows, columns, count in shapes(text))


def timed(function: Callable[[], Any]) -> float:
    """Run once; seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# --- what is measured, each in its own process


def trims(arguments: argparse.Namespace) -> dict[str, Any]:
    """The threshold of one matrix, the largest of all, by four exact methods."""
    rows, columns, _ = max(shapes(arguments.shapes), key=lambda shape: shape[0] * shape[1])
    vector = torch.randn(rows, columns, generator=torch_generator(0, "trim"))
    n, k = vector.numel(), n_kept(vector.numel(), DENSITY)
    methods: dict[str, Callable[[], Tensor]] = {
        "histogram": lambda: kth_largest(lambda: [vector], k),
        "kthvalue": lambda: vector.abs().flatten().kthvalue(n - k + 1).values,
        "topk": lambda: vector.abs().flatten().topk(k).values[-1],
        "argsort": lambda: vector.abs().flatten()[vector.abs().flatten().argsort(descending=True)[k - 1]],
    }
    found = {name: float(method()) for name, method in methods.items()}
    assert len(set(found.values())) == 1, found
    seconds = {
        name: statistics.median(timed(method) for _ in range(arguments.rounds)) for name, method in methods.items()
    }
    return {"shape": [rows, columns], "seconds": seconds}


def streaming(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time adding to accumulators on disk that few and many checkpoints have gone into, in turns, and the read-out."""
    base = ShardedState(arguments.folder / "0")
    streams = {
        count: StreamingTies(base, DENSITY, folder=arguments.folder / f"sums-{count}") for count in arguments.counts
    }

    def add(count: int) -> None:
        # How many lie behind is what the accumulators and the list of members know; the files take turns.
        ties = streams[count]
        ties.add(ShardedState(arguments.folder / str(1 + len(ties.members) % arguments.files)))

    for count, ties in streams.items():
        while len(ties.members) < count - arguments.rounds:
            add(count)
    peak_before = peak_bytes()
    spent: dict[int, list[float]] = {count: [] for count in streams}
    read: dict[int, list[float]] = {count: [] for count in streams}
    for _ in range(arguments.rounds):
        for count, ties in streams.items():  # in turns, so that what else the machine does hits all alike
            spent[count].append(timed(lambda count=count: add(count)))  # type: ignore[misc]
            read[count].append(timed(lambda ties=ties: [None for _ in ties.merged_tensors()]))  # type: ignore[misc]
    return {
        "add": {count: statistics.median(values) for count, values in spent.items()},
        "merged": {count: statistics.median(values) for count, values in read.items()},
        "rounds": spent,
        "peak_bytes": dict.fromkeys(streams, peak_bytes()),
        "peak_bytes_before_the_rounds": peak_before,
    }


def argsort_batch(arguments: argparse.Namespace) -> dict[str, Any]:
    """TIES of 8 checkpoints at once, tensor by tensor, trimmed by sorting."""
    base = ShardedState(arguments.folder / "0")
    checkpoints = [ShardedState(arguments.folder / str(1 + n % arguments.files)) for n in range(8)]

    def trimmed(vector: Tensor) -> Tensor:
        order = vector.abs().flatten().argsort(descending=True)
        mask = torch.zeros(vector.numel(), dtype=torch.bool)
        mask[order[: n_kept(vector.numel(), DENSITY)]] = True
        return vector * mask.reshape(vector.shape)

    def merge() -> None:
        for name in base:
            stack = torch.stack([trimmed(c[name].float() - base[name].float()) for c in checkpoints])
            agrees = stack.sign() == stack.sum(0).sign()
            mean = (stack * agrees).sum(0) / agrees.sum(0).clamp(min=1)
            (base[name].float() + mean).to(base[name].dtype)

    return {"seconds": timed(merge), "peak_bytes": {8: peak_bytes()}}


def peak_bytes() -> int:
    """The peak of this process's resident memory; pages of mapped files count too."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


PARTS = {"trims": trims, "streaming": streaming, "argsort": argsort_batch}


# --- running and writing


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the checkpoints, then measure every part in its own process."""
    for number in range(arguments.files + 1):
        if not (arguments.folder / str(number)).exists():
            tell(f"writing checkpoint {number}")
            write_shards(arguments.folder / str(number), checkpoint(arguments.shapes, number))
    for old in arguments.folder.glob("sums-*"):
        shutil.rmtree(old)
    results: dict[str, Any] = {
        "shapes": arguments.shapes,
        "entries": n_entries(arguments.shapes),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
    }
    for part in PARTS:
        tell(part)
        options = [f"--counts={','.join(map(str, arguments.counts))}", f"--rounds={arguments.rounds}"]
        options += [f"--folder={arguments.folder}", f"--shapes={arguments.shapes}", f"--files={arguments.files}"]
        command = [sys.executable, __file__, f"--part={part}", *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own script
        results[part] = json.loads(done.stdout)
    return results


def tables(data: dict[str, Any]) -> str:
    """The measurements of one set of shapes."""
    seconds, stream, batch = data["trims"]["seconds"], data["streaming"], data["argsort"]
    rows, columns = data["trims"]["shape"]
    fastest = seconds["histogram"]
    trim_rows = [[name, f"{1000 * spent:.1f}", f"{spent / fastest:.1f}"] for name, spent in seconds.items()]
    counts = list(stream["add"])
    first = stream["add"][counts[0]]
    stream_rows = [
        [
            f"streaming, {count} checkpoints",
            f"{stream['add'][count]:.2f}",
            f"{stream['merged'][count]:.2f}",
            f"{stream['add'][count] / first:.2f}",
            f"{stream['peak_bytes'][count] / 2**20:.0f}",
        ]
        for count in counts
    ]
    whole = stream["add"][counts[-1]] + stream["merged"][counts[-1]]
    batch_row = ["argsort TIES of 8", f"{batch['seconds']:.2f}", "", "", f"{batch['peak_bytes']['8'] / 2**20:.0f}"]
    return "\n\n".join(
        [
            f"### {data['shapes']}: {data['entries'] / 1e6:,.0f} million entries",
            f"torch {data['torch']}, {data['threads']} thread(s), {data['cores']} cores.",
            markdown([f"threshold of {rows} x {columns}", "ms", "times the histogram"], trim_rows),
            markdown(["update", "add, s", "merged, s", "times the first", "peak MiB"], [*stream_rows, batch_row]),
            f"An argsort TIES of 8 takes {batch['seconds'] / whole:.1f} times as long as `add` and `merged` together.",
        ]
    )


def main() -> None:
    """Measure and write, or measure one part for another process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="small", help=f"{', '.join(PRESETS)}, or ROWSxCOLUMNSxCOUNT,...")
    parser.add_argument("--folder", type=Path, help="where checkpoints and accumulators lie; a temporary one if unset")
    parser.add_argument("--files", type=int, default=4, help="how many different checkpoints are written")
    parser.add_argument("--counts", default="3,100", help="numbers of checkpoints after which an update is timed")
    parser.add_argument("--rounds", type=int, default=3, help="measurements whose median is told")
    parser.add_argument("--write", action="store_true", help="keep the data and write docs/merging.md")
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.counts = [int(count) for count in arguments.counts.split(",")]
    if arguments.part:
        sys.stdout.write(json.dumps(PARTS[arguments.part](arguments)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        arguments.folder = arguments.folder or Path(temporary)
        results = run(arguments)
    if arguments.write:
        DATA.mkdir(parents=True, exist_ok=True)
        (DATA / f"speed-{arguments.shapes}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        write_page(PAGE, report(DATA), MARKS)
    sys.stdout.write(tables(results) + "\n")


def report(data: Path) -> str:
    """The tables of all shapes that were measured."""
    return "\n\n".join(tables(json.loads(path.read_text())) for path in sorted(data.glob("speed-*.json")))


if __name__ == "__main__":
    main()
