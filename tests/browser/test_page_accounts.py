"""Logging in and out on the page, its dialog of settings, and what stays in the browser."""

from __future__ import annotations

import json

from tests.browser.chat import ChatPage, ChatServer, OpenPage, chat


def keep_logged_in(page: ChatPage, name: str) -> None:
    """Register a name, and have the page keep a token of it."""
    page.page.run(
        f"byId('login-name').value = {json.dumps(name)}; byId('login-password').value = 'correct horse'"
    )
    page.page.run("byId('login-remember').checked = true")
    page.page.click("#login-register")
    page.page.wait("me.token.startsWith('gct_') && !me.password")


def test_a_page_whose_token_was_revoked_forgets_it_and_asks_for_the_password(
    server: ChatServer, open_page: OpenPage
):
    page = open_page(server)
    keep_logged_in(page, "revoked")
    bot = server.bot("revoked", password="correct horse")
    page.page.wait("byId('banner').innerText.includes('logged in elsewhere')")
    bot.ask(type="token", revoke=True)
    page.page.reload()
    page.page.wait("byId('login-error').textContent.startsWith('You are no longer logged in here')")
    assert page.page.run("kept.read('login', null)") is None
    assert page.page.run("[byId('login-name').value, document.activeElement.id]") == [
        "revoked",
        "login-password",
    ]
    page.page.reload()
    assert page.page.run("byId('app').hidden")
    page.log_in("revoked", "correct horse")


def test_a_token_is_kept_while_the_server_takes_no_logins(server: ChatServer, open_page: OpenPage):
    page = open_page(server)
    keep_logged_in(page, "guessed-at")
    refusal = "{ code: 'too-many-attempts', message: 'Too many attempts' }"
    # A page that was connected tries again by itself,
    page.page.run(f"connection.pause = 1; refuseLogin({refusal})")
    page.page.wait("connection.replayed && byId('login').hidden")
    # and one that was not when its user wants it.
    page.page.run(f"connection.welcomed = false; refuseLogin({refusal})")
    assert page.page.run("byId('login-error').textContent") == "Too many attempts"
    assert page.page.run("kept.read('login', {}).token").startswith("gct_")
    page.page.reload()
    page.page.wait("connection.replayed && me.token && me.name === 'guessed-at'")


def test_a_name_is_registered_its_password_changed_and_a_token_made_in_the_dialog(
    server: ChatServer, open_page: OpenPage
):
    page = open_page(server, "dialog-user")
    page.page.click("#me")

    def fill(button: str, note: str, **fields: str) -> None:
        for field, text in fields.items():
            page.page.run(f"byId({json.dumps(field.replace('_', '-'))}).value = {json.dumps(text)}")
        page.page.click(button)
        page.page.wait(f"byId('settings-note').textContent.startsWith({json.dumps(note)})")

    fill("#register", "Weak password", register_password="short")
    assert page.page.run("byId('settings-note').classList.contains('error')")
    fill("#register", "The name dialog-user is yours now.", register_password="correct horse")
    assert not page.page.run("byId('settings-note').classList.contains('error')")
    fill("#change-password", "Wrong password", old_password="wrong horse", new_password="battery staple")
    fill("#change-password", "The password is changed.", old_password="correct horse")
    fill("#make-token", "Whoever has this token can use your name.")
    token = page.page.run("byId('token').hidden ? '' : byId('token').innerText")
    server.bot("dialog-user", token=token)
    page.page.wait("byId('banner').innerText.includes('logged in elsewhere')")
    old = server.refusal(type="join", v=2, username="dialog-user", password="correct horse")
    assert old["code"] == "wrong-password"
    # The page knows the new one.
    page.page.run("byId('settings').close()")
    page.page.click("#banner button")
    page.page.wait("connection.replayed")


def test_a_name_is_registered_only_with_a_password_and_a_refused_one_is_said(
    server: ChatServer, open_page: OpenPage
):
    page = open_page(server)
    page.page.run("byId('login-name').value = 'registrant'")
    page.page.click("#login-register")
    page.page.wait("byId('login-error').textContent.startsWith('Choose a password of 8 to 128 characters')")
    page.page.type("short")
    page.page.click("#login-register")
    page.page.wait("byId('toasts').innerText.includes('Weak password')")
    assert page.page.run("me.hasAccount") is False


def test_phones_and_password_managers_know_what_the_fields_are(server: ChatServer, open_page: OpenPage):
    page = open_page(server)
    fields = ["login-name", "login-password", "register-password", "old-password", "new-password"]
    known = page.page.run(f"{fields}.map((id) => byId(id).autocomplete)")
    assert known == ["username", "current-password", "new-password", "current-password", "new-password"]
    assert page.page.run("byId('login-name').autocapitalize") == "none"


