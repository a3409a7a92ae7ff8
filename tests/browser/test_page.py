"""The chat page in a real browser, beside `nc` and a bot."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.browser.chat import ChatPage, ChatServer, OpenPage, below_a_path, chat
from tests.browser.chromium import Chromium, PageFailed
from tests.patience import killed_at_the_end

STATIC = Path(__file__).resolve().parents[2] / "geventchat/web/static"


def test_two_browsers_nc_and_a_bot_are_in_one_room(open_page: OpenPage):
    netcat = shutil.which("nc")
    if netcat is None:
        pytest.skip("nc is not installed (sudo .ci/packages)")
    with chat() as server:
        alice, bob = open_page(server, "alice"), open_page(server, "bob")
        bot = server.bot("robot")
        command = [netcat, server.host, str(server.ports["line"])]
        with killed_at_the_end(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ) as carol:
            assert carol.stdin is not None
            assert carol.stdout is not None
            carol.stdin.write("LOGIN carol\nMSG hello from nc\n")
            carol.stdin.flush()
            for page in (alice, bob):
                page.wait_for("hello from nc")
            alice.say("hello from alice")
            bob.wait_for("hello from alice")
            bob.say("hello from bob")
            alice.wait_for("hello from bob")
            assert bot.ask(type="chat", message="hello from robot")["type"] == "ok"
            for page in (alice, bob):
                page.wait_for("hello from robot")
                names = page.page.run("[...current.people.values()]")
                assert sorted(names) == ["alice", "bob", "carol", "robot"]
            lines = [carol.stdout.readline() for _ in range(4)]
            assert lines == [
                "OK\n",
                "MSG alice hello from alice\n",
                "MSG bob hello from bob\n",
                "MSG robot hello from robot\n",
            ]
            carol.kill()
        alice.page.wait("current.peopleCount === 3")


MARKUP = [
    "<script>window.harmed = true</script>",
    "<img src=x onerror='window.harmed = true'>",
    "</div><style>* { display: none }</style><h1>big</h1>",
    "&lt;b&gt; &amp; <b>bold</b>",
    "javascript:alert(1) data:text/html,<script>alert(1)</script>",
    "http://evil.example/\"onmouseover='alert(1)'",
    "`<script>alert(1)</script>` and ``<b>``",
    "@<b>x</b> @alice<i>",
    "`" * 4000,
    "a" * 3500,
    "{{constructor.constructor('alert(1)')()}} ${alert(1)} %3Cscript%3E",
]


def test_what_looks_like_markup_is_text(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    mallory = server.person("mallory")
    mallory.say(*MARKUP)
    mallory.send("TOPIC <img src=x onerror=alert(1)>", f"DM alice {MARKUP[1]}")
    alice.page.wait("conversations.has('@mallory') && byId('topic').textContent.startsWith('<img')")
    alice.wait_for(MARKUP[-1])
    shown = alice.texts()[-len(MARKUP) :]
    # Backticks around code are not shown; everything else is.
    for text, typed in zip(shown, MARKUP, strict=True):
        assert text.replace("`", "") == typed.replace("`", "")
    assert alice.page.run("byId('topic').textContent") == "<img src=x onerror=alert(1)>"
    kinds = alice.page.run(
        "[...new Set([...document.querySelectorAll('#log .text *')].map((one) => one.localName))]"
    )
    assert set(kinds) <= {"a", "code", "span"}
    links = alice.page.run(
        # Tests before this one can have left links in the room.
        f"[...document.querySelectorAll('#rows .row .text')].slice(-{len(MARKUP)})"
        ".flatMap((text) => [...text.querySelectorAll('a')]).map((one) => [one.protocol, one.rel, one.target])"
    )
    assert links == [["http:", "noopener noreferrer", "_blank"]]
    assert alice.page.run("window.harmed") is None
    alice.page.run("open(directWith('mallory'))")
    alice.wait_for(MARKUP[1])


def test_names_of_people_and_rooms_that_look_like_markup_are_text_wherever_they_are_shown(
    server: ChatServer, open_page: OpenPage
):
    harmful = "<img src=x onerror='window.harmed = true'>"
    alice = open_page(server)
    alice.log_in(harmful, within="byId('login-error').textContent")
    alice.log_in("alice")
    for command in ("join", "msg", "kick", "invite"):
        alice.page.run("byId('hint').textContent = ''; byId('message').value = ''")
        alice.say(f"/{command} {harmful} {harmful}")
        alice.page.wait(
            "byId('hint').textContent || [...conversations.keys()].some((one) => one.includes('<'))"
        )
    alice.page.run("showFinder()")
    alice.page.type(harmful)
    alice.page.wait("byId('finder').innerText.includes('<img')")
    assert alice.page.run("document.querySelectorAll('img:not([src$=\".png\"])').length") == 0
    assert alice.page.run("window.harmed") is None


def test_a_page_resumes_after_a_restart_without_gaps_and_says_nothing_twice(
    tmp_path: Path, open_page: OpenPage
):
    with chat("--data", str(tmp_path)) as server:
        alice = open_page(server, "alice")
        bob = server.person("bob")
        bob.say("one", "two")
        alice.wait_for("two")
        for how in (signal.SIGTERM, signal.SIGKILL):
            before = alice.texts()
            bob.send("PING written")
            bob.until("PONG")
            if how is signal.SIGKILL:
                # Messages of the last fraction of a second can be lost.
                server.bot("waits").ask(type="history")
            server.stop(how)
            alice.page.wait("!connection.online && !byId('banner').hidden")
            alice.say(f"written during {how.name}")
            alice.page.wait("document.querySelectorAll('#pending .row').length === 1")
            server.start()
            bob = server.person("bob")
            bob.say(f"back after {how.name}")
            alice.page.run("connection.pause = 1; connect()")
            alice.wait_for(f"written during {how.name}")
            alice.wait_for(f"back after {how.name}")
            # After a kill ids go on above those that were reserved, and the page asks for what could be between them.
            alice.page.wait("document.querySelector('#rows .text')?.textContent === 'one'")
            now = alice.texts()
            assert now[: len(before)] == before
            assert sorted(now[len(before) :]) == [f"back after {how.name}", f"written during {how.name}"]
        # The log of the browser has the refused connections.
        alice.page.errors = [error for error in alice.page.errors if "ERR_" not in error]


def test_a_page_reconnects_by_itself(open_page: OpenPage):
    with chat() as server:
        alice = open_page(server, "alice")
        server.stop(signal.SIGKILL)
        alice.page.wait("!connection.online && !byId('banner').hidden")
        alice.say("written meanwhile")
        server.start()
        bob = server.person("bob")
        assert bob.until("written meanwhile")[-1] == "MSG alice written meanwhile"
        alice.page.wait("connection.replayed && byId('banner').hidden && !unsent.length")
        # The log of the browser has the refused connections.
        alice.page.errors = [error for error in alice.page.errors if "ERR_" not in error]


def test_a_message_whose_confirmation_was_lost_is_said_once(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bob = server.person("bob-of-once")
    alice.page.run("window.heard = receive; receive = () => {}")
    alice.say("only once")
    bob.until("only once")
    alice.lose_connection()
    alice.page.reload()
    alice.wait_for("only once")
    alice.say("the next")
    alice.wait_for("the next")
    assert bob.until("the next")[-1] == "MSG alice the next"
    assert alice.texts()[-2:] == ["only once", "the next"]


def test_a_message_is_sent_again_under_its_key(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    alice.lose_connection()
    alice.say("under one key")
    key = alice.page.run("kept.read(ofMe('unsent'), [])[0].key")
    alice.page.run(
        "window.sent = []; window.transmitted = transmit; transmit = (one) => { sent.push(one); transmitted(one); }"
    )
    alice.page.run("start()")
    alice.wait_for("under one key")
    assert alice.page.run("sent.filter((one) => one.type === 'chat').map((one) => one.key)") == [key]


def test_drafts_and_unsent_messages_survive_a_reload(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bob = server.person("bob-of-reload")
    alice.lose_connection()
    alice.say("written without a connection")
    alice.page.type("half a sent")
    alice.page.wait("kept.read(ofMe('drafts'), {})['#lobby'] === 'half a sent'")
    alice.page.reload()
    alice.wait_for("written without a connection")
    assert bob.until("without a connection")[-1] == "MSG alice written without a connection"
    assert alice.page.run("byId('message').value") == "half a sent"
    alice.page.run("byId('message').focus()")
    alice.page.type("ence")
    alice.page.press("Enter")
    assert bob.until("half a")[-1] == "MSG alice half a sentence"


def test_ten_thousand_messages_of_history_are_read_up_to_the_first(open_page: OpenPage):
    with chat("--history-messages", "20000", "--history-bytes", "100000000") as server:
        bob = server.person("bob")
        bob.say(*(f"message {number}" for number in range(1, 10_001)))
        alice = open_page(server, "alice")
        alice.wait_for("message 10000")
        scrolls = alice.page.run(
            """(async () => {
                let scrolls = 0;
                const rows = () => document.querySelectorAll('#rows .row').length;
                while (byId('beginning').hidden || view.from > 0) {
                    byId('log').scrollTop = 0;
                    await new Promise(requestAnimationFrame);
                    if (rows() > MOST_ROWS + SOME_ROWS) throw new Error(`${rows()} rows`);
                    if ((scrolls += 1) > 5000) throw new Error(`stuck at ${current.firstId}`);
                }
                return scrolls;
            })()"""
        )
        assert scrolls
        assert alice.texts()[0] == "message 1"
        ids = alice.page.run("current.items.filter((one) => one.id).map((one) => one.id)")
        assert ids == list(range(1, 10_001))
        bob.say("live")
        alice.page.wait("!byId('jump').hidden && byId('jump').innerText.includes('1 new message')")
        alice.page.click("#jump")
        alice.wait_for("live")
        assert alice.page.run("document.querySelectorAll('#rows .row').length") <= 500


def test_the_place_of_what_is_read_stays_while_older_messages_are_put_before_it(open_page: OpenPage):
    with chat() as server:
        server.person("bob").say(*(f"message {number}" for number in range(1, 401)))
        alice = open_page(server, "alice")
        alice.wait_for("message 400")
        moved = alice.page.run(
            """(async () => {
                const log = byId('log');
                const placeOf = (row) => row.getBoundingClientRect().top;
                const rows = () => [...document.querySelectorAll('#rows .row')];
                const place = () => placeOf(rows().find((row) => row.querySelector('.text')?.textContent === text));
                const first = current.firstId;
                let text, before, frames = 0;
                const frame = async () => {
                    await new Promise(requestAnimationFrame);
                    if ((frames += 1) > 5000) throw new Error(`stuck at ${current.firstId}, row ${view.from}`);
                };
                // A page that has just been filled can go to the end once more.
                do {
                    log.scrollTop = 300;
                    text = rows().find((row) => placeOf(row) > 100).querySelector('.text').textContent;
                    before = place();
                    await frame();
                } while (view.isAtEnd);
                while (current.firstId === first || view.from > 200) await frame();
                return place() - before;
            })()"""
        )
        assert abs(moved) <= 1


def test_a_narrow_screen_has_its_lists_in_drawers_and_nothing_is_wider(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice", width=320)
    bob = server.person("bob-on-the-phone")
    bob.say("a" * 300, "`" + "x" * 200 + "`", "alice: " + "long words " * 30)
    bob.send("DM alice psst")
    alice.page.wait("conversations.has('@bob-on-the-phone')")
    fits = "document.scrollingElement.scrollWidth <= 320 && byId('log').scrollWidth <= 320"
    assert alice.page.run(fits)
    # Shown with the next frame.
    alice.page.wait("!byId('elsewhere').hidden")
    alice.page.click("#open-sidebar")
    alice.page.wait("byId('sidebar').getBoundingClientRect().x === 0")
    alice.page.click("#directs .item")
    alice.wait_for("psst")
    alice.page.wait("byId('sidebar').getBoundingClientRect().right <= 0")
    alice.page.run("open(roomNamed('lobby'))")
    alice.page.wait("byId('room-name').textContent === '# lobby'")
    alice.page.click("#show-people")
    alice.page.wait("document.querySelectorAll('#people-list .item').length > 1")
    assert alice.page.run(fits)
    alice.page.click("#shade", across=0.05)
    alice.page.wait("byId('people').hidden")
    alice.say("sent from a phone")
    alice.wait_for("sent from a phone")


def test_rooms_are_found_entered_and_left_with_the_keyboard_and_unread_messages_are_counted(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    alice.page.press("k", "Control")
    alice.page.wait("byId('finder').open")
    alice.page.type("tea")
    alice.page.press("Enter")
    alice.page.wait("byId('room-name').textContent === '# tea' && !byId('finder').open")
    bot = server.bot("robot-of-rooms", rooms={"tea": None, "lobby": None})
    alice.page.press("ArrowUp", "Alt")
    alice.page.wait("byId('room-name').textContent === '# lobby'")
    for text in ("one", "two", "Alice: three"):
        bot.ask(type="chat", room="tea", message=text)
    alice.page.wait("document.querySelector('#rooms .mentioned .badge')?.textContent === '3'")
    assert alice.page.run("document.title") == "(1) lobby – geventchat"
    alice.page.press("ArrowDown", "Alt")
    alice.wait_for("Alice: three")
    alice.page.wait("!document.querySelector('#rooms .unread')")
    assert alice.page.run("document.querySelector('.row.mentions .mine').textContent") == "Alice"
    bot.ask(type="typing", room="tea")
    alice.page.wait("byId('typing').textContent === 'robot-of-rooms is typing …'")
    alice.say("/topic <green>")
    alice.page.wait("byId('topic').textContent === '<green>'")
    alice.say("/nonsense")
    assert "Unknown command /nonsense" in alice.page.run("byId('hint').textContent")
    alice.page.run("byId('message').value = ''")
    alice.say("@rob")
    alice.wait_for("@rob")
    alice.page.run("byId('message').focus()")
    alice.page.type("@rob")
    alice.page.press("Tab")
    assert alice.page.run("byId('message').value") == "@robot-of-rooms "
    alice.page.run("byId('message').value = ''")
    alice.say("/leave")
    alice.page.wait("!conversations.has('#tea') && byId('room-name').textContent === '# lobby'")


def test_code_keeps_its_lines_and_its_white_space(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bob = server.person("bob-of-code")
    alice.page.run("byId('message').focus()")
    alice.page.type("look:\n```\nif a:\n    b = `c`\n\n```\nnice")
    alice.page.press("Enter")
    alice.wait_for("nice")
    assert alice.texts()[-5:] == ["look:", "if a:", "    b = `c`", " ", "nice"]
    assert bob.until("nice")[-5:] == [
        "MSG alice look:",
        "MSG alice `if a:`",
        "MSG alice ``     b = `c` ``",
        "MSG alice ` `",
        "MSG alice nice",
    ]
    blocks = alice.page.run(
        "[...document.querySelectorAll('#rows .code')].slice(-3).map((one) => one.className)"
    )
    assert blocks == ["row code code-begins", "row code", "row code code-ends"]


def test_a_name_is_registered_and_kept_and_whoever_is_replaced_does_not_come_back(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server)
    alice.page.run("byId('login-name').value = 'keeper'; byId('login-password').value = 'correct horse'")
    alice.page.run("byId('login-remember').checked = true")
    alice.page.click("#login-register")
    alice.page.wait("me.token.startsWith('gct_') && !me.password")
    assert (
        alice.page.run(
            "Object.values(localStorage).concat(Object.values(sessionStorage)).some((one) => one.includes('horse'))"
        )
        is False
    )
    alice.page.reload()
    alice.page.wait("connection.replayed && me.name === 'keeper'")
    other = open_page(server)
    other.log_in("keeper", within="byId('login-error').textContent.includes('registered')")
    other.log_in("keeper", "wrong horse", within="byId('login-error').textContent === 'Wrong password'")
    other.log_in("keeper", "correct horse")
    alice.page.wait("byId('banner').innerText.includes('logged in elsewhere')")
    assert alice.page.run("connection.wanted") is False
    alice.page.run("byId('banner').querySelector('button').click()")
    alice.page.wait("connection.replayed")
    other.page.wait("byId('banner').innerText.includes('logged in elsewhere')")
    alice.page.run("showSettings()")
    alice.page.click("#log-out")
    alice.page.wait("!byId('login').hidden && kept.read('login', null) === null")
    bot = server.bot("keeper", password="correct horse")
    assert bot.ask(type="token")["type"] == "token"


def test_notifications_are_asked_for_only_when_the_user_wants_them(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    alice.page.run(
        """window.shown = []; window.asked = 0;
        window.Notification = class extends EventTarget {
            static permission = "default";
            static async requestPermission() { window.asked += 1; return (this.permission = "granted"); }
            constructor(title, options) { super(); window.shown.push([title, options.body]); }
        };
        document.hasFocus = () => false;"""
    )
    bot = server.bot("robot-of-news")
    bot.ask(type="chat", message="alice, look")
    alice.wait_for("alice, look")
    assert alice.page.run("[window.asked, window.shown]") == [0, []]
    alice.page.click("#me")
    alice.page.click("#notify")
    alice.page.wait("window.asked === 1 && kept.read('notify')")
    bot.ask(type="chat", message="no name here")
    bot.ask(type="chat", message="alice, now")
    bot.ask(type="dm", to="alice", message="and here")
    alice.page.wait("window.shown.length === 3")
    assert alice.page.run("window.shown") == [
        ["geventchat", "Mentions and direct messages are shown like this."],
        ["robot-of-news in lobby", "alice, now"],
        ["robot-of-news", "and here"],
    ]


def test_a_refused_message_says_why_and_can_be_tried_again(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    owner = server.bot("owner-of-quiet", rooms={"quiet": None})
    owner.ask(type="moderated", room="quiet", on=True)
    alice.page.run("enter('quiet')")
    alice.page.wait("byId('room-name').textContent === '# quiet'")
    alice.say("let me speak")
    alice.page.wait("document.querySelector('.failure')?.textContent.includes('The room is moderated')")
    owner.ask(type="moderated", room="quiet", on=False)
    alice.page.click(".failure button")
    alice.wait_for("let me speak")
    assert alice.page.run("document.querySelectorAll('#pending .row').length") == 0


def test_direct_messages_survive_a_reload_and_are_not_stored_one_by_one(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    bob = server.person("bob-of-directs")
    bob.send("DM alice the first")
    alice.page.wait("conversations.has('@bob-of-directs')")
    # A flood of them would otherwise stop the page.
    writes = alice.page.run(
        """(() => {
            let writes = 0;
            const write = keptInTab.write;
            keptInTab.write = (...rest) => { writes += 1; write.apply(keptInTab, rest); };
            for (let n = 0; n < 200; n += 1) EVENTS.dm({ username: "bob-of-directs", message: `number ${n}`, timestamp_ms: n });
            keptInTab.write = write;
            return writes;
        })()"""
    )
    assert writes <= 1
    alice.page.reload()
    alice.page.wait("connection.replayed")
    texts = alice.page.run("conversations.get('@bob-of-directs').items.map((one) => one.text)")
    assert texts[-1] == "number 199"
    assert len(texts) == 200


def test_rooms_and_people_can_have_the_names_of_what_every_object_has(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    bot = server.bot("constructor", rooms={"__proto__": None, "toString": None})
    for room in ("__proto__", "toString"):
        alice.page.run(f"enter('{room}')")
        alice.page.wait(f"byId('room-name').textContent === '# {room}'")
    alice.page.reload()
    alice.page.wait("connection.replayed")
    for room in ("__proto__", "toString"):
        alice.page.wait(f"knownRoom('{room}').present")
        bot.ask(type="chat", room=room, message=f"in {room}")
        alice.page.run(f"open(roomNamed('{room}'))")
        alice.wait_for(f"in {room}")
    proto = server.bot("__proto__")
    for person in (bot, proto):
        person.ask(type="dm", to="alice", message="psst")
    alice.page.wait("conversations.has('@constructor') && conversations.has('@__proto__')")
    alice.page.run("keepDirects()")
    alice.page.reload()
    alice.page.wait("connection.replayed")
    for name in ("constructor", "__proto__"):
        assert alice.page.run(f"directWith('{name}').items.map((one) => one.text)") == ["psst"]
    alice.page.run("open(roomNamed('lobby')); showPeoplePanel(true)")
    listed = "[...document.querySelectorAll('#people-list .name')].map((one) => one.textContent)"
    alice.page.wait(f"{listed}.includes('__proto__')")


def test_a_deleted_message_keeps_its_place(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bot = server.bot("robot-of-secrets", rooms={"vault": None})
    alice.page.run("enter('vault')")
    alice.page.wait("byId('room-name').textContent === '# vault'")
    ids = [bot.ask(type="chat", room="vault", message=text)["id"] for text in ("one", "secret", "three")]
    alice.wait_for("three")
    assert bot.ask(type="delete", room="vault", id=ids[1])["type"] == "ok"
    alice.wait_for("This message was deleted.")
    assert alice.texts() == ["one", "This message was deleted.", "three"]
    alice.page.reload()
    alice.wait_for("three")
    assert alice.texts() == ["one", "This message was deleted.", "three"]


def test_a_screen_reader_is_told_what_others_say_in_the_open_room(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bot = server.bot("robot-of-voices", rooms={"lobby": None, "elsewhere": None})
    alice.page.run("enter('elsewhere').then(() => open(roomNamed('lobby')))")
    alice.page.wait("knownRoom('elsewhere')?.present && byId('room-name').textContent === '# lobby'")
    assert alice.page.run("byId('spoken').getAttribute('aria-live')") == "polite"
    bot.ask(type="chat", room="lobby", message="<b>hear</b> this")
    alice.page.wait("byId('spoken').textContent === 'robot-of-voices: <b>hear</b> this'")
    bot.ask(type="chat", room="elsewhere", message="not this")
    alice.page.wait("knownRoom('elsewhere').unread === 1")
    alice.say("nor this")
    alice.wait_for("nor this")
    assert alice.page.run("byId('spoken').textContent") == "robot-of-voices: <b>hear</b> this"


def test_keys_do_what_the_documentation_says(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    for name in ("tab-one", "tab-two"):
        server.bot(name)
    alice.page.wait("[...current.people.values()].filter((one) => one.startsWith('tab-')).length === 2")
    alice.page.run("byId('message').focus()")
    alice.page.type("@tab-")
    completed = []
    for _ in range(3):
        alice.page.press("Tab")
        completed.append(alice.page.run("byId('message').value"))
    assert completed == ["@tab-one ", "@tab-two ", "@tab-one "]
    alice.page.run("byId('message').value = ''")
    alice.page.type("first")
    alice.page.press("Enter", "Shift")
    alice.page.type("second")
    assert alice.page.run("byId('message').value") == "first\nsecond"
    alice.page.press("Enter")
    alice.wait_for("second")
    assert alice.texts()[-2:] == ["first", "second"]
    alice.say("//shrug")
    alice.wait_for("/shrug")
    server.person("bob-of-keys").say(*(f"line {number}" for number in range(100)))
    alice.wait_for("line 99")
    alice.page.run("byId('log').scrollTop = 0")
    alice.page.wait("!byId('jump').hidden")
    alice.page.press("Escape")
    alice.page.wait("byId('jump').hidden && view.isAtEnd")


def test_a_page_is_light_or_dark_like_the_system_or_as_its_user_chooses(
    server: ChatServer, open_page: OpenPage
):
    lightness = """(() => {
        const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        context.fillStyle = getComputedStyle(document.body).backgroundColor;
        context.fillRect(0, 0, 1, 1);
        return Math.max(...context.getImageData(0, 0, 1, 1).data.slice(0, 3));
    })()"""
    alice = open_page(server, "alice", prefers_color_scheme="light")
    assert alice.page.run(lightness) > 200
    alice.page.emulate({"prefers-color-scheme": "dark"})
    assert alice.page.run(lightness) < 60
    alice.page.run("showSettings()")
    alice.page.run(
        "byId('theme').value = 'light'; byId('theme').dispatchEvent(new Event('change', { bubbles: true }))"
    )
    assert alice.page.run(lightness) > 200
    alice.page.reload()
    assert alice.page.run(lightness) > 200
    alice.page.emulate({"prefers-color-scheme": "light"})
    alice.page.wait("connection.replayed")
    alice.page.run("setTheme('dark')")
    assert alice.page.run(lightness) < 60


def test_logging_out_revokes_the_token_that_the_page_has_kept(server: ChatServer, open_page: OpenPage):
    alice = open_page(server)
    alice.page.run("byId('login-name').value = 'leaver'; byId('login-password').value = 'correct horse'")
    alice.page.run("byId('login-remember').checked = true")
    alice.page.click("#login-register")
    alice.page.wait("me.token.startsWith('gct_') && !me.password")
    token = alice.page.run("me.token")
    alice.page.run("showSettings()")
    alice.page.click("#log-out")
    alice.page.wait("!byId('login').hidden && kept.read('login', null) === null")
    assert server.refusal(type="join", v=2, username="leaver", token=token)["code"] == "wrong-password"
    assert server.refusal(type="join", v=2, username="leaver")["code"] == "password-required"


def test_a_page_that_cannot_connect_shows_which_name_is_missing(browser: Chromium):
    with chat("--listen=web://127.0.0.1:0") as server:
        page = browser.page(f"http://chat.example:{server.ports['web']}/")
        page.run("byId('login-name').value = 'alice'")
        page.click("#login-join")
        page.wait("byId('login-error').textContent.includes('does not know itself as chat.example')")
        assert "--web-origin" in page.run("byId('login-error').textContent")
        page.run("connection.wanted = false; window.violations = []")
        # The log of the browser has the refused requests, and that this origin is not a secure one.
        page.errors = [error for error in page.errors if "403" not in error and "untrustworthy" not in error]
        page.close()
    with chat("--listen=web://127.0.0.1:0", "--web-origin=chat.example") as server:
        allowed = ChatPage(browser, server, url=f"http://chat.example:{server.ports['web']}/")
        allowed.log_in("alice")
        allowed.page.errors = [error for error in allowed.page.errors if "untrustworthy" not in error]
        allowed.close()


def test_a_page_works_below_a_path(open_page: OpenPage):
    with chat() as server, below_a_path(server, b"/chat/") as url:
        alice = open_page(server, "alice", url=url)
        server.person("bob").say("hello")
        alice.wait_for("hello")
        assert alice.page.run("document.querySelector('link[rel=icon]').href") == f"{url}icon.png"


def test_neither_scripts_in_the_page_nor_texts_that_become_markup_are_possible(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    for attempt in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.write('x')",
        "(() => { const one = document.createElement('script'); one.textContent = 'window.harmed = true'; })()",
        "trustedTypes.createPolicy('mine', {})",
    ):
        with pytest.raises(PageFailed, match="TypeError"):
            alice.page.run(attempt)
    alice.page.run(
        "document.body.append(Object.assign(document.createElement('img'), { src: 'http://127.0.0.1:1/x.png' }))"
    )
    alice.page.run("document.body.setAttribute('style', 'display: none')")
    alice.page.wait("window.violations.length >= 5")
    assert alice.page.run("getComputedStyle(document.body).display") != "none"
    assert alice.page.run("window.harmed") is None
    alice.page.run("window.violations = []")
    alice.page.errors.clear()


def test_a_long_end_of_a_link_is_taken_off_at_once(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    cases = [["http://x/(a)", ").,"], ["http://x/((a)", ")))"], ["http://x/a", "!?)]}"]]
    ends = alice.page.run(f"{cases}.map(([link, end]) => withoutEnd(link + end))")
    assert ends == ["http://x/(a)", "http://x/((a))", "http://x/a"]
    # Anybody can send one, again and again. One that is ten times as long as possible took seconds.
    took_ms = alice.page.run(
        """(() => {
            const begun = performance.now();
            showText(document.createElement("div"), "http://x/" + ")".repeat(40000));
            return performance.now() - begun;
        })()"""
    )
    assert took_ms < 500


NAMELESS = """[...document.querySelectorAll('button, input, textarea, select, a[href]')].filter((one) =>
    !one.closest('template, [hidden], dialog:not([open])') && one.id !== 'shade' && !(one.getAttribute('aria-label') ||
    one.labels?.length || one.textContent.trim())).map((one) => one.outerHTML)"""
FAINT = """(() => {
    const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const parts = (colour) => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    };
    const light = (colour) => parts(colour).slice(0, 3).map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const back = (one) => {
        const colour = getComputedStyle(one).backgroundColor;
        return parts(colour)[3] === 255 ? colour : back(one.parentElement);
    };
    const ratio = (one) => {
        const [a, b] = [light(getComputedStyle(one).color), light(back(one))].sort((x, y) => y - x);
        return [one.className || one.id || one.localName, (a + 0.05) / (b + 0.05)];
    };
    const hasText = (one) => [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    return [...document.querySelectorAll('body *')]
        .filter((one) => one.checkVisibility() && !one.closest('.visually-hidden, .shade') && hasText(one))
        .map(ratio).filter(([, found]) => found < 4.5);
})()"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(server: ChatServer, open_page: OpenPage, theme: str):
    alice = open_page(server, prefers_color_scheme=theme)
    assert alice.page.run(NAMELESS) == []
    assert alice.page.run(FAINT) == []
    alice.log_in("alice")
    bob = server.person(f"bob-in-the-{theme}")
    bob.say("alice: see https://example.org/", "`code`", "hi")
    alice.wait_for("hi")
    alice.page.run("showPeoplePanel(true)")
    alice.page.wait("document.querySelectorAll('#people-list .item').length > 1")
    assert alice.page.run(NAMELESS) == []
    assert alice.page.run(FAINT) == []
    for dialog in ("showSettings()", "showFinder()", "showPerson('bob')"):
        alice.page.run(dialog)
        alice.page.wait("document.querySelector('dialog[open]')")
        assert alice.page.run(NAMELESS) == []
        assert alice.page.run(FAINT) == []
        alice.page.run("document.querySelector('dialog[open]').close()")


def test_nothing_comes_from_elsewhere():
    for file in STATIC.iterdir():
        if file.suffix != ".png":
            text = file.read_text()
            assert "://" not in text, file.name
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
            ), file.name
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style| style=| on\w+=", page)
    assert re.findall(r"<script[^>]*>", page) == ['<script src="chat.js" defer>']


def test_the_page_is_one_file_with_one_script_and_one_style_sheet():
    assert sorted(file.name for file in STATIC.iterdir()) == ["chat.css", "chat.js", "icon.png", "index.html"]
    # All addresses are relative, so that it works below a path.
    page, script = (STATIC / "index.html").read_text(), (STATIC / "chat.js").read_text()
    assert re.findall(r'(?:src|href|action)="([^"]*)"', page) == ["icon.png", "chat.css", "chat.js"]
    assert re.findall(r'fetch\(("[^"]*")|new URL\(("[^"]*")', script) == [("", '"ws"'), ('"ws"', "")]
