"""What a text may hold: nothing that moves another reader's cursor, recolours a terminal or fakes a line. Pure."""

from __future__ import annotations

import re

# Control characters (Cc), bidirectional embeddings, overrides and isolates, the two Unicode line breaks (some readers
# split lines at them), and lone surrogates, which JSON can smuggle in and UTF-8 cannot carry out.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
# Unicode's White_Space, which is not what str.strip takes by itself: that has U+001C to U+001F too.
_WHITE = (
    "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)


def clean(raw: str) -> str:
    """The text as everyone may see it: tabs are spaces, what is unsafe is U+FFFD, white space at the ends is gone."""
    # isprintable is one pass in C and true of nearly everything people type; it is false for more than is unsafe
    # (joiners in emoji, no-break spaces), so only the pattern decides.
    if raw.isprintable():
        return raw.strip()
    return _UNSAFE.sub(_REPLACEMENT, raw.strip(_WHITE).replace("\t", " "))
