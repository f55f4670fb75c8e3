"""Independent pieces of work on the CPU's cores."""

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
    """Call `work(item)` for all items, each on one of `workers` threads; torch's threads are shared out evenly.

    One thread of its own per core beats all threads on one operation: there is no waiting for each other, which
    costs most when the machine has other work to do. Torch releases Python's lock while it computes.

    Args:
        work: returns a number for `after`.
        items: few are begun ahead, so that little is left to do when `after` raises.
        workers: 1 works in this thread.
        after: called in this thread after every item with its number. What it or `work` raises is raised here
            once the items under way are done; no further item is begun.
    """
    if workers <= 1:
        for item in items:
            after(work(item))
        return

    # The grad and inference modes belong to a thread: the workers take over those of the caller.
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
        torch.set_num_threads(threads)  # new threads of the process start with the last number set
