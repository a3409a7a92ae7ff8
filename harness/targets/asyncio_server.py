"""An asyncio server in this very process, made by a factory: virtual time, the exact fence and faults, without gevent.

Decides whether a factory makes a server, is a main coroutine, or is a whole program. Knows no particular server.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from harness.interception.asyncio_loop import ControlledAsyncioLoop
from harness.interception.faults import Faults
from harness.interception.sockets import SocketPatch
from harness.stage.asyncio_loop import AsyncioLoop, AsyncioTime
from harness.stage.fence import NeverIdle
from harness.stage.kernel import RealSocket, SocketAddress
from harness.stage.target import (
    ONLY,
    RunningServer,
    ServerSpec,
    TargetError,
    UnsupportedSpec,
    ends_the_process,
    reachable,
    require_endpoints,
    require_no_options,
)
from harness.stage.virtual_time import errors_of_threads, started_by_a_server
from harness.targets.application import (
    Application,
    ApplicationTarget,
    function_of,
    made_for_asyncio,
    signals_put_back,
)
from harness.targets.asyncio_program import ProgramThread, UnsupportedLoop


def _takes_spec(factory: Callable[..., Any]) -> bool:
    """Whether it has a parameter for the spec: a required one, or one with this name."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        one.name == "spec" or (one.kind in positional and one.default is one.empty)
        for one in inspect.signature(factory).parameters.values()
    )


def _is_program(factory: Callable[..., Any]) -> bool:
    return inspect.isroutine(function_of(factory)) and not (made_for_asyncio(factory) or _takes_spec(factory))


class InProcessAsyncio(ApplicationTarget):
    """The server that the factory makes on an asyncio loop: a server, any object with close(), or an async context manager.

    The factory can be a coroutine function. One without parameters can be the main coroutine of a program, which does not
    return; and a plain function without parameters is a program, which calls `asyncio.run` itself.
    """

    @contextmanager
    def start(self, spec: ServerSpec, within_s: float) -> Iterator[RunningServer]:
        if asyncio._get_running_loop() is not None:
            raise TargetError(f"{self} cannot be played in a thread whose event loop is running")
        if socket.socket is not RealSocket:
            raise TargetError(
                f"{self} cannot be played where gevent has replaced the standard library's sockets (monkey.patch_all)"
            )
        if not _takes_spec(self._factory):
            require_no_options(spec, self)
        interceptors = self._interceptors
        patch = SocketPatch(interceptors, (RealSocket,)) if interceptors else nullcontext()
        loop = ControlledAsyncioLoop(interceptors) if interceptors else AsyncioLoop()
        # Before the stage looks which threads there are.
        program = ProgramThread(self._factory, loop, within_s) if _is_program(self._factory) else None
        driver = AsyncioTime(loop, within_s)
        in_a_thread = "an exception ended a thread of the server"
        with (
            signals_put_back(),
            started_by_a_server(),
            patch,
            errors_of_threads(lambda error: loop.note_error(error, in_a_thread)),
            ExitStack() as last,
        ):
            try:
                hosted = program or _Held(self._factory, replace(spec, clock=driver.clock), loop)
                self._wait_for_start(hosted, driver, loop)
                server = _AsyncioApplication(hosted, driver, loop, self._faults)
                if not _names_endpoints(hosted.app):
                    require_endpoints(spec, server.addresses)
                last.callback(server.print_unshown_output)
                yield server
                self._stop(hosted, driver, loop)
            except BaseException:
                # The first error explains the others.
                with suppress(TargetError):
                    self._end(program, driver)
                raise
            self._end(program, driver)

    def _wait_for_start(self, hosted: _Held | ProgramThread, driver: AsyncioTime, loop: AsyncioLoop) -> None:
        with self._reporting(loop):
            driver.run_until(lambda: hosted.over or hosted.holds or bool(loop.listening()))
        if isinstance(hosted.error, UnsupportedSpec):
            raise hosted.error
        if isinstance(hosted.error, UnsupportedLoop):
            raise TargetError(f"{self} {hosted.error}")
        if hosted.over:
            raise self._failed("does not start", hosted.error)

    def _stop(self, hosted: _Held | ProgramThread, driver: AsyncioTime, loop: AsyncioLoop) -> None:
        if hosted.over:
            return  # it has died, and a report says so
        hosted.stop()
        with self._reporting(loop):
            driver.run_until(lambda: hosted.over)
        if hosted.error is not None:
            raise self._failed("does not stop", hosted.error)

    def _end(self, program: ProgramThread | None, driver: AsyncioTime) -> None:
        """End the program, the remaining tasks and the loop."""
        try:
            if program is not None:
                program.end()
            driver.end()
        except NeverIdle as never_idle:
            raise TargetError(f"{self}: {never_idle}") from never_idle

    def _failed(self, what: str, error: BaseException | None) -> TargetError:
        if error is None:
            return TargetError(f"{self} {what}: it ended before it listened")
        text = "".join(traceback.format_exception(error))
        return TargetError(f"{self} {what}: {error!r}", text)

    @contextmanager
    def _reporting(self, loop: AsyncioLoop) -> Iterator[None]:
        try:
            yield
        except NeverIdle as never_idle:
            raise TargetError(f"{self}: {never_idle}", loop.report()) from never_idle


