"""A chat server that answers in one thread and delivers in others: PORT [OPTION…]. Each option is one way to be late.

- `hub=MS`: what clients say goes through the queue of one hub thread, which delivers it this many milliseconds later.
- `writers=MS`: each client has a queue and a thread that writes to it that late; PING is answered at once.
- `after`: these milliseconds begin when all clients that are logged in have had a PING answered since: however busy the
  machine is, messages come after the answers. At most five seconds pass until they begin.
- `departures=MS`: the others hear of a departure that many milliseconds later.
- `SLOW TEXT` is delivered as `MSG TEXT` is, but 200 milliseconds later, or 10 after the next `MSG`; `held`: right before that.
- `joins`: the others hear of a login at once, before it is answered.
- `greets`: a client is greeted when it connects. `strict`: a client that does not log in first is disconnected.
- `DIE MS` ends the process that many milliseconds later; `MUTE` keeps it from answering PING.
- `behind`: what clients say comes to each client with the answer to its next PING, behind it.
- `once`: only the first thing that clients say is delivered.
- `unended`: what clients say is delivered without its line end.
- `shouts`: what clients say is delivered in capitals. `forgets=NAME`: nothing is delivered to this client.
- `prompts`: `> ` follows the answers to each line.
- `raw=HEX`: `WAVE` is answered with these bytes once more has come from the client, which is handled afterwards.
- `errs`: unknown lines are answered with `ERR unknown`. `echoes`: `OK` also answers messages; `acks`: before that is
  delivered.
"""

from __future__ import annotations

import asyncio
import os
import queue
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack


class Hub:
    def __init__(self, port: int, options: dict[str, str]) -> None:
        self.options = options
        self.has_told = False
        self.behind: dict[socket.socket, list[bytes]] = {}
        self.slow: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.people: dict[str, Callable[[str], None]] = {}
        self.work: queue.Queue[tuple[Callable[[], float], Callable[[], None]]] = queue.Queue()
        self.answers: Counter[str] = Counter()
        self.answered = threading.Condition(self.lock)
        self.listener = socket.create_server(("127.0.0.1", port))

    def delay_s(self, option: str) -> float:
        return float(self.options.get(option) or 0) / 1000

    def due_s(self, option: str) -> Callable[[], float]:
        """When something that happens now is due; waits until that is known."""
        delay_s, now_s, answers = self.delay_s(option), time.monotonic(), self.answers.copy()

        def known() -> float:
            if "after" not in self.options:
                return now_s + delay_s
            with self.lock:
                self.answered.wait_for(
                    lambda: all(self.answers[name] > answers[name] for name in self.people), 5
                )
            return time.monotonic() + delay_s

        return known

    def serve(self) -> None:
        threading.Thread(target=self.run, args=(self.work,), daemon=True).start()
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self.converse, args=(sock,), daemon=True).start()

    def run(self, work: queue.Queue[tuple[Callable[[], float], Callable[[], None]]]) -> None:
        while True:
            due_s, do = work.get()
            time.sleep(max(0.0, due_s() - time.monotonic()))
            do()

    def writer(self, sock: socket.socket) -> Callable[[str], None]:
        end = b"" if "unended" in self.options else b"\n"

        def write(text: str) -> None:
            try:
                sock.sendall(text.encode() + end)
            except OSError:
                pass

        if "behind" in self.options:
            self.behind[sock] = []
            return lambda text: self.behind[sock].append(text.encode() + end)
        if "writers" not in self.options:
            return write
        own: queue.Queue[tuple[Callable[[], float], Callable[[], None]]] = queue.Queue()
        threading.Thread(target=self.run, args=(own,), daemon=True).start()
        return lambda text: own.put((self.due_s("writers"), lambda: write(text)))

    def converse(self, sock: socket.socket) -> None:
        name, write = "", self.writer(sock)
        # A client that has logged in leaves also where its connection is lost, and before it is closed, after which another
        # script can begin.
        with sock, sock.makefile("rb") as lines, ExitStack() as last:
            if "greets" in self.options:
                sock.sendall(b"welcome\n")
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                verb, _, rest = line.decode().strip().partition(" ")
                if verb == "LOGIN":
                    with self.lock:
                        taken = rest in self.people
                        if not taken:
                            name, self.people[rest] = rest, write
                            last.callback(self.leaves, name)
                    if not taken and "joins" in self.options:
                        self.deliver(name, f"INFO {name} joined")
                    sock.sendall(b"ERR username-taken\n" if taken else b"OK\n")
                elif not name and "strict" in self.options:
                    break
                elif verb == "DIE":
                    threading.Timer(float(rest) / 1000, os._exit, (7,)).start()
                elif verb == "WAVE":
                    select.select([sock], [], [], 5)
                    sock.sendall(bytes.fromhex(self.options.get("raw", "")))
                elif verb == "MUTE":
                    self.options["mute"] = ""
                elif verb == "PING" and "mute" in self.options:
                    pass
                elif verb == "PING":
                    with self.lock:
                        behind, self.behind[sock] = self.behind.get(sock, []), []
                    sock.sendall(f"PONG {rest}".rstrip().encode() + b"\n" + b"".join(behind))
                    with self.lock:
                        self.answers[name] += 1
                        self.answered.notify_all()
                elif verb == "MSG":
                    if "held" in self.options:
                        self.deliver_slow()
                    if "acks" in self.options:
                        sock.sendall(b"OK\n")
                    self.tell_others(name, f"MSG {name} {rest}", "hub")
                    if "echoes" in self.options:
                        sock.sendall(b"OK\n")
                    if self.slow:
                        threading.Timer(0.01, self.deliver_slow).start()
                elif verb == "SLOW":
                    self.slow.append((name, f"MSG {name} {rest}"))
                    threading.Timer(0.2, self.deliver_slow).start()
                elif "errs" in self.options:
                    sock.sendall(b"ERR unknown\n")
                if "prompts" in self.options:
                    sock.sendall(b"> ")

    def deliver_slow(self) -> None:
        with self.lock:
            held, self.slow = self.slow, []
        for name, text in held:
            self.deliver(name, text)

    def leaves(self, name: str) -> None:
        with self.lock:
            del self.people[name]
        self.tell_others(name, f"INFO {name} left", "departures")

    def tell_others(self, name: str, text: str, option: str) -> None:
        if self.has_told and "once" in self.options:
            return
        self.has_told = True
        if "hub" in self.options or option in self.options:
            self.work.put((self.due_s(option), lambda: self.deliver(name, text)))
        else:
            self.deliver(name, text)

    def deliver(self, name: str, text: str) -> None:
        if "shouts" in self.options:
            text = text.upper()
        left_out = {name, self.options.get("forgets")}
        with self.lock:
            others = [write for other, write in self.people.items() if other not in left_out]
        for write in others:
            write(text)


