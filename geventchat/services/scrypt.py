"""scrypt, as a function, and as a program that computes it for each line of its standard input. Knows no passwords' rules.

`passwords.py` starts the program: `python -I -S scrypt.py`. It imports the standard library alone, so that it starts within
milliseconds. A request is `LOG_N R P SALT PASSWORD`, the last two in hexadecimal; its answer is the digest in hexadecimal, or
`no memory`. The program ends when its standard input does.
"""

from __future__ import annotations

import hashlib
import os
import sys

DIGEST_BYTES = 32
NO_MEMORY = b"no memory"
# If both want to run, the server gets ten times as much CPU time. With the lowest priority, a login on a busy machine would
# take minutes.
_NICENESS = 10
# OpenSSL allocates this much in addition to the memory of the algorithm.
_SLACK_BYTES = 1 << 20


def memory_bytes(log_n: int, r: int, p: int) -> int:
    """The memory that the algorithm takes."""
    return 128 * r * ((1 << log_n) + p)


def scrypt(password: bytes, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    """The digest for valid parameters."""
    most = memory_bytes(log_n, r, p) + _SLACK_BYTES
    try:
        return hashlib.scrypt(password, salt=salt, n=1 << log_n, r=r, p=p, maxmem=most, dklen=DIGEST_BYTES)
    except ValueError:
        # OpenSSL's way to say it.
        raise MemoryError("no memory for a password hash") from None


def main() -> None:
    """Answer until the standard input ends."""
    os.nice(_NICENESS)
    for request in sys.stdin.buffer:
        log_n, r, p, salt, password = request.split(b" ")
        try:
            answer = scrypt(
                bytes.fromhex(password.decode()), bytes.fromhex(salt.decode()), int(log_n), int(r), int(p)
            )
            line = answer.hex().encode()
        except MemoryError:
            line = NO_MEMORY
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
