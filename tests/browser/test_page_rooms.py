"""Rooms and people on the page: entering, leaving, being removed, commands, unread messages and the lists."""

from __future__ import annotations

import json
from pathlib import Path

from tests.browser.chat import ChatPage, ChatServer, OpenPage, chat
from tests.geventchat.processes import called
from tests.geventchat.test_json_page import types_of


def enter(page: ChatPage, room: str) -> None:
    """Enter a room, and open it."""
    page.page.run(f"enter({json.dumps(room)})")
    page.page.wait(f"byId('room-name').textContent === {json.dumps(f'# {room}')}")


def find(page: ChatPage, text: str) -> None:
    """Open the finder, and type."""
    page.page.press("k", "Control")
    page.page.wait("byId('finder').open && finder.listed.length")
    page.page.type(text)


def test_the_page_knows_every_event(server: ChatServer, open_page: OpenPage):
    alice = open_page(server)
    assert types_of("event") - set(alice.page.run("Object.keys(EVENTS)")) == set()


def test_what_the_operator_announces_is_shown(tmp_path: Path, open_page: OpenPage):
    with chat("--data", str(tmp_path)) as server:
        alice = open_page(server, "alice")
        called("admin", "announce", "Down", "at", "<noon>", "--data", str(tmp_path))
        alice.page.wait("byId('toasts').innerText.includes('Announcement: Down at <noon>')")
        # It stays where it can be read later.
        alice.page.wait("byId('rows').innerText.includes('Announcement: Down at <noon>')")


def test_a_room_with_a_key_asks_for_it_and_is_entered_again_until_it_has_another_one(
    server: ChatServer, open_page: OpenPage
):
    # A name that every object has.
    room = "__proto__"
    owner = server.bot("owner-of-the-key", rooms={room: None})
    owner.ask(type="key", room=room, key="sesame")
    alice = open_page(server, "alice")
    find(alice, room)
    alice.page.press("Enter")
    alice.page.wait("byId('finder-error').textContent === 'Wrong key' && !byId('finder-key').hidden")
    alice.page.type("sesame")
    alice.page.press("Enter")
    alice.page.wait(f"byId('room-name').textContent === '# {room}' && !byId('finder').open")
    alice.page.reload()
    alice.page.wait(f"connection.replayed && knownRoom('{room}').present")
    # Only as long as the tab is open.
    assert "sesame" not in alice.page.run("JSON.stringify({ ...localStorage })")
    owner.ask(type="key", room=room, key="changed")
    alice.page.reload()
    alice.page.wait(f"byId('toasts').innerText.includes('{room}: Wrong key') && byId('message').disabled")
    alice.page.reload()
    alice.page.wait("connection.replayed")
    assert alice.page.run(f"knownRoom('{room}') === undefined")


def test_someone_who_is_removed_from_a_room_reads_why_and_comes_back_only_if_asked_to(
    server: ChatServer, open_page: OpenPage
):
    owner = server.bot("owner-of-strict", rooms={"strict": None})
    alice = open_page(server, "alice")
    enter(alice, "strict")
    # As when the room refuses someone who comes back, and the page is shown already.
    refusal = "{ room: 'strict', code: 'banned', message: 'Banned from the room' }"
    alice.page.run(f"knownRoom('strict').present = false; EVENTS.error({refusal})")
    alice.page.wait("byId('message').disabled && byId('toasts').innerText === 'strict: Banned from the room'")
    alice.page.run("enter('strict')")
    alice.page.wait("!byId('message').disabled")
    owner.ask(type="kick", room="strict", username="alice", reason="for shouting")
    alice.page.wait("byId('rows').innerText.includes('You were removed from the room: for shouting')")
    alice.page.wait("byId('message').disabled && document.querySelector('#rooms .left')")
    find(alice, "strict")
    alice.page.press("Enter")
    alice.page.wait("knownRoom('strict').present && !byId('message').disabled && !byId('finder').open")
    assert alice.page.run("document.querySelector('#rooms .left')") is None
    owner.ask(type="kick", room="strict", username="alice")
    alice.page.wait("!knownRoom('strict').present")
    alice.page.reload()
    alice.page.wait("connection.replayed")
    assert alice.page.run("knownRoom('strict') === undefined")