def test_whoever_logs_in_after_somebody_else_finds_nothing_of_that_user(
    server: ChatServer, open_page: OpenPage
):
    page = open_page(server, "first-of-two")
    bot = server.bot("robot-of-two")
    bot.ask(type="dm", to="first-of-two", message="between us")
    page.page.wait("JSON.stringify({ ...sessionStorage }).includes('between us')")
    page.page.run("open(directWith('robot-of-two')); ignore('robot-of-two', true)")
    page.page.wait("me.ignored.size")
    page.page.run("showSettings()")
    page.page.click("#log-out")
    page.page.wait("!byId('login').hidden")
    assert "between us" not in page.page.run("JSON.stringify({ ...sessionStorage, ...localStorage })")
    page.log_in("second-of-two")
    assert page.page.run("[...conversations.keys()]") == ["#lobby"]
    assert page.page.run("me.ignored.size") == 0
    page.page.wait("byId('room-name').textContent === '# lobby'")
    assert "between us" not in page.page.run("byId('app').textContent")


def test_the_greeting_of_the_server_is_shown(open_page: OpenPage):
    with chat("--greeting", "Be kind.") as server:
        alice = open_page(server, "alice")
        assert alice.page.run("byId('toasts').innerText") == "Be kind."


def test_a_page_that_can_keep_nothing_in_the_browser_works(server: ChatServer, open_page: OpenPage):
    alice = open_page(server)
    forbidden = "get() { throw new DOMException('no', 'SecurityError'); }"
    source = f"for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, {{ {forbidden} }})"
    alice.page.command("Page.addScriptToEvaluateOnNewDocument", source=source)
    alice.page.reload()
    alice.log_in("alice")
    alice.say("kept nowhere")
    alice.wait_for("kept nowhere")
    alice.page.run("setTheme('dark')")
    assert alice.page.run("kept.read('theme', '')") == "dark"


def test_the_dialog_shows_the_theme_that_was_chosen(server: ChatServer, open_page: OpenPage):
    alice = open_page(server, "alice")
    bars = "['light', 'dark'].map((scheme) => byId(`bars-${scheme}`).content)"
    light, dark = alice.page.run(bars)
    alice.page.run("setTheme('dark')")
    alice.page.reload()
    alice.page.wait("connection.replayed")
    # What a phone shows around the page has its colour, too.
    assert alice.page.run(bars) == [dark, dark]
    alice.page.run("setTheme('light')")
    assert alice.page.run(bars) == [light, light]
    alice.page.run("setTheme('')")
    assert alice.page.run(bars) == [light, dark]
    alice.page.run("setTheme('dark')")
    alice.page.click("#me")
    assert alice.page.run("byId('theme').value") == "dark"


NOTIFICATION = """window.shown = [];
window.Notification = class extends EventTarget {
    static permission = "granted";
    static async requestPermission() { return this.permission; }
    constructor(title) { super(); window.shown.push(this); }
    close() { this.closed = true; }
};"""


def test_a_notification_opens_its_conversation_and_none_comes_while_the_page_is_looked_at(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    alice.page.run(f"{NOTIFICATION} kept.write('notify', true)")
    bot = server.bot("robot-of-notes")
    bot.ask(type="dm", to="alice", message="seen in the list")
    alice.page.wait("conversations.get('@robot-of-notes')?.unread === 1")
    assert alice.page.run("shown.length") == 0
    alice.page.run("document.hasFocus = () => false")
    bot.ask(type="dm", to="alice", message="not seen")
    alice.page.wait("shown.length === 1")
    alice.page.run("shown[0].dispatchEvent(new Event('click'))")
    alice.page.wait("byId('room-name').textContent === '@ robot-of-notes' && shown[0].closed")


def test_notifications_that_the_browser_does_not_allow_are_not_promised(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    alice.page.run(f"{NOTIFICATION} Notification.permission = 'denied'")
    alice.page.click("#me")
    alice.page.click("#notify")
    alice.page.wait("byId('settings-note').textContent.includes('does not allow notifications')")
    assert alice.page.run("[byId('notify').checked, kept.read('notify', null)]") == [False, False]


def test_a_browser_that_has_no_notifications_for_pages_is_used_without_them(
    server: ChatServer, open_page: OpenPage
):
    alice = open_page(server, "alice")
    alice.page.run(
        f"{NOTIFICATION} Notification = class extends Notification {{ constructor() {{ throw new TypeError('no'); }} }};"
    )
    alice.page.click("#me")
    alice.page.click("#notify")
    alice.page.wait("byId('settings-note').textContent === 'This browser shows no notifications of pages.'")
    assert alice.page.run("[byId('notify').checked, kept.read('notify', null)]") == [False, False]
    # As if it had been possible to turn them on.
    alice.page.run("byId('settings').close(); kept.write('notify', true); document.hasFocus = () => false")
    server.bot("robot-of-no-notes").ask(type="dm", to="alice", message="kept")
    alice.page.wait("kept.read('notify') === false")
    alice.page.reload()
    alice.page.wait("connection.replayed")
    texts = "conversations.get('@robot-of-no-notes').items.map((one) => one.text)"
    assert alice.page.run(texts) == ["kept"]
