"""ICU's spoof checker, a second implementation of UTS 39, through the shared library."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library

_NO_ERROR = 0


class NotInstalled(Exception):
    """This machine has no ICU."""


class SpoofChecker:
    """Skeletons as ICU makes them, and the version of Unicode that it knows."""

    def __init__(self) -> None:
        library = find_library("icui18n")
        common = find_library("icuuc")
        if library is None or common is None:
            raise NotInstalled("ICU is not installed; Debian's package icu-devtools has it")
        # Every function has the version in its name: uspoof_open_72 in libicui18n.so.72.
        version = library.rpartition(".")[2]
        checker, unicode = ctypes.CDLL(library), ctypes.CDLL(common)
        self._skeleton = getattr(checker, f"uspoof_getSkeletonUTF8_{version}")
        self._skeleton.argtypes = [
            *(ctypes.c_void_p, ctypes.c_uint32),
            *(ctypes.c_char_p, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32),
            ctypes.POINTER(ctypes.c_int),
        ]
        self._error = ctypes.c_int(_NO_ERROR)
        self._out = ctypes.create_string_buffer(4096)
        start = getattr(checker, f"uspoof_open_{version}")
        start.restype = ctypes.c_void_p
        self._checker = start(ctypes.byref(self._error))
        numbers = (ctypes.c_uint8 * 4)()
        getattr(unicode, f"u_getUnicodeVersion_{version}")(numbers)
        self.unicode_version = ".".join(map(str, list(numbers)[:3]))

    def skeleton(self, text: str) -> str:
        """The skeleton of a text."""
        data = text.encode()
        size = self._skeleton(
            self._checker, 0, data, len(data), self._out, len(self._out), ctypes.byref(self._error)
        )
        assert self._error.value <= _NO_ERROR, f"ICU's error {self._error.value}"
        return self._out.raw[:size].decode()