def test_an_invitation_is_accepted_with_a_click_which_says_why_it_is_too_late(
    server: ChatServer, open_page: OpenPage
):
    owner = server.bot("owner-of-the-club", rooms={"club": None})
    owner.ask(type="private", room="club", on=True)
    alice = open_page(server, "alice")
    owner.ask(type="invite", room="club", username="alice")
    alice.page.wait("byId('toasts').innerText.includes('owner-of-the-club invites you to club')")
    alice.page.click(".toast button")
    alice.page.wait("byId('room-name').textContent === '# club' && knownRoom('club').present")
    alice.say("/leave")
    alice.page.wait("!conversations.has('#club')")
    owner.ask(type="invite", room="club", username="alice")
    alice.page.wait("document.querySelector('.toast button')")
    owner.ask(type="ban", room="club", username="alice")
    alice.page.click(".toast button")
    alice.page.wait("byId('toasts').innerText.includes('club: Invitation required')")


COMMANDS: dict[str, dict[str, object]] = {
    "/join tea sesame": {"type": "enter", "room": "tea", "key": "sesame", "after": None},
    "/leave": {"type": "leave", "room": "lobby"},
    "/topic a  b": {"type": "topic", "room": "lobby", "topic": "a b"},
    "/msg bob  see you": {"type": "dm", "to": "bob", "message": "see you"},
    "/ignore bob": {"type": "ignore", "username": "bob"},
    "/unignore bob": {"type": "unignore", "username": "bob"},
    "/invite bob": {"type": "invite", "room": "lobby", "username": "bob"},
    "/kick bob too loud": {"type": "kick", "room": "lobby", "username": "bob", "reason": "too loud"},
    "/ban bob 2h spam again": {"type": "ban", "username": "bob", "seconds": 7200, "reason": "spam again"},
    "/ban bob spam again": {"type": "ban", "username": "bob", "seconds": None, "reason": "spam again"},
    "/unban bob": {"type": "unban", "room": "lobby", "username": "bob"},
    "/mute bob 30s": {"type": "mute", "username": "bob", "seconds": 30, "reason": ""},
    "/mute bob 10m": {"type": "mute", "username": "bob", "seconds": 600, "reason": ""},
    "/MUTE bob 7d": {"type": "mute", "username": "bob", "seconds": 604_800, "reason": ""},
    "/unmute bob": {"type": "unmute", "room": "lobby", "username": "bob"},
    "/voice bob": {"type": "voice", "room": "lobby", "username": "bob"},
    "/unvoice bob": {"type": "unvoice", "room": "lobby", "username": "bob"},
    "/mod bob": {"type": "mod", "room": "lobby", "username": "bob"},
    "/unmod bob": {"type": "unmod", "room": "lobby", "username": "bob"},
    "/owner bob": {"type": "owner", "room": "lobby", "username": "bob"},
    "/private on": {"type": "private", "room": "lobby", "on": True},
    "/private off": {"type": "private", "room": "lobby", "on": False},
    "/moderated on": {"type": "moderated", "room": "lobby", "on": True},
    "/moderated off": {"type": "moderated", "room": "lobby", "on": False},
    "/key sesame": {"type": "key", "room": "lobby", "key": "sesame"},
    "/key": {"type": "key", "room": "lobby", "key": ""},
}