class Tasks:
    """The same with asyncio: each client's queue is drained by its own task; the reader answers PING itself. A message
    comes 250 milliseconds after everyone has been answered a PING."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[str]] = {}
        self.answers: Counter[str] = Counter()
        self.answered = asyncio.Condition()

    async def serve(self, port: int) -> None:
        async with await asyncio.start_server(self.converse, "127.0.0.1", port) as server:
            await server.serve_forever()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, own = "", asyncio.Queue[str]()
        task = asyncio.create_task(self.drain(own, writer))
        while line := await reader.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            if verb == "LOGIN":
                name, self.queues[rest] = rest, own
                writer.write(b"OK\n")
            elif verb == "PING":
                writer.write(b"PONG\n")
                async with self.answered:
                    self.answers[name] += 1
                    self.answered.notify_all()
            elif verb == "MSG":
                for other, outgoing in self.queues.items():
                    if other != name:
                        outgoing.put_nowait(f"MSG {name} {rest}")
        self.queues.pop(name, None)
        task.cancel()
        writer.close()

    async def drain(self, own: asyncio.Queue[str], writer: asyncio.StreamWriter) -> None:
        while True:
            text = await own.get()
            answers = self.answers.copy()
            async with self.answered:
                await self.answered.wait_for(
                    lambda: all(self.answers[name] > answers[name] for name in self.queues)  # noqa: B023
                )
            await asyncio.sleep(0.25)
            writer.write(text.encode() + b"\n")


if __name__ == "__main__":
    chosen = dict(option.partition("=")[::2] for option in sys.argv[2:])
    if "tasks" in chosen:
        asyncio.run(Tasks().serve(int(sys.argv[1])))
    else:
        Hub(int(sys.argv[1]), chosen).serve()
