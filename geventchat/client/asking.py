"""The questions at the door: host, port, name. A wrong answer is explained and the question asked again.

Knows how to ask and what a good answer is; who answers and how it is shown is handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from geventchat.client.address import Address, BadAddress, port_of, split
from geventchat.client.naming import fault, tidy

T = TypeVar("T")

Ask = Callable[[str], Awaitable[str]]
Complain = Callable[[str], None]

DEFAULT_HOST = "localhost"


async def ask_address(ask: Ask, complain: Complain, default_port: int) -> Address:
    """Host and port, the port only if it did not come with the host."""
    host, port = await _until_good(ask, complain, f"Server host (default: {DEFAULT_HOST}): ", _host)
    if port is None:
        question = f"Server port (default: {default_port}): "
        port = await _until_good(ask, complain, question, lambda text: _port(text, default_port))
    return Address(host, port)


async def ask_name(ask: Ask, complain: Complain) -> str:
    """A name that has nothing wrong with it as far as we can tell."""
    while True:
        name = tidy(await ask("Enter your username: "))
        wrong = fault(name)
        if wrong is None:
            return name
        complain(wrong)


async def _until_good(ask: Ask, complain: Complain, question: str, read: Callable[[str], T]) -> T:
    while True:
        answer = await ask(question)
        try:
            return read(answer)
        except BadAddress as why:
            complain(str(why))


def _host(text: str) -> tuple[str, int | None]:
    return split(text) if text.strip() else (DEFAULT_HOST, None)


def _port(text: str, default_port: int) -> int:
    return port_of(text) if text.strip() else default_port
