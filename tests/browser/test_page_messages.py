"""Messages on the page: how they are written, and how they are shown."""

from __future__ import annotations

import json

from tests.browser.chat import STOP_THE_CLOCK, ChatPage, ChatServer, OpenPage


def enter(page: ChatPage, room: str) -> None:
    """Enter a room, and open it."""
    page.page.run(f"enter({json.dumps(room)})")
    page.page.wait(f"byId('room-name').textContent === {json.dumps(f'# {room}')}")


def write(page: ChatPage, text: str) -> None:
    """Type a text in place of what is in the field."""
    page.page.run("byId('message').value = ''; byId('message').focus()")
    page.page.type(text)


# Of a phone, a tablet and a desk.
WIDTHS = (320, 768, 1440)


def test_what_names_somebody_is_a_mention_and_what_only_contains_the_name_is_not(
    server: ChatServer, open_page: OpenPage
):
    page = open_page(server)
    texts = ["alice", "@alice", "Alice: hi", "hi ALICE!", "(alice)", "ask alice, please"]
    others = ["malice", "alices", "alice2", "alice-b", "x-alice", "me@alice", "www.alice", "alіce"]
    assert page.page.run(f"setName('alice'); {json.dumps(texts + others)}.filter(mentionsMe)") == texts
    names = ["a.b: hi", "axb: hi"]
    assert page.page.run(f"setName('a.b'); {json.dumps(names)}.filter(mentionsMe)") == names[:1]
    page.page.run("setName('')")