def test_each_command_asks_for_what_it_says(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    names = alice.page.run("COMMANDS.map(([name]) => name)")
    assert {line.split()[0].lower() for line in COMMANDS} | {"/help"} == {f"/{name}" for name in names}
    alice.page.run("window.sent = []; transmit = (fields) => { sent.push(fields); }")
    for line, expected in COMMANDS.items():
        asked = alice.page.run(
            f"(() => {{ sent.length = 0; open(roomNamed('lobby')); return [run({json.dumps(line)}), sent]; }})()"
        )
        wrong, (request,) = asked
        assert wrong == "", line
        assert {key: request.get(key, "missing") for key in expected} == expected
        assert request.get("room", "lobby") in {"lobby", "tea"}


def test_a_command_that_is_wrong_or_refused_says_so_and_stays_to_be_corrected(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    for line, wrong in {
        "/nonsense": "Unknown command /nonsense. /help lists them; begin with // to say it.",
        "/kick": "/kick NAME REASON…",
    }.items():
        alice.page.run("byId('message').value = ''")
        alice.say(line)
        assert alice.page.run("[byId('hint').textContent, byId('message').value]") == [wrong, line]
    alice.page.run("byId('message').value = ''")
    alice.say("/kick nobody")
    alice.page.wait("byId('toasts').innerText === 'Not permitted'")
    alice.say("/join not/a/name")
    alice.page.wait("byId('toasts').innerText.includes('not/a/name: Invalid room name')")
    alice.say("/help")
    alice.page.wait("byId('rows').innerText.includes('/ban NAME [TIME] REASON…')")
    server.bot("robot-of-commands")
    alice.say("/msg robot-of-commands hello")
    alice.wait_for("hello")
    assert alice.page.run("byId('room-name').textContent") == "@ robot-of-commands"
    alice.say("/kick robot-of-commands")
    assert alice.page.run("byId('hint').textContent") == "That is for rooms."


def test_a_command_that_opens_another_conversation_leaves_the_draft_there_and_none_behind(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    bot = server.bot("robot-of-drafts")
    enter(alice, "open-already")
    field = "[`${current.isRoom ? '#' : '@'} ${current.name}`, byId('message').value]"

    def write(conversation: list[object], text: str) -> None:
        alice.page.run(f"open(conversationOf(...{json.dumps(conversation)})); byId('message').value = ''")
        alice.page.run("byId('message').focus()")
        alice.page.type(text)

    direct, room, lobby = [False, "robot-of-drafts"], [True, "open-already"], [True, "lobby"]
    write(direct, "half to the robot")
    write(room, "half to the room")
    write(lobby, "/msg robot-of-drafts hello")
    alice.page.press("Enter")
    bot.until("hello")
    assert alice.page.run(field) == ["@ robot-of-drafts", "half to the robot"]
    alice.page.run("open(roomNamed('lobby'))")
    assert alice.page.run(field) == ["# lobby", ""]
    write(lobby, "/join open-already")
    alice.page.press("Enter")
    alice.page.wait("byId('room-name').textContent === '# open-already'")
    assert alice.page.run(field) == ["# open-already", "half to the room"]
    write(lobby, "half to the lobby")
    write(direct, "/leave")
    alice.page.press("Enter")
    alice.page.wait("!conversations.has('@robot-of-drafts') && byId('room-name').textContent === '# lobby'")
    assert alice.page.run(field) == ["# lobby", "half to the lobby"]
    alice.page.run("open(directWith('robot-of-drafts'))")
    assert alice.page.run(field) == ["@ robot-of-drafts", ""]
    alice.page.reload()
    alice.page.wait("connection.replayed")
    assert alice.page.run("kept.read(ofMe('drafts'), {})") == {
        "#lobby": "half to the lobby",
        "#open-already": "half to the room",
    }


def test_the_finder_is_used_with_arrows_and_finds_people(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bot = server.bot("robot-of-finding", rooms={"lobby": None, "find-a": None, "find-b": None})
    bot.ask(type="topic", room="find-b", topic="things that were lost")
    alice.page.wait("current.people.has('robot-of-finding')")
    find(alice, "find-")
    alice.page.wait("finder.found.length === 3")
    chosen = "document.getElementById(byId('finder-name').getAttribute('aria-activedescendant')).innerText"
    # What is there, before a new room with what was typed as its name.
    assert "find-a" in alice.page.run(chosen)
    alice.page.press("ArrowUp")
    assert "enter or create this room" in alice.page.run(chosen)
    alice.page.press("ArrowUp")
    assert alice.page.run(chosen).split("\n")[1:] == ["find-b", "1 person · things that were lost"]
    alice.page.press("Enter")
    alice.page.wait("byId('room-name').textContent === '# find-b'")
    alice.page.run("open(roomNamed('lobby'))")
    find(alice, "robot-of-fin")
    alice.page.press("Enter")
    alice.page.wait("byId('room-name').textContent === '@ robot-of-finding'")


def test_what_is_unread_is_still_unread_after_a_reload_and_is_opened_where_it_begins(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    # Nothing has been said here yet.
    enter(alice, "news")
    alice.page.run("open(roomNamed('lobby'))")
    bot = server.bot("robot-of-the-news", rooms={"news": None})
    for number in range(1, 121):
        bot.ask(type="chat", room="news", message=f"news {number}")
    alice.page.wait("knownRoom('news').unread === 120")
    alice.page.reload()
    alice.page.wait("document.querySelector('#rooms .unread .badge')?.textContent === '99+'")
    assert alice.page.run("knownRoom('news').unread") == 120
    alice.page.run("open(roomNamed('news'))")
    alice.page.wait("document.querySelector('.fresh')")
    place = alice.page.run(
        """(() => {
            const row = document.querySelector('.fresh').parentElement;
            const below = row.getBoundingClientRect().top - byId('log').getBoundingClientRect().top;
            return [row.querySelector('.text').textContent, below >= 0 && below < byId('log').clientHeight, view.isAtEnd];
        })()"""
    )
    assert place == ["news 1", True, False]
    alice.page.press("Escape")
    alice.page.wait("knownRoom('news').unread === 0")
    alice.page.reload()
    alice.page.wait("connection.replayed")
    assert alice.page.run("knownRoom('news').unread") == 0


def test_direct_messages_that_are_unread_are_still_unread_after_a_reload(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    bot = server.bot("robot-of-letters")
    count = "conversations.get('@robot-of-letters')?.unread"
    for text in ("one", "two", "three"):
        bot.ask(type="dm", to="alice", message=text)
        if text == "one":
            alice.page.wait(f"{count} === 1")
            alice.page.run("open(directWith('robot-of-letters'))")
            alice.page.wait(f"{count} === 0")
            alice.page.run("open(roomNamed('lobby'))")
    alice.page.wait(f"{count} === 2")
    alice.page.reload()
    alice.page.wait("document.querySelector('#directs .mentioned .badge')?.textContent === '2'")
    assert alice.page.run("document.title") == "(2) lobby – geventchat"
    alice.page.run("open(directWith('robot-of-letters'))")
    alice.wait_for("three")
    assert alice.page.run("document.querySelector('.fresh').parentElement.innerText.includes('two')")
    alice.page.wait(f"{count} === 0")
    alice.page.reload()
    alice.page.wait("connection.replayed")
    assert alice.page.run(count) == 0


def test_ids_that_were_read_in_another_epoch_count_for_nothing(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    alice.page.run("kept.write(ofMe('read'), { epoch: 'before', ids: { '#elsewhere': 17 } }); keepReadNow()")
    read = alice.page.run("[kept.read(ofMe('read'), {}), connection.epoch]")
    assert read[0]["epoch"] == read[1]
    assert "#elsewhere" not in read[0]["ids"]


def test_what_comes_while_another_window_is_in_front_is_unread_until_the_page_is_looked_at(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    bot = server.bot("robot-behind")
    alice.page.run("document.hasFocus = () => false")
    bot.ask(type="chat", message="alice: hello")
    alice.page.wait("document.title === '(1) lobby – geventchat'")
    alice.page.run("delete document.hasFocus; window.dispatchEvent(new Event('focus'))")
    alice.page.wait("document.title === 'lobby – geventchat'")


def test_the_title_of_a_hidden_tab_says_what_is_unread(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bot = server.bot("robot-of-titles", rooms={"lobby": None})
    # As browsers do with a hidden tab.
    alice.page.run("document.hasFocus = () => false; requestAnimationFrame = () => 0")
    assert alice.page.run("document.title") == "lobby – geventchat"
    bot.ask(type="chat", message="to everyone")
    alice.page.wait("current.unread === 1")
    assert alice.page.run("document.title") == "• lobby – geventchat"
    bot.ask(type="dm", to="alice", message="to you")
    alice.page.wait("conversations.get('@robot-of-titles')?.unread === 1")
    assert alice.page.run("document.title") == "(1) lobby – geventchat"


def test_only_the_first_message_of_the_last_absence_is_called_new(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    enter(alice, "absences")
    bot = server.bot("robot-of-absences", rooms={"absences": None})
    new = "[...document.querySelectorAll('.fresh')].map((one) => one.parentElement.querySelector('.text').textContent)"

    def while_away(*texts: str) -> None:
        alice.page.run("document.hasFocus = () => false")
        for text in texts:
            bot.ask(type="chat", room="absences", message=text)
            alice.wait_for(text)
        alice.page.run("delete document.hasFocus; window.dispatchEvent(new Event('focus'))")
        alice.page.wait("current.unread === 0")

    while_away("one", "two")
    assert alice.page.run(new) == ["one"]
    while_away("three")
    assert alice.page.run(new) == ["three"]
    alice.say("an answer")
    alice.wait_for("an answer")
    assert alice.page.run(new) == []
    while_away("four")
    assert alice.page.run(new) == ["four"]
    # The user has read these.
    bot.ask(type="chat", room="absences", message="five")
    alice.wait_for("five")
    assert alice.page.run(new) == ["four"]


def test_arrivals_and_departures_are_shown_and_counted(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    enter(alice, "hall")
    alice.page.run("showPeoplePanel(true)")
    bot = server.bot("visitor-of-the-hall", rooms={"hall": None})
    listed = "[...document.querySelectorAll('#people-list .name')].map((one) => one.textContent)"
    alice.page.wait(f"{listed}.length === 2 && byId('people-count').textContent === '2'")
    assert alice.page.run(listed) == ["alice (you)", "visitor-of-the-hall"]
    # Someone who uses the list is not disturbed.
    alice.page.run("document.querySelector('#people-list .item').focus()")
    bot.ask(type="topic", room="hall", topic="quiet, please")
    bot.ask(type="leave", room="hall")
    alice.page.wait(f"{listed}.length === 1 && byId('people-count').textContent === '1'")
    assert alice.page.run("document.activeElement.matches('#people-list .item')")
    notes = alice.page.run(
        "[...document.querySelectorAll('#rows .event')].map((one) => one.innerText).join(' · ')"
    )
    assert notes.split("\n")[-1] == (
        "visitor-of-the-hall joined · visitor-of-the-hall set the topic: quiet, please · visitor-of-the-hall left"
    )
    alice.page.run("current.peopleCount = 700; changed('people')")
    alice.page.wait("byId('more-people').textContent === 'and 699 more people'")


def test_someone_who_is_ignored_is_not_heard_on_the_next_connection_either(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    rooms = {"lobby": None, "noise": None}
    noisy, quiet = server.bot("noisy", rooms=rooms), server.bot("quiet", rooms=rooms)
    enter(alice, "noise")
    noisy.ask(type="chat", room="noise", message="listen")
    alice.wait_for("listen")
    alice.page.click("#rows .first .author")
    alice.page.click("#person-ignore")
    alice.page.wait("me.ignored.has('noisy')")

    def after_noise(text: str) -> list[str]:
        noisy.ask(type="chat", room="noise", message="NOISE")
        noisy.ask(type="dm", to="alice", message="NOISE")
        quiet.ask(type="chat", room="noise", message=text)
        alice.wait_for(text)
        return alice.texts()

    # As from a server that does not know yet who is ignored.
    alice.page.run("EVENTS.typing({ room: 'noise', username: 'noisy' })")
    quiet.ask(type="typing", room="noise")
    alice.page.wait("byId('typing').textContent === 'quiet is typing …'")
    assert after_noise("once") == ["listen", "once"]
    alice.lose_connection()
    # What is missed, too.
    noisy.ask(type="chat", room="noise", message="NOISE")
    alice.page.run("start()")
    alice.page.wait("connection.replayed")
    assert after_noise("twice") == ["listen", "once", "twice"]
    assert alice.page.run("conversations.has('@noisy')") is False
    alice.page.click("#rows .first .author")
    assert alice.page.run("byId('person-ignore').textContent") == "Hear again"
    alice.page.click("#person-ignore")
    alice.page.wait("!me.ignored.size")
    noisy.ask(type="chat", room="noise", message="at last")
    alice.wait_for("at last")


def test_a_person_is_written_to_and_mentioned_in_the_dialog(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    enter(alice, "meeting")
    server.bot("met", rooms={"meeting": None}).ask(type="chat", room="meeting", message="click me")
    alice.wait_for("click me")
    alice.page.run("byId('message').focus()")
    alice.page.type("hello ")
    alice.page.click("#rows .first .author")
    alice.page.click("#person-mention")
    alice.page.wait("byId('message').value === 'hello @met '")
    alice.page.click("#rows .first .author")
    alice.page.click("#person-write")
    alice.page.wait("byId('room-name').textContent === '@ met'")


def test_the_list_of_rooms_keeps_the_focus_and_shows_the_open_room(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    rooms = [f"room-{number:02}" for number in range(30)]
    bot = server.bot("robot-of-lists", rooms=dict.fromkeys(rooms))
    alice.page.run(
        f"(async () => {{ for (const room of {rooms}) await enter(room); open(roomNamed('lobby')); }})()"
    )
    alice.page.wait("document.querySelectorAll('#rooms .item').length === 31")
    alice.page.press("ArrowUp", "Alt")
    alice.page.wait("byId('room-name').textContent === '# room-29'")
    inside = """(() => {
        const boxOf = (selector) => document.querySelector(selector).getBoundingClientRect();
        const [item, lists] = [boxOf('#rooms [aria-current]'), boxOf('.lists')];
        return item.top >= lists.top && item.bottom <= lists.bottom;
    })()"""
    alice.page.wait(inside)
    # A message that arrives elsewhere changes nothing for someone who uses the list.
    alice.page.run("window.chosen = document.querySelectorAll('#rooms .item')[3]; chosen.focus()")
    bot.ask(type="chat", room="room-00", message="hello")
    alice.page.wait("document.querySelector('#rooms .unread')")
    assert alice.page.run("document.activeElement === window.chosen && chosen.isConnected")
    alice.page.run("window.chosen.click()")
    alice.page.wait("byId('room-name').textContent === '# room-02'")
    assert alice.page.run("document.querySelectorAll('#rooms [aria-current]').length") == 1
    alice.say("/leave")
    alice.page.wait("document.querySelectorAll('#rooms .item').length === 30")
