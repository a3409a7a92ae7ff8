"""What a script needs of a target, against what the target has. Plays nothing."""

from __future__ import annotations

import difflib
import re

from harness.language.located_problem import script_error
from harness.language.problems import ScriptError
from harness.language.steps import Needs, Script, Server, Setting
from harness.targets.target import Target, UnsupportedSpec

# What the targets that come with the harness have; a target of one's own may have more.
FEATURES = frozenset({"virtual-time", "in-process", "restart", "stderr", "proven-split", "faults"})


def missing_features(script: Script, target: Target) -> str:
    """Why this script cannot be played there, or "". ScriptError for a feature that is only misspelt: a script that is
    skipped everywhere, for ever, is what nobody would notice."""
    needs = script.setting(Needs)
    missing = [feature for feature in needs.features if feature not in target.features] if needs else []
    for feature in missing:
        near = difflib.get_close_matches(feature, FEATURES | target.features, n=1, cutoff=0.8)
        if needs is not None and near and feature not in FEATURES:
            raise _at(script, needs, feature, f"no feature is called {feature!r}", f"perhaps {near[0]}")
    return f"needs {', '.join(missing)}, which {target} lacks" if missing else ""


def unsupported_spec_problem(script: Script, wrong: UnsupportedSpec) -> ScriptError:
    """What the target does not know, told at the word that asked for it."""
    server = script.setting(Server)
    quoted = re.search(r"'([^']+)'", str(wrong))
    word = quoted[1] if quoted else ""
    if server is None:
        return script_error(script, 1, 0, str(wrong), "what this target knows")
    return _at(script, server, word, str(wrong), "what this target knows")


def _at(script: Script, setting: Setting, word: str, message: str, expected: str) -> ScriptError:
    home = _home(script, setting) or script
    text = home.source[setting.line - 1] if 0 < setting.line <= len(home.source) else ""
    value = text.find(": ") + 2
    found = re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w.-])", text[value:]) if word else None
    return script_error(home, setting.line, value + (found.start() if found else 0), message, expected)


def _home(script: Script, setting: Setting) -> Script | None:
    """The file in whose header the setting stands: the script's own or one that it includes."""
    if any(item is setting for item in script.header):
        return script
    return next((home for one in script.included() if (home := _home(one, setting))), None)