def test_messages_in_a_row_have_one_name_a_pause_has_a_time_and_a_day_its_date(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    enter(alice, "days")
    minutes = [("bob", 0), ("bob", 1), ("carol", 2), ("carol", 8), ("carol", 24 * 60 + 3)]
    messages = [
        {
            "room": "days",
            "id": n,
            "username": name,
            "message": str(n),
            "timestamp_ms": 1795255200000 + at * 60_000,
        }
        for n, (name, at) in enumerate(minutes, 1)
    ]
    alice.page.run(f"{json.dumps(messages)}.forEach((one) => EVENTS.chat(one))")
    alice.wait_for("5")
    rows = alice.page.run(
        """[...document.querySelectorAll('#rows .row')].map((row) =>
            [row.classList.contains('first'), row.querySelector('.author').textContent, row.querySelector('.day') !== null])"""
    )
    assert rows == [
        [True, "bob", True],
        [False, "bob", False],
        [True, "carol", False],
        [True, "carol", False],
        [True, "carol", True],
    ]
    time = alice.page.run(
        "(({ dateTime, textContent }) => [dateTime, textContent])(document.querySelector('#rows time'))"
    )
    assert time == ["2026-11-21T10:00:00.000Z", alice.page.run("clock.format(1795255200000)")]
    # That of a message in a row is shown beside it, where there is little space.
    beside = "document.querySelector('#rows .row:not(.first) time').getBoundingClientRect().left"
    assert alice.page.run(f"{beside} >= byId('log').getBoundingClientRect().left")


def test_code_and_links_within_a_text_are_shown_as_such(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    enter(alice, "texts")
    text = "use `nc -N` or ``a ` b`` (see https://docs.example/nc_(1)), @bob"
    server.bot("robot-of-texts", rooms={"texts": None}).ask(type="chat", room="texts", message=text)
    alice.page.wait("document.querySelector('#rows .text a')")
    parts = "[...document.querySelectorAll('#rows .text *')].map((one) => [one.localName, one.textContent])"
    assert alice.page.run(parts) == [
        ["code", "nc -N"],
        ["code", "a ` b"],
        ["a", "https://docs.example/nc_(1)"],
        ["span", "@bob"],
    ]


def test_a_line_of_code_that_is_deleted_divides_its_block(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    enter(alice, "code")
    bot = server.bot("robot-of-code", rooms={"code": None})
    ids = [bot.ask(type="chat", room="code", message=f"`{text}`")["id"] for text in ("one", "two", "three")]
    blocks = """[...document.querySelectorAll('#rows .row:not(.event)')].map((row) =>
        ['code-begins', 'code-ends'].map((part) => row.classList.contains(part)))"""
    alice.wait_for("three")
    assert alice.page.run(blocks) == [[True, False], [False, False], [False, True]]
    # Who has made the room can delete everything in it.
    alice.page.run(f"request({{ type: 'delete', room: 'code', id: {ids[1]} }})")
    alice.wait_for("This message was deleted.")
    assert alice.page.run(blocks) == [[True, True], [False, False], [True, True]]


def test_somebody_types_until_the_message_comes_or_nothing_more_does(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bots = [server.bot(f"typist-{letter}", rooms={"typed": None}) for letter in "abcd"]
    enter(alice, "typed")
    alice.page.run(STOP_THE_CLOCK)
    for count, shown in enumerate(
        [
            "typist-a is typing …",
            "typist-a and typist-b are typing …",
            "typist-a, typist-b and typist-c are typing …",
            "Several people are typing …",
        ]
    ):
        bots[count].ask(type="typing", room="typed")
        alice.page.wait(f"byId('typing').textContent === {json.dumps(shown)}")
    bots[0].ask(type="chat", room="typed", message="done")
    alice.page.wait("byId('typing').textContent === 'typist-b, typist-c and typist-d are typing …'")
    alice.page.run("window.now += TYPING_MS + 1")
    alice.page.wait("byId('typing').textContent === ''")
    alice.page.run("EVENTS.typing({ room: 'typed', username: 'typist-b' })")
    alice.page.wait("byId('typing').textContent === 'typist-b is typing …'")
    alice.lose_connection()
    alice.page.wait("byId('typing').textContent === ''")


def test_others_see_that_one_types_now_and_then_but_no_commands_and_no_old_drafts(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    bot = server.bot("robot-of-typing", rooms={"quiet-room": None})
    enter(alice, "quiet-room")
    alice.page.run(
        STOP_THE_CLOCK
        + """window.typed = 0; window.transmitted = transmit;
        transmit = (one) => { window.typed += one.type === 'typing'; window.transmitted(one); }"""
    )
    write(alice, "/topic x")
    assert alice.page.run("typed") == 0
    write(alice, "half")
    alice.page.type(" a")
    alice.page.type(" word")
    assert bot.until('"typing"')
    assert alice.page.run("typed") == 1
    alice.page.run("window.now += TYPING_EVERY_MS + 1")
    alice.page.type("s")
    assert alice.page.run("typed") == 2
    alice.page.run("open(roomNamed('lobby')); typingSentAt = 0; open(roomNamed('quiet-room'))")
    assert alice.page.run("[byId('message').value, typed]") == ["half a words", 2]


def test_what_was_typed_last_is_there_after_a_reload_in_its_room_only(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    enter(alice, "drafts")
    write(alice, "half a")
    alice.page.reload()
    alice.page.wait("connection.replayed && byId('room-name').textContent === '# drafts'")
    assert alice.page.run("byId('message').value") == "half a"
    alice.page.run("open(roomNamed('lobby'))")
    assert alice.page.run("byId('message').value") == ""


def test_what_was_typed_last_is_there_after_the_user_has_logged_out(server: ChatServer, open_page: OpenPage):
    page = open_page(server, "writer-who-leaves")
    write(page, "half a")
    page.page.click("#me")
    page.page.click("#log-out")
    page.page.wait("!byId('login').hidden")
    page.page.reload()
    page.log_in("writer-who-leaves")
    assert page.page.run("byId('message').value") == "half a"


def test_what_was_typed_to_somebody_is_there_after_a_reload_and_in_another_tab(
    server: ChatServer, open_page: OpenPage
):
    page = open_page(server, "shy")
    page.page.run("open(directWith('Nobody-Yet'))")
    write(page, "half a")
    page.page.reload()
    page.page.wait("connection.replayed && byId('room-name').textContent === '@ Nobody-Yet'")
    assert page.page.run("byId('message').value") == "half a"
    # Another tab has only what the browser keeps for all of them.
    page.page.run("addEventListener('pagehide', () => sessionStorage.clear())")
    page.page.reload()
    page.log_in("shy")
    write(page, "elsewhere")
    page.page.wait("kept.read(ofMe('drafts'), {})['#lobby'] === 'elsewhere'")
    page.page.run("open(directWith('Nobody-Yet'))")
    assert page.page.run("byId('message').value") == "half a"


def test_what_is_too_long_or_too_much_at_once_is_not_sent_and_stays(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    for text, wrong in [
        ("é" * 2500, "Too long by "),
        ("line\n" * 101, "101 lines are too many at once: 100 at most."),
        ("/msg nobody-here " + "x" * 4096, "Too long by "),
    ]:
        write(alice, text)
        alice.page.press("Enter")
        assert alice.page.run("byId('hint').textContent").startswith(wrong)
        assert alice.page.run("byId('message').value.length") == len(text)
        assert alice.page.run("unsent.length") == 0
    assert alice.page.run("connection.online")


def test_a_refused_message_can_be_discarded(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    alice.page.run("open(directWith('nobody-here'))")
    alice.say("hello?")
    alice.page.wait("document.querySelector('.failure')?.innerText.includes('User not found')")
    alice.page.click(".failure button:last-child")
    alice.page.wait("!unsent.length && !document.querySelector('#pending .row')")


def test_a_message_that_waits_for_somebody_who_is_away_says_so(server: ChatServer, open_page: OpenPage):
    page = open_page(server, "sender-of-letters")
    away = server.bot("away-for-a-while")
    assert away.ask(type="register", password="correct horse")["type"] == "ok"
    page.page.run("byId('register-password').value = 'correct horse'; register()")
    page.page.wait("me.hasAccount")
    page.page.run("open(directWith('away-for-a-while'))")
    page.say("are you there?")
    page.wait_for("are you there?")
    away.send('{"type": "quit"}')
    away.until("goodbye")
    for text in ("read this", "later"):
        page.say(text)
        page.wait_for(text)
    waits = "[...document.querySelectorAll('#rows .row')].map((row) => row.innerText.includes('will be delivered'))"
    assert page.page.run(waits) == [False, True, False]


def test_a_word_is_chosen_with_enter_and_the_focus_goes_back_with_shift_tab(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    server.bot("tabby")
    alice.page.wait("current.people.has('tabby')")
    write(alice, "nihon")
    # An input method uses this Enter itself.
    alice.page.run(
        """byId('message').dispatchEvent(new KeyboardEvent('keydown',
            { key: 'Enter', isComposing: true, bubbles: true, cancelable: true }))"""
    )
    assert alice.page.run("[byId('message').value, unsent.length]") == ["nihon", 0]
    write(alice, "@tab")
    alice.page.press("Tab", "Shift")
    assert alice.page.run("byId('message').value") == "@tab"
    assert alice.page.run("document.activeElement !== byId('message')")


def test_the_latest_message_stays_in_sight_when_something_else_needs_space(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice", width=320)
    bot = server.bot("robot-of-sizes", rooms={"sizes": None})
    enter(alice, "sizes")
    for number in range(30):
        bot.ask(type="chat", room="sizes", message=f"message {number}")
    alice.wait_for("message 29")
    below = "((log) => log.scrollHeight - log.scrollTop - log.clientHeight)(byId('log'))"
    # Scrolling is reported with the next frame.
    still = (
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
    )
    alice.page.run(still)
    height = alice.page.run("byId('log').clientHeight")
    write(alice, "a text\nof several\nlines")
    alice.page.wait(f"byId('log').clientHeight < {height} && {below} < 2")
    alice.page.run("byId('message').value = ''; edited()")
    alice.page.wait(f"byId('log').clientHeight === {height} && {below} < 2")
    alice.page.run(still)
    alice.page.run("showBanner('The connection is lost.')")
    alice.page.wait(f"byId('log').clientHeight < {height} && {below} < 2")
    alice.page.run(still)
    # As when the keyboard of a phone opens.
    alice.page.resize(320, 360)
    alice.page.wait(f"byId('log').clientHeight < 300 && {below} < 2")
    bot.ask(type="chat", room="sizes", message="message 30")
    alice.wait_for("message 30")
    alice.page.wait(f"{below} < 2")


def test_the_page_follows_a_busy_room(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    enter(alice, "busy")
    # A message arrives between the scrolling of one frame and the next frame.
    followed = alice.page.run(
        """(async () => {
            const followed = [];
            for (let id = 1; id <= 50; id += 1) {
                EVENTS.chat({ room: 'busy', id, username: 'bob', message: `message ${id}`, timestamp_ms: id });
                view.scrolled();
                followed.push(view.isAtEnd);
                await new Promise(requestAnimationFrame);
            }
            return followed;
        })()"""
    )
    assert all(followed)
    alice.wait_for("message 50")
    assert alice.page.run("byId('jump').hidden")


def test_a_drawer_is_closed_with_escape_and_what_it_hides_cannot_be_reached(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice", width=320)
    assert alice.page.run("getComputedStyle(byId('sidebar')).visibility") == "hidden"
    alice.page.click("#open-sidebar")
    alice.page.wait("byId('sidebar').contains(document.activeElement)")
    alice.page.press("Escape")
    alice.page.wait("getComputedStyle(byId('sidebar')).visibility === 'hidden'")
    alice.page.click("#show-people")
    alice.page.wait("!byId('people').hidden")
    alice.page.press("Escape")
    alice.page.wait("byId('people').hidden && byId('shade').hidden")
    # In a wide window it is no drawer, and nothing lies over the room.
    alice.page.click("#open-sidebar")
    alice.page.resize(900, 720)
    alice.page.wait("byId('shade').hidden")


# Which of the elements that match the selectors are not in sight, or have something over them.
OUT_OF_REACH = """(selectors) => selectors.filter((selector) => {
    const found = [...document.querySelectorAll(selector)];
    return !found.length || found.some((element) => {
        const { x, y, right, bottom, width, height } = element.getBoundingClientRect();
        const top = document.elementFromPoint(x + width / 2, y + height / 2);
        return !width || x < 0 || y < 0 || right > innerWidth || bottom > innerHeight || !element.contains(top);
    });
})"""
WIDER_THAN_THEIR_PLACE = """(selectors) => selectors.filter((selector) =>
    [...document.querySelectorAll(selector)].some((element) => element.scrollWidth > element.clientWidth))"""


def out_of_reach(page: ChatPage, *selectors: str) -> list[str]:
    found: list[str] = page.page.run(f"({OUT_OF_REACH})({json.dumps(selectors)})")
    return found


def wider_than_their_place(page: ChatPage, *selectors: str) -> list[str]:
    found: list[str] = page.page.run(f"({WIDER_THAN_THEIR_PLACE})({json.dumps(selectors)})")
    return found


def test_everything_can_be_reached_and_nothing_is_too_wide_on_a_phone_a_tablet_and_a_desk(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, prefers_reduced_motion="reduce")
    for width in WIDTHS:
        alice.page.resize(width, 720)
        assert not out_of_reach(alice, "#login input", "#login button"), width
        assert not wider_than_their_place(alice, "html", ".card"), width
    alice.log_in("alice")
    room = "room-whose-name-is-long-enough"
    enter(alice, room)
    bot = server.bot("robot-with-long-name", rooms={room: None})
    bot.ask(type="topic", room=room, topic="what we talk about " * 12)
    bot.ask(type="dm", to="alice", message="psst")
    for text in ("a" * 300, "`" + "x" * 300 + "`", "alice: " + "long words " * 30):
        bot.ask(type="chat", room=room, message=text)
    alice.page.run("showBanner('The connection is lost. '.repeat(5), 'Try now', () => {})")
    alice.page.wait("document.querySelector('.row.mentions') && conversations.size > 2")
    for width in WIDTHS:
        alice.page.resize(width, 720)
        alice.page.run("showPeoplePanel(false)")
        assert not out_of_reach(alice, "#room-name", "#show-people", "#banner button", "#message", "#send")
        assert not wider_than_their_place(alice, "html", ".room", ".room > header", "#banner", "#log"), width
        narrow = alice.page.run("getComputedStyle(byId('sidebar')).visibility === 'hidden'")
        assert narrow == (width < 600)
        if narrow:
            alice.page.click("#open-sidebar")
            alice.page.wait("byId('sidebar').getBoundingClientRect().x === 0")
            assert not out_of_reach(alice, "#close-sidebar")
        assert not out_of_reach(alice, "#find", "#rooms .item", "#directs .item", "#me"), width
        assert not wider_than_their_place(alice, "#sidebar", "#sidebar .lists", "#me"), width
        if narrow:
            alice.page.click("#close-sidebar")
            alice.page.wait("getComputedStyle(byId('sidebar')).visibility === 'hidden'")
        alice.page.click("#show-people")
        alice.page.wait("document.querySelectorAll('#people-list .item').length === 2")
        assert not out_of_reach(alice, "#close-people", "#people-list .item"), width
        assert not wider_than_their_place(alice, "html", "#people", "#people-list", "#log"), width
        # On a desk it stands beside the room.
        assert bool(out_of_reach(alice, "#send")) == (width < 1000)
        alice.page.click("#close-people")
        alice.page.wait("byId('people').hidden")
        for dialog, opening in {
            "settings": "showSettings(); byId('account-own').hidden = false",
            "finder": "showFinder(); byId('finder-key').hidden = false",
            "person": "showPerson('somebody-with-a-name')",
        }.items():
            alice.page.run(opening)
            alice.page.wait(f"byId('{dialog}').open")
            assert not wider_than_their_place(alice, f"#{dialog}"), (dialog, width)
            assert not out_of_reach(alice, f"#{dialog}"), (dialog, width)
            alice.page.run(f"byId('{dialog}').close()")


def test_each_text_is_written_in_its_direction(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    enter(alice, "directions")
    bot = server.bot("robot-of-directions", rooms={"directions": None})
    for text in ("שלום, world!", "hello, עולם!", "`שלום = 1`"):
        bot.ask(type="chat", room="directions", message=text)
    alice.page.wait("document.querySelectorAll('#rows .text').length === 3")
    directions = "[...document.querySelectorAll('#rows .text')].map((one) => getComputedStyle(one).direction)"
    assert alice.page.run(directions) == ["rtl", "ltr", "ltr"]
    write(alice, "שלום")
    assert alice.page.run("getComputedStyle(byId('message')).direction") == "rtl"


def test_what_the_page_says_is_read_out_by_a_screen_reader(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    roles = alice.page.run(
        "['toasts', 'banner', 'hint', 'login-error', 'finder-error'].map((id) => byId(id).role)"
    )
    assert roles == ["status", "status", "status", "alert", "alert"]
    named = alice.page.run("[byId('message').labels[0].textContent, byId('send').getAttribute('aria-label')]")
    assert named == ["Message", "Send"]
