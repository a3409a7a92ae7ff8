"""Settings: their sources, the values that are refused, and the pages generated from their table."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from geventchat.arguments import options_page
from geventchat.settings import (
    SERVICES,
    SETTINGS,
    TABLE,
    Config,
    ConfigError,
    IdleNotice,
    Limits,
    Listen,
    Program,
    RawSetting,
    ServiceDefaults,
    Setting,
    Settings,
    read_listen,
    resolve,
)

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def resolved(
    flags: dict[str, str] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> Settings:
    raw = {key: RawSetting(text, f"--{key}") for key, text in (flags or {}).items()}
    return resolve(raw, environment or {}, file)


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "chat.toml"
        path.write_text(text)
        return path

    return write


def test_flag_overrides_environment_overrides_file_overrides_default(toml):
    file = toml("max-line = 100\nburst = 7\nrate = 3.5\n")
    environment = {"GEVENTCHAT_MAX_LINE": "200", "GEVENTCHAT_BURST": "8"}
    settings = resolved({"max-line": "300"}, environment, file)
    assert (settings["max-line"], settings.resolved["max-line"].source) == (300, "--max-line")
    assert (settings["burst"], settings.resolved["burst"].source) == (8, "GEVENTCHAT_BURST")
    assert (settings["rate"], settings.resolved["rate"].source) == (3.5, str(file))
    assert (settings["max-queue"], settings.resolved["max-queue"].source) == (1_048_576, "default")


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ({"PORT": "5000"}, 5000),
        ({"CHAT_PORT": "5001", "PORT": "5000"}, 5001),
        ({"GEVENTCHAT_PORT": "5002", "CHAT_PORT": "5001", "PORT": "5000"}, 5002),
        ({"CHAT_PORT": "", "PORT": "5000"}, 5000),
        ({}, 4000),
    ],
)
def test_the_port_in_the_environment(environment: dict[str, str], port: int):
    assert resolved(environment=environment).listen == (Listen("line", "0.0.0.0", port),)


# A value of each setting that is not its default: as text, and as it is in Python.
OTHER = {
    "ban-list": ("/etc/bans", "/etc/bans"),
    "admin-socket": ("/run/chat.sock", "/run/chat.sock"),
    "data": ("/srv/chat", "/srv/chat"),
    "greeting": ("Be kind.", "Be kind."),
    "host": ("::1", "::1"),
    "operators": ("alice, Bob", ("alice", "Bob")),
    "listen": ("json://:7", (Listen("json", "", 7),)),
    "idle-notice": ("err", IdleNotice.ERR),
    "log-format": ("json", "json"),
    "log-level": ("error", "error"),
    "log-messages": ("yes", True),
    "reserved-names": ("ann you", ("ann", "you")),
    "proxy-from": ("10.0.0.0/8 ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
    "tls-cert": ("chat.pem", "chat.pem"),
    "tls-key": ("chat.key", "chat.key"),
    "web-origin": ("https://chat.example, [::1]:80", ("https://chat.example", "[::1]:80")),
}


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_every_setting_can_be_set_by_flag_environment_and_file(key: str, toml):
    text, value = OTHER.get(key, ("1234", 1234))
    assert SETTINGS[key].default != value
    assert resolved({key: text})[key] == value
    assert resolved(environment={SETTINGS[key].variable: text})[key] == value
    quoted = (
        f'["{text}"]'
        if key in {"listen", "proxy-from", "reserved-names", "web-origin"}
        else f'"{text}"'
        if not text.isdigit()
        else text
    )
    assert resolved(file=toml(f"{key} = {quoted}\n"))[key] == value
    assert resolved(file=toml(f"{key.replace('-', '_')} = {quoted}\n"))[key] == value


@pytest.mark.parametrize("row", SETTINGS.values(), ids=lambda row: str(row.key))
def test_every_setting_reaches_its_field(row: Setting):
    text, value = OTHER.get(str(row.key), ("1234", 1234))
    settings = resolved({str(row.key): text})
    tables = {"Program": settings.program, "Config": settings.config, "Limits": settings.config.limits}
    expected = (Listen(), *value) if row.key == "listen" else value
    assert getattr(tables[row.table], row.field) == expected


def test_the_defaults_in_python_and_on_the_command_line_are_the_same():
    assert resolved().config == Config()
    assert resolved().program == Program()


WRONG = [
    ("port", "abc"),
    ("port", "-1"),
    ("port", "65536"),
    ("idle-timeout", "-1"),
    ("idle-timeout", "nan"),
    ("idle-timeout", "inf"),
    ("idle-notice", "maybe"),
    ("max-clients", "0"),
    ("max-clients", "1.5"),
    ("max-line", "15"),
    ("max-queue", "1023"),
    ("rate", "-1"),
    ("burst", "0"),
    ("byte-rate", "-0.5"),
    ("login-timeout", "soon"),
    ("log-format", "xml"),
    ("log-level", "loud"),
    ("log-messages", "perhaps"),
    ("host", "two words"),
    ("host", "a" * 64),
    ("listen", "irc://:6667"),
    ("listen", "json:12345"),
    ("listen", "json://host:port"),
    ("listen", "json://[::1"),
    ("listen", "json://[::1]5"),
    ("listen", "json://::1:5"),
    ("listen", "json://:65536"),
    ("listen", "json+ssh://:5"),
    ("listen", "+tls://:5"),
    ("listen", "line+tls+unix:///a"),
    ("listen", "line+tls://:5?key=a"),
    ("listen", "line+tls://:5?cert"),
    ("listen", "line+tls://:5?cert=a&cert=b"),
    ("listen", "line+tls://:5?mode=660"),
    ("listen", "line://:5?cert=a"),
    ("listen", "line+unix://a"),
    ("listen", "line+unix://"),
    ("listen", "line+unix:///a?mode=888"),
    ("listen", "line+unix:///a?mode=1777"),
    ("listen", "line+unix:///" + "a" * 96),
    ("listen", " "),
    ("web-origin", "https://"),
    ("web-origin", "https://chat.example/"),
    ("reserved-names", "you a/b"),
    ("proxy-from", "10.0.0.0/8, proxy.example"),
    ("proxy-from", "10.0.0.0/33"),
    ("greeting", "x" * 513),
    ("greeting", "é" * 257),
    ("greeting", "\u200b"),
    ("greeting", "server-shutdown at noon"),
]


@pytest.mark.parametrize(("key", "text"), WRONG)
def test_a_wrong_value_is_refused_with_its_key_value_type_and_source(key: str, text: str, toml):
    message = f"{key}: {text!r} is not {SETTINGS[key].kind.wanted} (from "
    with pytest.raises(ConfigError) as refused:
        resolved({key: text})
    assert str(refused.value) == f"{message}--{key})"
    assert refused.value.key == key
    with pytest.raises(ConfigError) as refused:
        resolved(environment={SETTINGS[key].variable: text})
    assert str(refused.value) == f"{message}{SETTINGS[key].variable})"
    file = toml(f'{key} = "{text}"\n')
    with pytest.raises(ConfigError) as refused:
        resolved(file=file)
    assert str(refused.value) == f"{message}{file})"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limits(clients=0), "clients: 0 is not a whole number of at least 1"),
        (lambda: Limits(clients=True), "clients: True is not a whole number of at least 1"),
        (lambda: Limits(clients=1.5), "clients: 1.5 is not a whole number of at least 1"),
        (lambda: Limits(queue_bytes=10), "queue_bytes: 10 is not a whole number of bytes, at least 1024"),
        (lambda: Limits(lines_per_s=-1), "lines_per_s: -1 is not a number of lines per second, at least 0"),
        (lambda: Limits(login_s=float("nan")), "login_s: nan is not a number of seconds, at least 0"),
        (lambda: Limits(flush_s="10"), "flush_s: '10' is not a number of seconds, at least 0"),
        (lambda: Limits(lingering=-1), "lingering: -1 is not a whole number of at least 0"),
        (lambda: Config(idle_s=-1.0), "idle_s: -1.0 is not a number of seconds, at least 0"),
        (lambda: Config(idle_notice="info"), "idle_notice: 'info' is not info, err or none"),
        (lambda: Config(data=5), "data: 5 is not a directory"),
        (lambda: Config(greeting=5), "greeting: 5 is not a line of at most 512 bytes"),
        (lambda: Config(greeting="two\nlines"), "greeting: 'two\\nlines' is not a line of at most 512 bytes"),
        (lambda: Config(data="a\0b"), "data: 'a\\x00b' is not a directory"),
        (lambda: Config(log_messages="no"), "log_messages: 'no' is not yes or no"),
        (
            lambda: Config(reserved_names=("a b",)),
            "reserved_names: ('a b',) is not zero or more names, each of",
        ),
        (lambda: Config(reserved_names=[1]), "reserved_names: [1] is not zero or more names, each of"),
        (lambda: Config(listen=()), "listen: () is not one or more of SCHEME://HOST:PORT"),
        (lambda: Config(listen=("json://",)), "listen: ('json://',) is not one or more of SCHEME"),
        (lambda: Program(port=70_000), "port: 70000 is not a port from 0 to 65535"),
        (
            lambda: Listen("irc"),
            "scheme: 'irc' is not line, json, slash, metrics or web, alone or with +tls or +unix",
        ),
        (lambda: Listen("line", "", 70_000), "port: 70000 is not a port from 0 to 65535"),
        (lambda: Listen("line", "a b"), "host: 'a b' is not a host name or an address"),
        (lambda: Listen("line", path="/a"), "path: line has a host and a port instead of '/a'"),
        (lambda: Listen("line+unix", "localhost", path="/a"), "path: line+unix has no host and no port"),
        (lambda: Listen("line+unix"), "path: '' is not an absolute path of at most 96 bytes"),
        (lambda: Listen("line+unix", path="/a", mode=0o1777), "mode: 1023 is not permissions from 0 to 777"),
        (lambda: Listen("line", cert="a"), "cert: line has no certificate"),
        (lambda: Listen("line+tls", key="a"), "cert: missing; a is the key of a certificate"),
        (
            lambda: Config(listen=(Listen("line+tls"),)),
            "tls-cert: missing; line+tls://0.0.0.0:4000 needs a certificate",
        ),
        (
            lambda: Config(listen=(Listen(), Listen("line+tls", cert="a"))),
            "listen: line://0.0.0.0:4000 and line+tls://0.0.0.0:4000?cert=a are the same address",
        ),
    ],
)
def test_a_wrong_value_in_python_is_refused_by_the_same_checks(make, message: str):
    with pytest.raises(ConfigError) as refused:
        make()
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("row", [row for row in TABLE if row.field != "listen"], ids=lambda row: row.field)
def test_every_field_is_checked(row: Setting):
    table = {"Program": Program, "Config": Config, "Limits": Limits}[row.table]
    with pytest.raises(ConfigError) as refused:
        table(**{row.field: object()})
    assert refused.value.key == row.field
    assert row.kind.wanted in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-client = 5\n", "unknown setting max-client in FILE; did you mean max-clients?"),
        ("colour = 'red'\n", "unknown setting colour in FILE; geventchat --help lists all settings"),
        ("[server]\nport = 1\n", "unknown setting server in FILE; geventchat --help lists all settings"),
        ("flush_s = 1\n", "unknown setting flush_s in FILE; geventchat --help lists all settings"),
        ("port = [1]\n", "port: [1] is not a port from 0 to 65535 (from FILE)"),
        ("max-line = 99\nmax_line = 99\n", "duplicate setting max_line in FILE"),
        ("reserved-names = [1]\n", "reserved-names: [1] is not zero or more names, each of"),
        ("listen = [4000]\n", "listen: [4000] is not one or more of SCHEME://HOST:PORT"),
        ("port = 1\nport = 2\n", "config: FILE is not valid TOML: "),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str, toml):
    file = toml(text)
    with pytest.raises(ConfigError) as refused:
        resolved(file=file)
    assert str(refused.value).startswith(message.replace("FILE", str(file)))


def test_a_list_in_a_file_is_several_names(toml):
    assert resolved(file=toml('reserved-names = ["ann", "bob"]\n'))["reserved-names"] == ("ann", "bob")
    assert resolved(file=toml("reserved-names = []\n"))["reserved-names"] == ()


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.toml: No such file or directory"):
        resolved(file=tmp_path / "nowhere.toml")


def test_an_unknown_variable_is_refused_and_variables_of_other_programs_are_ignored():
    with pytest.raises(ConfigError) as refused:
        resolved(environment={"GEVENTCHAT_MAX_CLIENT": "5"})
    assert str(refused.value) == (
        "unknown setting GEVENTCHAT_MAX_CLIENT in the environment; did you mean GEVENTCHAT_MAX_CLIENTS?"
    )
    resolved(environment={"PATH": "/bin", "GEVENT_RESOLVER": "ares", "GEVENTCHAT_CONFIG": "x"})


@pytest.mark.parametrize("service", ["CHAT", "GEVENTCHAT", "GEVENTCHAT_WEB"])
def test_the_variables_that_kubernetes_makes_for_a_service_are_ignored(service: str):
    made = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "4000",
        f"{service}_SERVICE_PORT_LINE": "4000",
        f"{service}_PORT": "tcp://10.0.0.1:4000",
        f"{service}_PORT_4000_TCP": "tcp://10.0.0.1:4000",
        f"{service}_PORT_4000_TCP_PROTO": "tcp",
        f"{service}_PORT_4000_TCP_PORT": "4000",
        f"{service}_PORT_4000_TCP_ADDR": "10.0.0.1",
    }
    assert resolved(environment=made) == resolved()
    assert resolved(environment={**made, "PORT": "5000"})["port"] == 5000


def test_an_empty_variable_counts_as_not_set():
    assert resolved(environment={"GEVENTCHAT_MAX_LINE": "", "GEVENTCHAT_COLOUR": ""}) == resolved()


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("json://127.0.0.1:7", Listen("json", "127.0.0.1", 7)),
        ("json://127.0.0.1", Listen("json", "127.0.0.1", 12345)),
        ("json://:0", Listen("json", "", 0)),
        ("slash://", Listen("slash", "", 5000)),
        ("line://[::1]:7", Listen("line", "::1", 7)),
        ("line://[::1]", Listen("line", "::1", 4000)),
        ("slash://localhost", Listen("slash", "localhost", 5000)),
        ("line+tls://", Listen("line+tls", "", 4000)),
        ("line+tls://[::1]:7?cert=a.pem", Listen("line+tls", "::1", 7, cert="a.pem")),
        (
            "json+tls://:7?key=/b%20c.key&cert=/a%2cb.pem",
            Listen("json+tls", "", 7, cert="/a,b.pem", key="/b c.key"),
        ),
        ("web://127.0.0.1", Listen("web", "127.0.0.1", 4080)),
        ("web+tls://", Listen("web+tls", "", 4080)),
        ("metrics://", Listen("metrics", "127.0.0.1", 9464)),
        ("metrics+tls://", Listen("metrics+tls", "127.0.0.1", 9464)),
        ("slash+unix:///run/chat.sock", Listen("slash+unix", path="/run/chat.sock")),
        ("line+unix:///a%20b?mode=660", Listen("line+unix", path="/a b", mode=0o660)),
    ],
)
def test_addresses_are_read(text: str, listen: Listen):
    assert read_listen(text) == listen
    assert read_listen(str(listen)) == listen


def test_a_service_can_have_its_own_host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SERVICES, "inside", ServiceDefaults(9000, "127.0.0.1"))
    local = Listen("inside", "127.0.0.1", 9000)
    assert [read_listen(text) for text in ("inside://", "inside://:9000")] == [local, local]
    assert Listen("inside") == local
    assert read_listen("inside://0.0.0.0") == Listen("inside", "0.0.0.0", 9000)


LINE = Listen("line", "0.0.0.0", 4000)


@pytest.mark.parametrize(
    ("flags", "listens"),
    [
        ({}, (LINE,)),
        ({"listen": "json://:0"}, (LINE, Listen("json", "", 0))),
        ({"listen": "line://:1"}, (Listen("line", "", 1),)),
        ({"listen": "json://:0 line://:1"}, (Listen("json", "", 0), Listen("line", "", 1))),
        ({"listen": "line://:1", "port": "2"}, (Listen("line", "0.0.0.0", 2), Listen("line", "", 1))),
        ({"host": "::1", "port": "2"}, (Listen("line", "::1", 2),)),
        ({"listen": "line+tls://:1?cert=a"}, (Listen("line+tls", "", 1, cert="a"),)),
        ({"listen": "line+unix:///a"}, (Listen("line+unix", path="/a"),)),
    ],
)
def test_line_is_served_on_the_port_unless_another_address_replaces_it(
    flags: dict[str, str], listens: tuple[Listen, ...]
):
    assert resolved(flags).config.listen == listens


def test_an_address_on_the_command_line_replaces_a_port_in_the_environment():
    assert resolved({"listen": "line://:1"}, {"PORT": "9"}).listen == (Listen("line", "", 1),)


@pytest.mark.parametrize(
    ("limits", "above"),
    [
        (Limits(), []),
        (Limits(address_logins_per_s=20, address_burst_logins=4_000), []),
        (Limits(address_logins_per_s=20.5), ["address-login-rate"]),
        (Limits(network_burst_log_lines=2_999), ["address-log-burst"]),
        (Limits(clients_per_address=4_001), ["max-per-address"]),
        # Without a rate there is no limit.
        (Limits(address_bytes_per_s=0), ["address-byte-rate", "address-byte-burst"]),
        (Limits(address_bytes_per_s=0, network_bytes_per_s=0), []),
        (Limits(network_rooms_per_min=0, address_burst_rooms=401), []),
        (Limits(address_logins_per_s=21, lines_per_s=0), []),
    ],
)
def test_limits_of_an_address_above_its_networks_are_known(limits: Limits, above: list[str]):
    networks = {"max-per-address": "max-per-network"}
    assert limits.above_network == {
        key: networks.get(key, "network-" + key.removeprefix("address-")) for key in above
    }


def test_a_rate_of_zero_turns_off_the_limits_per_second_on_lines_bytes_connections_logins_rooms_and_accounts():
    limits = Limits(lines_per_s=0)
    assert limits.without_rates() == replace(
        limits,
        bytes_per_s=0.0,
        address_bytes_per_s=0.0,
        network_bytes_per_s=0.0,
        network_connections_per_s=0.0,
        network_logins_per_s=0.0,
        network_rooms_per_min=0.0,
        network_accounts_per_min=0.0,
        address_connections_per_s=0.0,
        address_logins_per_s=0.0,
        address_rooms_per_min=0.0,
        address_accounts_per_min=0.0,
    )
    assert limits.without_rates().address_log_lines_per_s == 20.0
    assert limits.without_rates().network_log_lines_per_s == 80.0
    assert limits.without_rates().floor_bytes_per_s == 65_536.0
    assert limits.without_rates().stranger_bytes_per_s == 8_192.0
    slow = Limits(lines_per_s=0.001)
    assert slow.without_rates() is slow


def test_the_settings_import_neither_gevent_nor_sockets():
    program = "import sys, geventchat.settings; print({'gevent', 'socket'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


def test_the_page_of_options_is_the_one_that_is_generated():
    assert PAGE.read_text() == options_page(), "run: python -m geventchat --options-page > docs/options.md"
