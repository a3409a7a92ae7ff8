"""Where settings come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from geventchat.config import ConfigError, IdleNotice, Listen
from geventchat.settings import SETTINGS, Settings, Told, place, settle


def settled(
    flags: dict[str, str] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> Settings:
    told = {key: Told(text, f"--{key}") for key, text in (flags or {}).items()}
    return settle(told, environment or {}, file)


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "chat.toml"
        path.write_text(text)
        return path

    return write


def test_flag_before_environment_before_file_before_default(toml):
    file = toml("max-line = 100\nburst = 7\nrate = 3.5\n")
    environment = {"GEVENTCHAT_MAX_LINE": "200", "GEVENTCHAT_BURST": "8"}
    settings = settled({"max-line": "300"}, environment, file)
    assert (settings["max-line"], settings.settled["max-line"].source) == (300, "--max-line")
    assert (settings["burst"], settings.settled["burst"].source) == (8, "GEVENTCHAT_BURST")
    assert (settings["rate"], settings.settled["rate"].source) == (3.5, str(file))
    assert (settings["max-queue"], settings.settled["max-queue"].source) == (1_048_576, "default")


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
    assert settled(environment=environment).listen == (Listen("line", "0.0.0.0", port),)


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_every_setting_has_three_spellings(key: str, toml):
    good = {
        "host": "::1",
        "listen": "json://:7",
        "idle-notice": "err",
        "log-format": "json",
        "log-level": "error",
    }
    text = "yes" if key == "log-messages" else good.get(key, "1024")
    from_flag = settled({key: text})[key]
    assert settled(environment={SETTINGS[key].variable: text})[key] == from_flag
    quoted = f'["{text}"]' if key == "listen" else f'"{text}"' if not text.isdigit() else text
    assert settled(file=toml(f"{key} = {quoted}\n"))[key] == from_flag
    assert settled(file=toml(f"{key.replace('-', '_')} = {quoted}\n"))[key] == from_flag


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("port", "abc"),
        ("port", "-1"),
        ("port", "65536"),
        ("idle-timeout", "-1"),
        ("idle-timeout", "nan"),
        ("idle-timeout", "inf"),
        ("idle-notice", "maybe"),
        ("max-clients", "0"),
        ("max-clients", "1.5"),
        ("max-line", "3"),
        ("max-queue", "1"),
        ("rate", "-1"),
        ("burst", "0"),
        ("log-format", "xml"),
        ("log-level", "loud"),
        ("log-messages", "perhaps"),
        ("listen", "irc://:6667"),
        ("listen", "json:12345"),
        ("listen", "json://host:port"),
        ("listen", "json://[::1"),
        ("listen", "json://::1:5"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_would_be_right(key: str, text: str, toml):
    with pytest.raises(ConfigError) as refused:
        settled({key: text})
    assert str(refused.value).startswith(f"{key}: {text!r} is not ")
    assert SETTINGS[key].wanted in str(refused.value)
    assert f"--{key}" in str(refused.value)
    with pytest.raises(ConfigError, match=SETTINGS[key].variable):
        settled(environment={SETTINGS[key].variable: text})
    with pytest.raises(ConfigError, match=r"chat\.toml"):
        settled(file=toml(f'{key} = "{text}"\n'))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max-client = 5\n", "did you mean max-clients"),
        ("colour = 'red'\n", "known: "),
        ("port = [1]\n", "a port from 0 to 65535"),
        ("port = 1\nport = 2\n", "valid TOML"),
        ("max-line = 99\nmax_line = 99\n", "said once"),
        ("[server]\nport = 1\n", "known: "),
        ("listen = [4000]\n", "DIALECT://HOST:PORT"),
    ],
)
def test_a_file_that_cannot_be_is_refused(text: str, said: str, toml):
    with pytest.raises(ConfigError, match=said):
        settled(file=toml(text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        settled(file=tmp_path / "nowhere.toml")


def test_an_unknown_variable_is_refused_and_others_are_not_ours():
    with pytest.raises(ConfigError, match="did you mean GEVENTCHAT_MAX_CLIENTS"):
        settled(environment={"GEVENTCHAT_MAX_CLIENT": "5"})
    settled(environment={"PATH": "/bin", "GEVENT_RESOLVER": "ares", "GEVENTCHAT_CONFIG": "x"})


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
    ],
)
def test_places(text: str, listen: Listen):
    assert place(text) == listen


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
    ],
)
def test_line_is_served_unless_it_is_replaced(flags: dict[str, str], listens: tuple[Listen, ...]):
    assert settled(flags).listen == listens


def test_a_place_on_the_command_line_replaces_a_port_in_the_environment():
    assert settled({"listen": "line://:1"}, {"PORT": "9"}).listen == (Listen("line", "", 1),)


def test_what_the_server_is_told():
    config = settled({"idle-timeout": "5", "idle-notice": "none", "max-queue": "2048", "rate": "0"}).config()
    assert config.idle_s == 5.0
    assert config.idle_notice is IdleNotice.NONE
    assert config.limits.queue_bytes == 2048
    assert config.limits.lines_per_s == 0
    assert settled().config().idle_s is None
