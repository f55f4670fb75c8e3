"""Independent work items on the CPU's cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

import torch

_Item = TypeVar("_Item")


def run_parallel(
    work: Callable[[_Item], int], items: Iterable[_Item], workers: int, after: Callable[[int], None]
) -> None:
    """Call `work(item)` for all items on `workers` threads, which share torch's threads evenly.

    One item per core beats all threads on one operation: the threads never wait for each other, which costs most when
    the machine has other work to do. Torch releases Python's lock while it computes.

    Args:
        work: returns a number for `after`.
        items: only few are started ahead, so that little remains to be done when `after` raises.
        workers: 1 works in the calling thread.
        after: called in the calling thread after every item with its number. An exception from it or from `work` is
            raised once the items under way are done; no further item is started.
    """
    if workers <= 1:
        for item in items:
            after(work(item))
        return

    # Grad and inference modes belong to a thread: pass the caller's on.
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def run(item: _Item) -> int:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return work(item)

    threads = torch.get_num_threads()
    share = max(1, threads // workers)
    pool = ThreadPoolExecutor(workers, "creps", initializer=torch.set_num_threads, initargs=(share,))
    waiting = iter(items)
    running = {pool.submit(run, item) for item in islice(waiting, 2 * workers)}
    try:
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                after(future.result())
                running |= {pool.submit(run, item) for item in islice(waiting, 1)}
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)  # new threads of the process start with the number set last
