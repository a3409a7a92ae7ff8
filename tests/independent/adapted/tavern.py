"""A chat that greets with a banner, prompts with `> ` and answers in sentences: a thread per client, PORT.

It keeps the name of a client that resets its connection: a mistake, which the comparison shows.
"""

import socketserver
import sys
import threading

BANNER = ("+--------------+", "|  The Tavern  |", "+--------------+", "Who are you? Type name NAME.")
people: dict[str, "Guest"] = {}
lock = threading.RLock()


class Guest(socketserver.StreamRequestHandler):
    name = ""

    def tell(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode() + b"> ")

    def handle(self) -> None:
        self.tell(*BANNER)
        for line in self.rfile:
            verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            if verb == "quit":
                self.wfile.write(b"Farewell.\r\n")
                break
            with lock:
                self.obey(verb, rest)
        with lock:
            if people.pop(self.name, None):
                for guest in people.values():
                    guest.tell(f"{self.name} leaves the tavern.")

    def obey(self, verb: str, rest: str) -> None:
        if verb == "time":
            self.tell("It is always noon here.")
        elif verb == "name":
            self.enter(rest)
        elif not self.name:
            self.tell("Say your name first.")
        elif verb == "say":
            for guest in people.values():
                if guest is not self:
                    guest.tell(f'{self.name} says, "{rest}"')
            self.tell(f'You say, "{rest}"')
        elif verb == "tell":
            name, _, text = rest.partition(" ")
            if name in people:
                people[name].tell(f'{self.name} tells you, "{text}"')
                self.tell(f"You tell {name}.")
            else:
                self.tell("Nobody has that name.")
        elif verb == "look":
            self.tell(*(f"You see {name}." for name in people))
        else:
            self.tell("What?")

    def enter(self, name: str) -> None:
        if self.name:
            self.tell("You already have a name.")
        elif name in people:
            self.tell("That name is in use.")
        else:
            self.name, people[name] = name, self
            self.tell(f"Welcome, {name}!")


class Tavern(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that are reset."""


Tavern(("127.0.0.1", int(sys.argv[1])), Guest).serve_forever()
