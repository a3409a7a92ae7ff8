"""Which module can import which: every arrow in docs/architecture.md."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from pathlib import Path

import pytest

from geventchat.dialects import ALL_DIALECTS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "geventchat"
PATHS = sorted(PACKAGE.rglob("*.py"))
SOCKETS = ("gevent", "greenlet", "socket", "select", "threading", "time")
EACH_MODULE = pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(PACKAGE)))


@cache
def imported(path: Path) -> set[str]:
    """Every name that a file imports, anywhere in it, for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it points"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def inside(*parts: str) -> list[Path]:
    """The files in these folders, and these files."""
    found = [path for path in PATHS for part in parts if path.is_relative_to(PACKAGE / part)]
    assert found, parts
    return found


def offenders(paths: list[Path], *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in sorted(imported(path))
        for word in forbidden
        if name == word or name.startswith(word + ".")
    ]


def geventchat_modules(*parts: str) -> list[str]:
    return [f"geventchat.{part}" for part in parts]


def strays(paths: list[Path], *allowed: str) -> list[str]:
    """The imports of other parts of geventchat than these."""
    prefixes = geventchat_modules(*allowed)
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in sorted(imported(path))
        if name.split(".")[0] == "geventchat"
        and not any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)
    ]


def test_chat_imports_no_other_part_of_the_server_and_cannot_wait():
    assert not offenders(inside("chat"), *SOCKETS)
    assert not strays(inside("chat"), "chat", "exhaustive")


def test_dialects_import_chat_alone_and_cannot_wait():
    assert not offenders(inside("dialects"), *SOCKETS)
    assert not strays(inside("dialects"), "dialects", "chat", "exhaustive")


def test_a_dialect_imports_no_other_dialect():
    modules = {name: inspect.getmodule(type(dialect)).__name__ for name, dialect in ALL_DIALECTS.items()}
    for name, module in modules.items():
        others = [other for other in modules.values() if other != module]
        path = ROOT / (module.replace(".", "/") + ".py")
        assert len(others) == len(ALL_DIALECTS) - 1, f"{name} shares its module with another dialect"
        assert not offenders([path], *others)


def test_net_imports_nothing_that_composes_it():
    allowed = ("net", "dialects.dialect", "dialects.framing", "chat")
    assert not strays(inside("net"), *allowed, "clock", "exhaustive", "log", "rate", "settings")


def test_the_program_that_hashes_needs_nothing_but_the_standard_library():
    allowed = sys.stdlib_module_names | {"__future__.annotations"}
    assert not [name for name in imported(PACKAGE / "services/scrypt.py") if name not in allowed]


def test_rates_and_the_log_know_nothing_of_the_server():
    assert not strays(inside("rate.py", "exhaustive.py", "clock.py"))
    assert not offenders(inside("rate.py"), *SOCKETS)
    assert not strays(inside("worker.py"))
    assert not offenders(inside("worker.py"), "gevent", "greenlet")
    assert not strays(inside("log.py"), "clock", "rate", "worker")


def test_services_import_neither_net_nor_dialects():
    allowed = ("services", "chat", "clock", "exhaustive", "log", "settings", "worker")
    assert not strays(inside("services"), *allowed)


def test_the_storage_knows_no_event_loop():
    assert not offenders(inside("services/storage"), "gevent", "greenlet")


def test_only_the_storage_in_a_directory_imports_sqlite():
    with_sqlite = inside(
        *(f"services/storage/{name}.py" for name in ("backup", "schema", "sqlite", "writer"))
    )
    assert not offenders([path for path in PATHS if path not in with_sqlite], "sqlite3")


def test_only_the_daemon_and_the_acts_of_operators_import_the_server():
    composers = inside("daemon.py", "server.py", "__init__.py", "admin/acts.py")
    others = [path for path in PATHS if path not in composers]
    assert not offenders(others, *geventchat_modules("server"))


def test_the_admin_socket_and_its_command_know_no_acts():
    assert not strays(inside("admin/protocol.py"))
    assert not strays(inside("admin/listener.py"), "admin.protocol", "log")
    allowed = (
        "admin.protocol",
        "arguments",
        "chat.commands",
        "chat.passwords",
        "chat.text",
        "dialects.verbs",
        "log",
        "password_prompt",
        "processes",
        "settings",
    )
    assert not strays(inside("admin/command.py"), *allowed)


