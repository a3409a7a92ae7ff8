"""Logins with passwords do not delay those who chat."""

from __future__ import annotations

from tests.fire.passwords import password_logins, server_with_accounts

# Of the server's processor time, since this machine can have anything else to do.
MOST_MS = 20
LOGINS = 12


def test_logins_with_passwords_do_not_delay_those_who_chat() -> None:
    with server_with_accounts(LOGINS) as target:
        run = password_logins(target, LOGINS, rounds=2, window_s=1.5)
    assert run.busy_p99_rise < MOST_MS, run
