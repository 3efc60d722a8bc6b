"""Worker processes: they end with the process that started them, and a crash costs only the item that caused it.

Standard library and the vocabulary only, so that data preparation can use it as well.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from mer_bench.processes import find_process, this_process

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_workers(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    *,
    crashed: Callable[[Item], Result],
    ahead: int = 1,
    in_order: bool = False,
    prepare: Callable[[], None] | None = None,
    started: Callable[[Item], None] = lambda item: None,
    waiting: Callable[[], None] = lambda: None,
) -> Generator[tuple[Item, Result], None, None]:
    """Apply a function to items in worker processes; yields each item with its result.

    When a worker dies (out of memory, or a damaged file that crashes a decoder), every item that was in progress is
    tried again by itself, in fresh workers.

    Args:
        function: A picklable function; its exceptions are raised here.
        items: Picklable items, read as they are needed.
        workers: Number of processes.
        crashed: Gives the result of an item whose worker died twice.
        ahead: Items per worker that are handed over before earlier results are back.
        in_order: Yield in the order of ``items``, and not as results arrive.
        prepare: Called once in each new worker.
        started: Called here with each item that is handed over.
        waiting: Called here several times per second.
    """
    rest = iter(items)
    again: deque[Item] = deque()  # were in progress when a worker died
    retry = False  # whether the one item in progress was in progress when a worker died
    running: dict[Future[Result], Item] = {}
    others = set(multiprocessing.active_children())
    pool = _pool(workers, prepare)
    try:
        while True:
            if not running:
                retry = bool(again)
            if retry:
                following = [] if running else [again.popleft()]
            else:
                following = list(islice(rest, ahead * workers - len(running)))
            for item in following:
                running[_submit(pool, function, item)] = item
                started(item)
            if not running:
                return
            done, _ = wait(list(running)[:1] if in_order else running, timeout=0.2, return_when=FIRST_COMPLETED)
            waiting()
            broken = False
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    broken = True
                else:
                    yield running.pop(future), future.result()
            if broken:
                pool.shutdown(cancel_futures=True)
                pool = _pool(workers, prepare)
                if retry:
                    item = running.popitem()[1]
                    yield item, crashed(item)
                else:
                    again.extend(running.values())
                    running.clear()
    finally:
        if running:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _pool(workers: int, prepare: Callable[[], None] | None) -> ProcessPoolExecutor:
    """Fresh workers; they are spawned, since the fork of a process that has threads may hang."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(prepare,))


def _submit(pool: ProcessPoolExecutor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    try:
        return pool.submit(function, item)
    except BrokenProcessPool as error:  # a worker has died since the last result was taken
        broken: Future[Result] = Future()
        broken.set_exception(error)
        return broken


def _begin_worker(prepare: Callable[[], None] | None) -> None:
    """Leave Ctrl-C to the parent, which ends its workers, and end with the parent, whatever killed it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        _end_worker()

    threading.Thread(target=follow, daemon=True).start()
    if prepare is not None:
        prepare()


_command: subprocess.Popen[bytes] | None = None  #: the command that this worker waits for


def _end_worker(*_: object) -> None:
    """End this worker at once, and all processes of the command that it waits for."""
    if _command is not None:
        _kill_group(_command.pid)
    os._exit(1)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


#: Variable with the name of the process with which a command ends, see :func:`follow_parent`.
PARENT = "MER_BENCH_PARENT"


def run_command(command: Sequence[str]) -> tuple[int, str]:
    """Run a command whose processes end with this worker; returns its exit code and what it wrote to stderr.

    A worker that is killed cannot end them: the command has to call :func:`follow_parent`.
    """
    global _command
    signal.signal(signal.SIGTERM, _end_worker)
    with tempfile.TemporaryFile() as written:  # a pipe would stay open as long as any process of the command
        streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": written}
        environment = os.environ | {PARENT: str(this_process())}
        _command = subprocess.Popen(command, start_new_session=True, env=environment, **streams)
        code = _command.wait()
        if code != 0:
            _kill_group(_command.pid)  # those that wait for one that was killed
        _command = None
        written.seek(0)
        return code, written.read().decode(errors="replace")


def follow_parent() -> None:
    """In a command: end with the worker that runs it, whatever kills that; and let the same command's children do so.

    Lightning starts the other ranks of a run by the same command. They end some seconds after the first one, which
    leaves them time to end by themselves.
    """
    parent = find_process(os.environ.get(PARENT, ""))
    os.environ[PARENT] = str(this_process())
    if parent is None:
        return

    def follow() -> None:
        while not parent.ended:
            time.sleep(0.5)
        if os.getpgrp() == os.getpid():
            _kill_group(os.getpid())
        time.sleep(5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