def test_metrics_need_their_package_and_know_nothing_that_composes_them():
    allowed = ("metrics", "net", "chat", "dialects.words", "web.http")
    assert not strays(inside("metrics"), *allowed)
    assert not offenders(inside("metrics"), "gevent", "greenlet")
    others = [path for path in PATHS if path not in inside("metrics")]
    assert not offenders(others, "prometheus_client")


def test_handing_over_and_the_service_manager_know_nothing_of_the_chat():
    assert not strays(inside("handover.py", "systemd.py", "processes.py"), "arguments", "clock", "settings")
    assert not offenders(inside("handover.py", "systemd.py", "processes.py"), "gevent", "greenlet")
    assert not strays(inside("chat/states.py"), "chat", "exhaustive")


def test_what_is_handed_over_knows_neither_the_server_nor_its_process():
    assert not strays(inside("handover_state.py"), "chat", "handover", "net", "settings")


def test_what_an_embedding_program_gets_knows_neither_the_server_nor_its_connections():
    assert not strays(inside("embedding.py"), "chat", "exhaustive", "log")


def test_web_imports_nothing_that_composes_it():
    allowed = ("web", "net", "dialects", "chat", "clock", "exhaustive", "log", "rate", "settings")
    assert not strays(inside("web"), *allowed)


def test_http_and_origins_know_nothing_of_the_chat_and_cannot_wait():
    pure = inside("web/http.py", "web/origins.py")
    assert not strays(pure)
    assert not offenders(pure, *SOCKETS)


def test_one_http_client_is_served_without_knowing_paths_dialects_or_the_chat():
    allowed = ("web.http", "net", "chat.events", "log")
    assert not strays(inside("web/connection.py"), *allowed)


def test_only_websockets_need_the_package_websockets():
    others = [path for path in PATHS if path not in inside("dialects/websocket.py")]
    assert not offenders(others, "websockets")


def test_settings_and_arguments_import_no_sockets():
    assert not offenders(inside("settings.py", "arguments.py"), *SOCKETS)
    allowed = (
        "chat.addresses",
        "chat.events",
        "chat.limits",
        "chat.names",
        "chat.text",
        "dialects",
        "log",
        "web.origins",
    )
    assert not strays(inside("settings.py"), *allowed)
    assert not strays(inside("arguments.py"), "settings")


def test_only_net_the_hashing_server_its_state_embedding_daemon_admin_and_http_connections_import_gevent():
    with_gevent = inside(
        "net",
        "services/passwords.py",
        "server.py",
        "handover_state.py",
        "daemon.py",
        "embedding.py",
        "admin/acts.py",
        "admin/listener.py",
        "web/connection.py",
    )
    assert not offenders([path for path in PATHS if path not in with_gevent], "gevent", "greenlet")


def test_the_client_uses_chat_and_dialects_but_no_part_of_the_server():
    assert not strays(inside("client"), "client", "dialects", "chat", "exhaustive")


def test_the_server_does_not_import_the_harness():
    assert not offenders(PATHS, "harness")


def test_only_the_clock_reads_the_time():
    assert not offenders([path for path in PATHS if path not in inside("clock.py", "client")], "time")


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module, or with an edge to itself (Tarjan)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            at = stack.index(node)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1 or node in graph[node]:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def import_graph() -> dict[str, set[str]]:
    """Which module imports which; `from package import module` is an edge to the module alone."""
    modules = {module_name(path): path for path in PATHS}
    graph: dict[str, set[str]] = {}
    for importer, path in modules.items():
        graph[importer] = edges = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                edges |= {alias.name for alias in node.names} & modules.keys()
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                edges |= {name if name in modules else node.module for name in names} & modules.keys()
    return graph


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_modules_import_each_other_in_a_cycle():
    graph = import_graph()
    assert graph["geventchat.net.connection"] >= {"geventchat.net.delivery", "geventchat.chat.chat"}
    assert graph["geventchat"] >= {"geventchat.server", "geventchat.net.listener"}
    assert not cycles(graph)


def test_the_search_for_cycles_finds_them():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert cycles({"a": {"a"}}) == [["a"]]
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert cycles(graph) == [["d", "e"], ["a", "b", "c"]]


@EACH_MODULE
def test_every_module_has_a_docstring(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text())), "it has no docstring"
