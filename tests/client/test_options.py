"""The settings of the client, and the styles that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from geventchat.client.options import (
    KEYS,
    THEMES,
    Config,
    InvalidOption,
    Options,
    changed,
    config_of,
    config_path,
    help_of,
    read_config,
    shown,
)
from geventchat.client.styles import ROLES, parse_style, styles_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "client.md"


def test_the_file_is_where_the_base_directory_specification_says() -> None:
    home = Path("/home/alice")
    assert config_path({}, home) == home / ".config/geventchat/client.toml"
    assert config_path({"XDG_CONFIG_HOME": "/etc/x"}, home) == Path("/etc/x/geventchat/client.toml")
    assert config_path({"XDG_CONFIG_HOME": "relative"}, home) == home / ".config/geventchat/client.toml"


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    assert read_config(path) == Config()
    path.write_text(
        'name = "alice"\nrooms = ["lobby", "dev"]\nkeep-alive = 5\nscreen_reader = true\ntimestamps = ""\n'
        '[colours]\nmention = "bold red"\n'
    )
    config = read_config(path)
    assert config.options == Options(
        name="alice", rooms=("lobby", "dev"), keep_alive=5.0, screen_reader=True, timestamps=""
    )
    assert config.colours == {"mention": "bold red"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("bell = 1", "bell: 1 is not on or off"),
        ("bel = true", "unknown setting bel; did you mean bell?"),
        ("keep-alive = -1", "keep-alive: -1 is not a number of seconds from 1 to 86400, or 0 for never"),
        ("keep-alive = nan", "keep-alive: nan is not a number of seconds"),
        ("scrollback = 1.5", "scrollback: 1.5 is not a whole number"),
        ('theme = "neon"', "theme: 'neon' is not one of: dark, light, contrast, mono"),
        ("rooms = [1]", "rooms: (1,) is not words"),
        ('timestamps = "\\u001b[2J"', "is not a format such as"),
        (f'timestamps = "{"x" * 99}"', "is not a format such as"),
        ("colours = 7", 'colours: 7 is not a table of styles such as mention = "bold yellow"'),
        ("x = ", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "client.toml"
    path.write_text(text)
    with pytest.raises(InvalidOption, match=re.escape(complaint)) as raised:
        read_config(path)
    assert str(path) in str(raised.value)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="cannot read"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("bell", "off", False),
        ("keep-alive", "1.5", 1.5),
        ("keep_alive", "0", 0.0),
        ("scrollback", "7", 7),
        ("rooms", "a b", ("a", "b")),
        ("timestamps", "%H:%M", "%H:%M"),
    ],
)
def test_a_setting_can_be_typed_and_is_shown_as_it_is_typed(key: str, text: str, value: object) -> None:
    options = changed(Options(), key, text)
    assert getattr(options, key.replace("-", "_")) == value
    assert changed(Options(), key, shown(options, key.replace("_", "-"))) == options


@pytest.mark.parametrize(
    ("key", "text"), [("bell", "maybe"), ("keep-alive", "soon"), ("keep-alive", "inf"), ("nope", "1")]
)
def test_a_wrong_value_changes_nothing(key: str, text: str) -> None:
    with pytest.raises(InvalidOption):
        changed(Options(), key, text)


def test_the_documentation_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \| (.*?) \|$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    documented = {key: (default, meaning) for key, default, meaning in rows if key in KEYS}
    expected = {
        key: (f"`{shown(Options(), key)}`" if shown(Options(), key) else "", help_of(key)) for key in KEYS
    }
    assert documented == expected


def test_an_example_of_a_file_can_be_read() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    config = config_of(tomllib.loads(example))
    styles_of(config.options.theme, config.colours, colour=True)


# Styles.


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        ("", ""),
        ("bold", "1"),
        ("bold yellow", "1;33"),
        ("bright-blue on-red", "94;41"),
        ("on-bright-white", "107"),
        ("#ff8000", "38;2;255;128;0"),
        ("on-200 7", "48;5;200;38;5;7"),
        ("Reverse Underline", "7;4"),
    ],
)
def test_words_are_a_style(words: str, parameters: str) -> None:
    assert parse_style(words) == parameters


@pytest.mark.parametrize("word", ["blink", "256", "#ff80", "on-", "\x1b[2J", "1;2"])
def test_an_unknown_word_is_an_error(word: str) -> None:
    with pytest.raises(InvalidOption, match="unknown style"):
        parse_style(word)


@pytest.mark.parametrize("theme", THEMES)
def test_every_theme_has_every_role_and_none_has_colours_without_colour(theme: str) -> None:
    assert set(styles_of(theme, {}, colour=True)) == set(ROLES)
    changes = {"mention": "bold red", "quote": "38 on-#ff0000", "link": "underline bright-blue"}
    plain = styles_of(theme, changes, colour=False)
    assert (plain["mention"], plain["quote"], plain["link"]) == ("1", "", "4")
    assert all(
        set(style.replace(",", ";").split(";")) <= {"", "1", "2", "3", "4", "7"} for style in plain.values()
    )


def test_an_unknown_role_is_an_error() -> None:
    with pytest.raises(InvalidOption, match="unknown role mentions in colours; there are: time, own"):
        styles_of("dark", {"mentions": "bold"}, colour=True)
