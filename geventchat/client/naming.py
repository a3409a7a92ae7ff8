"""What is wrong with a name, said before a server has to say it.

Pure. The server decides; this only catches what it never lets in, so that the reason can be a precise one.
"""

from __future__ import annotations

import unicodedata

from geventchat.client.heard import NameFault

NAME_CHARACTERS = 20
ALSO_ALLOWED = frozenset("_-.")

REFUSED_BY_SERVER = {
    NameFault.TAKEN: "The name {name} is taken by someone who is here.",
    NameFault.INVALID: "The server does not allow the name {name}.",
    NameFault.LENGTH: f"A name has 1 to {NAME_CHARACTERS} characters; the server does not allow {{name}}.",
}


def tidy(name: str) -> str:
    """The name without white space around it, composed, as the server will show it."""
    return unicodedata.normalize("NFC", name.strip())


def fault(name: str) -> str | None:
    """What is wrong with a tidied name, as a sentence; nothing if the server should be asked."""
    if not name:
        return "A name has at least one character."
    for character in name:
        if character.isspace():
            return "A name has no spaces in it."
        if not _may_be_in_a_name(character):
            return f"A name is made of letters, digits, '_', '-' and '.', not of {_shown(character)}."
    if len(name) > NAME_CHARACTERS:
        return f"A name has at most {NAME_CHARACTERS} characters; this one has {len(name)}."
    return None


def refusal(why: NameFault, name: str) -> str:
    """The server's refusal of a name, as a sentence."""
    return REFUSED_BY_SERVER[why].format(name=name)


def _may_be_in_a_name(character: str) -> bool:
    category = unicodedata.category(character)
    # Format characters (Cf) belong to the spelling of some languages: those are for the server to judge.
    return character in ALSO_ALLOWED or not (category == "Cc" or category[0] in "PSZ")


def _shown(character: str) -> str:
    return f"'{character}'" if character.isprintable() else f"U+{ord(character):04X}"