class _Held:
    """A server and the one task that starts, holds and stops it, because the same task must enter and leave an `async with`."""

    def __init__(self, factory: Callable[..., Any], spec: ServerSpec, loop: AsyncioLoop) -> None:
        self.app: Any = None
        self.holds = False
        """Whether the server has started; a main coroutine never says so."""
        self.error: BaseException | None = None
        self._leave: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run(factory, (spec,) if _takes_spec(factory) else ()))

    @property
    def over(self) -> bool:
        return self._task.done()

    def stop(self) -> None:
        """Let it stop in order; a main coroutine is cancelled, as Ctrl-C does in `asyncio.run`."""
        if not self.holds:
            self._task.cancel()
        elif not self._leave.done():
            self._leave.set_result(None)

    async def _run(self, factory: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            app = factory(*arguments)
            if inspect.isawaitable(app):
                app = await app
            await self._hold(app)
        except SystemExit as exit:
            if not ends_the_process(exit):
                raise
            self.error = exit  # it would end the test run
        except Exception as error:
            self.error = error
            raise

    async def _hold(self, app: Any) -> None:
        if hasattr(app, "__aenter__") and not isinstance(app, asyncio.AbstractServer):
            async with app as entered:
                await self._until_stopped(app if entered is None else entered)
            return
        if isinstance(app, asyncio.AbstractServer):
            await app.start_serving()
        try:
            await self._until_stopped(app)
        finally:
            closed = app.close() if hasattr(app, "close") else None
            if inspect.isawaitable(closed):
                await closed

    async def _until_stopped(self, app: Any) -> None:
        self.app = app
        self.holds = True
        await self._leave


class _AsyncioApplication(Application):
    def __init__(
        self, hosted: _Held | ProgramThread, driver: AsyncioTime, loop: AsyncioLoop, faults: Faults | None
    ) -> None:
        super().__init__(driver, _addresses(hosted.app, loop), loop.report, driver.take_errors, faults)
        self._hosted = hosted

    def alive(self, patience_s: float = 0.0) -> bool:
        return not self._hosted.over

    def how_it_ended(self) -> str:
        error = self._hosted.error
        return "ended by itself" if error is None else f"ended with {error!r}"


def _names_endpoints(app: Any) -> bool:
    return isinstance(getattr(app, "addresses", None), Mapping)


def _addresses(app: Any, loop: AsyncioLoop) -> Mapping[str, SocketAddress]:
    if _names_endpoints(app):
        found: Mapping[str, Any] = app.addresses
    else:
        sockets = getattr(app, "sockets", None) or loop.listening()
        name = sockets[0].getsockname() if sockets else ()
        found = {ONLY: name if isinstance(name, str) else name[:2]} if sockets else {}
    if not found:
        raise TargetError(f"{app!r} has started but listens nowhere")
    return {endpoint: reachable(address) for endpoint, address in found.items()}
