"""Worker processes: they end with the process that started them, and a crash costs only the item that caused it.

Standard library and the vocabulary only, so that data preparation can use it as well.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

from mer_bench.errors import FailedRun
from mer_bench.processes import find_process, this_process

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Variables by which libraries of linear algebra, once imported, start threads, which a fork would not keep.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Workers:
    """Worker processes, which begin when they are first needed; a context that ends them when it is left.

    With ``preload`` they are forked, where Linux allows it, from a process of their own that has imported that module:
    a worker more then costs a few pages of memory and no imports. Elsewhere they are spawned, since the fork of a
    process that has threads may hang.

    Args:
        number: Number of processes.
        prepare: Called once in each new worker, with :attr:`messages`.
        preload: Name of a module, whose import starts no thread and touches no GPU.
    """

    def __init__(self, number: int, prepare: Callable[[Any], None] | None = None, preload: str = "") -> None:
        self.number, self.prepare, self.preload = number, prepare, preload
        self._pool: ProcessPoolExecutor | None = None
        self._open: set[Future[Any]] = set()
        self._others: set[Any] = set()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers: at once, if what they do is no longer wanted."""
        if self._open:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
        self._end()

    @cached_property
    def context(self) -> Any:
        """How processes begin."""
        if not self.preload or not sys.platform.startswith("linux"):
            return multiprocessing.get_context("spawn")
        from multiprocessing import forkserver

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self.preload])
        environment = dict(os.environ)
        os.environ.update(dict.fromkeys(THREADS, "1"))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is left to this process
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.environ.clear()
            os.environ.update(environment)
        return context

    @cached_property
    def messages(self) -> Any:
        """A queue into which workers put what they report."""
        return self.context.Queue()

    def ask(self, function: Callable[..., Result], *given: Any) -> Result:
        """What a picklable function returns in a worker; its exceptions are raised here.

        Raises:
            FailedRun: the worker died.
        """
        try:
            return self._submit(function, *given).result()
        except BrokenProcessPool as error:
            self._end()
            raise FailedRun("a worker process died before anything was trained (out of memory?)") from error

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        crashed: Callable[[Item], Result],
        ahead: int = 1,
        in_order: bool = False,
        started: Callable[[Item], None] = lambda item: None,
        waiting: Callable[[], None] = lambda: None,
    ) -> Generator[tuple[Item, Result], None, None]:
        """Apply a function to items in the workers; yields each item with its result.

        When a worker dies (out of memory, or a damaged file that crashes a decoder), every item that was in progress is
        tried again by itself, in fresh workers.

        Args:
            function: A picklable function; its exceptions are raised here.
            items: Picklable items, read as they are needed.
            crashed: Gives the result of an item whose worker died twice.
            ahead: Items per worker that are handed over before earlier results are back.
            in_order: Yield in the order of ``items``, and not as results arrive.
            started: Called here with each item that is handed over.
            waiting: Called here several times per second.
        """
        rest = iter(items)
        again: deque[Item] = deque()  # were in progress when a worker died
        retry = False  # whether the one item in progress was in progress when a worker died
        running: dict[Future[Result], Item] = {}
        while True:
            if not running:
                retry = bool(again)
            if retry:
                following = [] if running else [again.popleft()]
            else:
                following = list(islice(rest, ahead * self.number - len(running)))
            for item in following:
                running[self._submit(function, item)] = item
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
                self._end()
                if retry:
                    item = running.popitem()[1]
                    yield item, crashed(item)
                else:
                    again.extend(running.values())
                    running.clear()

    def _submit(self, function: Callable[..., Result], *given: Any) -> Future[Result]:
        if self._pool is None:
            self._others = set(multiprocessing.active_children())
            arguments = (self.prepare, self.prepare and self.messages, dict(os.environ))
            self._pool = ProcessPoolExecutor(self.number, self.context, initializer=_begin_worker, initargs=arguments)
        try:
            with _without_script():  # a worker may begin here
                future = self._pool.submit(function, *given)
        except BrokenProcessPool as error:  # a worker has died since the last result was taken
            future = Future()
            future.set_exception(error)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


@contextmanager
def _without_script() -> Iterator[None]:
    """Let a process that begins here not run the script of this one again: what workers do stands in modules."""
    script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _begin_worker(prepare: Callable[[Any], None] | None, messages: Any, environment: Mapping[str, str]) -> None:
    """Leave Ctrl-C to the parent, which ends its workers, and end with the parent, whatever killed it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        _end_worker()

    threading.Thread(target=follow, daemon=True).start()
    for name in set(THREADS) - set(environment):  # a process that forks workers has the environment of its own start
        os.environ.pop(name, None)
    os.environ.update(environment)
    tempfile.tempdir = None  # may have been looked up there
    if prepare is not None:
        prepare(messages)


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
