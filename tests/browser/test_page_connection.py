"""The connection of the page: how it is lost, refused and made again, and what its user reads about it."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.browser.chat import STOP_THE_CLOCK, ChatServer, OpenPage, chat
from tests.certificates import made_certificate
from tests.geventchat.processes import called


def test_a_page_works_over_tls(open_page: OpenPage):
    cert, key = made_certificate()
    with chat("--listen=web+tls://127.0.0.1:0", f"--tls-cert={cert}", f"--tls-key={key}") as server:
        alice = open_page(server, "alice", url=f"https://127.0.0.1:{server.ports['web+tls']}/")
        assert alice.page.run("connection.socket.url").startswith("wss://")
        server.person("bob").say("hello")
        alice.wait_for("hello")


def test_the_pauses_between_attempts_grow_to_half_a_minute_and_are_short_again_afterwards(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    pauses = alice.page.run(
        """(() => {
            const pauses = [], timeout = window.setTimeout;
            window.setTimeout = (action, pause) => { if (action === connect) pauses.push(pause); };
            connection.socket.close();
            for (let n = 0; n < 9; n += 1) lost(1006);
            window.setTimeout = timeout;
            return pauses;
        })()"""
    )
    for pause, middle in zip(pauses, (500, 1e3, 2e3, 4e3, 8e3, 16e3, 30e3, 30e3, 30e3), strict=True):
        assert 0.75 * middle <= pause <= 1.25 * middle
    alice.page.run("connect()")
    alice.page.wait("connection.replayed")
    assert alice.page.run("connection.pause") == 500


def test_a_page_says_that_it_is_offline_and_comes_back_with_the_network_or_when_it_is_told_to(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    alice.lose_connection()
    assert "The connection is lost." in alice.page.run("byId('banner').innerText")
    alice.page.offline(True)
    alice.page.wait("byId('banner').innerText.includes('You are offline.')")
    alice.page.offline(False)
    alice.page.wait("connection.replayed && byId('banner').hidden")
    alice.lose_connection()
    alice.page.click("#banner button")
    alice.page.wait("connection.replayed && byId('banner').hidden")


def test_a_connection_on_which_nothing_was_sent_for_a_while_is_tested_also_while_others_talk(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    alice.page.run(
        STOP_THE_CLOCK
        + """window.pings = 0; window.transmitted = transmit;
        transmit = (one) => { window.pings += one.type === 'ping'; window.transmitted(one); }"""
    )
    for count in (1, 2):
        alice.page.run("window.now += QUIET_MS + 1")
        server.person(f"talker-{count}").say(f"number {count}")
        alice.wait_for(f"number {count}")
        alice.page.run("watchConnection()")
        assert alice.page.run("pings") == count


def test_a_quiet_connection_is_kept_where_it_is_looked_at_once_in_a_minute(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    alice.page.run(
        f"{STOP_THE_CLOCK} window.first = connection.socket; window.pongs = 0; EVENTS.pong = () => {{ window.pongs += 1; }}"
    )
    # Browsers run the timers of a hidden tab no more often.
    for count in (1, 2, 3):
        alice.page.run("window.now += 60000; watchConnection()")
        assert alice.page.run("connection.socket === first && connection.online")
        alice.page.wait(f"pongs === {count}")


def test_a_frozen_connection_is_given_up(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    alice.page.run(f"{STOP_THE_CLOCK} window.first = connection.socket; first.send = () => {{}}")
    alice.page.run(
        "window.now += QUIET_MS + 1; watchConnection(); window.now += LOST_MS + 1; watchConnection()"
    )
    alice.page.wait("connection.replayed && connection.socket !== first")


def test_a_name_that_the_lost_connection_still_holds_is_asked_for_until_it_is_free(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    alice.page.run(
        """window.first = connection.socket; window.refusals = 0; window.refused = refuseLogin;
        refuseLogin = (error) => { window.refusals += 1; window.refused(error); };
        connection.pause = 1; lost(1006)"""
    )
    alice.page.wait("window.refusals > 1")
    assert alice.page.run("byId('login').hidden")
    alice.page.run("window.first.close()")
    alice.page.wait("connection.replayed")


def test_a_connection_that_was_given_up_says_nothing_more(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    alice.page.run(
        """window.first = connection.socket; window.late = 0; connection.pause = 1e9; lost(1006);
        first.addEventListener('message', () => { window.late += 1; })"""
    )
    server.person("bob-who-is-late").say("too late")
    alice.page.wait("window.late")
    assert alice.page.run("roomNamed('lobby').items.some((one) => one.text === 'too late')") is False
    # The next connection brings it.
    alice.page.run("first.close(); connection.pause = 1; start()")
    alice.wait_for("too late")


def test_someone_whose_name_was_taken_meanwhile_learns_it_and_chooses_another_one(
    server: ChatServer, open_page: OpenPage
):
    bot = server.bot("robot-of-names")
    page = open_page(server, "late")
    bot.until('"late"')
    page.lose_connection()
    bot.until('"user_left"')
    server.bot("late").ask(type="register", password="correct horse")
    page.page.run("start()")
    page.page.wait("byId('login-error').textContent === 'This name is registered: its password, please.'")
    # Not silently, as if its own connection held this name.
    page.log_in("robot-of-names", within="byId('login-error').textContent === 'Username already taken'")
    page.log_in("later")


def test_someone_who_is_removed_or_banned_from_the_server_reads_it_and_stays_away(
    tmp_path: Path, open_page: OpenPage
):
    with chat("--data", str(tmp_path)) as server:
        alice = open_page(server, "alice")
        called("admin", "kick", "alice", "too", "loud", "--data", str(tmp_path))
        alice.page.wait("byId('banner').innerText.includes('You were removed from the chat.')")
        assert "too loud" in alice.page.run("byId('toasts').innerText")
        assert alice.page.run("[connection.wanted, connection.socket]") == [False, None]
        alice.page.click("#banner button")
        alice.page.wait("connection.replayed")
        called("admin", "ban", "name:alice", "--data", str(tmp_path))
        alice.page.wait("byId('banner').innerText.trim() === 'You are banned.'")
        assert alice.page.run("[connection.wanted, connection.socket]") == [False, None]


def test_a_server_that_is_full_says_so(server: ChatServer, open_page: OpenPage):
    page = open_page(server)
    page.page.run(
        "window.fetch = async () => new Response('the server is full\\n', { status: 503 }); explain()"
    )
    page.page.wait("byId('login-error').textContent === 'the server is full'")


def test_a_text_that_is_too_long_for_this_server_is_not_sent_again_and_again(open_page: OpenPage):
    with chat("--max-line", "1024") as server:
        alice = open_page(server, "alice")
        alice.say("x" * 1500)
        alice.page.wait("document.querySelector('.failure')?.innerText.includes('Too long for this server')")
        alice.page.wait("connection.replayed")
        alice.page.click(".failure button:last-child")
        alice.page.wait("!unsent.length && !document.querySelector('#pending .row')")
        alice.say("short")
        alice.wait_for("short")


def test_only_the_message_that_was_too_long_for_this_server_is_called_that(open_page: OpenPage):
    with chat("--max-line", "1024") as server:
        alice = open_page(server, "alice")
        bob = server.person("bob")
        alice.say("/msg nobody-here hello?")
        alice.page.wait("document.querySelector('.failure')?.innerText.includes('User not found')")
        # The answers are lost with the connection.
        alice.page.run("open(roomNamed('lobby')); window.heard = receive; receive = () => {}")
        for text in ("short", "x" * 1500, "the last"):
            alice.say(text)
        alice.page.wait("!connection.online && Boolean(receive = heard)")
        bob.until("the last")
        failures = "unsent.map((one) => [one.text.length, one.failure])"
        alice.page.wait("unsent.length === 2")
        assert alice.page.run(failures) == [[6, "User not found"], [1500, "Too long for this server"]]
        alice.page.wait("connection.replayed")
        assert alice.texts() == ["short", "the last"]


def test_a_page_comes_back_to_more_rooms_than_fit_in_one_line_of_this_server(open_page: OpenPage):
    rooms = [f"room-{number:02}" for number in range(40)]
    with chat("--max-line", "512") as server:
        alice = open_page(server, "alice")
        alice.page.run(f"(async () => {{ for (const room of {rooms}) await enter(room); }})()")
        server.bot("robot", rooms={rooms[-1]: None}).ask(type="chat", room=rooms[-1], message="before")
        alice.wait_for("before")
        alice.lose_connection()
        bot = server.bot("robot-of-then", rooms={rooms[0]: None, rooms[-1]: None})
        for room in (rooms[0], rooms[-1]):
            bot.ask(type="chat", room=room, message="meanwhile")
        alice.page.run("connection.pause = 1; start()")
        said = "items.filter((one) => one.text).map((one) => one.text)"
        texts = f"['{rooms[0]}', '{rooms[-1]}'].map((room) => roomNamed(room).{said})"
        alice.page.wait("connection.replayed")
        assert alice.page.run(texts) == [["meanwhile"], ["before", "meanwhile"]]
        assert alice.page.run("[...conversations.values()].every((one) => one.present)")
        # This one begins with other ids.
        server.stop()
        alice.page.wait("!connection.online")
        server.start()
        bot = server.bot("robot-of-now", rooms={rooms[-1]: None})
        bot.ask(type="chat", room=rooms[-1], message="after")
        alice.page.reload()
        alice.page.wait("connection.replayed")
        assert alice.page.run("[...conversations.values()].every((one) => one.present)")
        assert alice.page.run(texts) == [[], ["after"]]
        # The log of the browser has the refused connections, and that the page asked why.
        alice.page.errors = [error for error in alice.page.errors if not re.search("ERR_| 426 ", error)]


def test_what_was_written_without_a_connection_is_sent_in_its_order(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bob = server.person("bob-of-order")
    alice.lose_connection()
    for text in ("the first", "the second", "the third"):
        alice.say(text)
    alice.page.wait("document.querySelector('#pending .sending')?.textContent === 'will be sent'")
    alice.page.run("start()")
    heard = bob.until("the third")
    assert heard[-3:] == ["MSG alice the first", "MSG alice the second", "MSG alice the third"]


def test_a_message_whose_confirmation_was_lost_is_said_once_even_by_a_server_that_has_forgotten_its_key(
    tmp_path: Path, open_page: OpenPage
):
    with chat("--data", str(tmp_path)) as server:
        alice = open_page(server, "alice")
        bob = server.person("bob")
        alice.page.run("receive = () => {}")
        alice.say("only once")
        bob.until("only once")
        alice.lose_connection()
        server.stop(signal.SIGTERM)
        server.start()
        bob = server.person("bob")
        alice.page.reload()
        alice.wait_for("only once")
        alice.say("the next")
        assert bob.until("the next")[-2:] != ["MSG alice only once", "MSG alice the next"]
        alice.wait_for("the next")
        assert alice.texts().count("only once") == 1
