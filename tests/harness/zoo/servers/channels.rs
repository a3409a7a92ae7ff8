//! A chat server in Rust, as it is written in Go: a thread reads from each client, another writes what comes through its
//! channel, and a hub owns the rooms. PORT [deliver=MS] [dup=MS] [early]; what these mean is in room.py. With `early` the
//! reading thread answers PING on the socket.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

enum Event {
    Joins(u64, Sender<Option<String>>),
    Line(u64, String),
    Leaves(u64),
}

struct Client {
    name: String,
    room: String,
    out: Sender<Option<String>>,
}

struct Hub {
    clients: HashMap<u64, Client>,
    timers: Vec<(Instant, Vec<u64>, String)>,
    deliver_ms: u64,
    dup_ms: Option<u64>,
}

impl Hub {
    fn run(&mut self, events: Receiver<Event>) {
        loop {
            let left = self.timers.first().map(|timer| timer.0.saturating_duration_since(Instant::now()));
            match events.recv_timeout(left.unwrap_or(Duration::from_secs(3600))) {
                Ok(Event::Joins(id, out)) => {
                    self.clients.insert(id, Client { name: String::new(), room: String::new(), out });
                }
                Ok(Event::Line(id, line)) => self.handle(id, &line),
                Ok(Event::Leaves(id)) => self.leave(id),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while self.timers.first().is_some_and(|timer| timer.0 <= Instant::now()) {
                let (_, ids, text) = self.timers.remove(0);
                self.tell(&ids, &text);
            }
        }
    }

    fn later(&mut self, delay_ms: u64, ids: Vec<u64>, text: String) {
        if delay_ms == 0 {
            return self.tell(&ids, &text);
        }
        let due = Instant::now() + Duration::from_millis(delay_ms);
        let at = self.timers.partition_point(|timer| timer.0 <= due);
        self.timers.insert(at, (due, ids, text));
    }

    fn tell(&self, ids: &[u64], text: &str) {
        for client in ids.iter().filter_map(|id| self.clients.get(id)) {
            let _ = client.out.send(Some(format!("{text}\n"))); // its writer has ended when it has left
        }
    }

    fn others(&self, id: u64) -> Vec<u64> {
        let room = &self.clients[&id].room;
        let among = self.clients.iter().filter(|(other, one)| **other != id && !one.name.is_empty() && one.room == *room);
        among.map(|(other, _)| *other).collect()
    }

    fn leave(&mut self, id: u64) {
        if !self.clients.contains_key(&id) {
            return;
        }
        let others = self.others(id);
        let gone = self.clients.remove(&id).unwrap();
        let _ = gone.out.send(None);
        if !gone.name.is_empty() {
            self.later(self.deliver_ms, others, format!("INFO {} left", gone.name));
        }
    }

    fn handle(&mut self, id: u64, line: &str) {
        if !self.clients.contains_key(&id) {
            return;
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let name = self.clients[&id].name.clone();
        match verb {
            "LOGIN" => {
                let (name, room) = rest.split_once('@').unwrap_or((rest, ""));
                if self.clients.values().any(|one| one.name == name && one.room == room) {
                    return self.tell(&[id], "ERR username-taken");
                }
                let client = self.clients.get_mut(&id).unwrap();
                (client.name, client.room) = (name.to_string(), room.to_string());
                self.tell(&[id], "OK");
            }
            "PING" => self.tell(&[id], format!("PONG {rest}").trim_end()),
            "SYNC" => self.later(self.deliver_ms, vec![id], format!("SYNCED {rest}")),
            "HELLO" => self.tell(&[id], "HI"),
            "MSG" if !name.is_empty() => {
                let text = format!("MSG {name} {rest}");
                self.later(self.deliver_ms, self.others(id), text.clone());
                if let Some(dup_ms) = self.dup_ms {
                    self.later(dup_ms, self.others(id), text);
                }
            }
            "QUIT" => {
                self.tell(&[id], "Goodbye!");
                self.leave(id);
            }
            "JOIN" => {}
            _ => self.tell(&[id], "ERR must-login-first"),
        }
    }
}

fn converse(id: u64, socket: TcpStream, hub: Sender<Event>, early: bool) {
    let (out, outgoing) = channel::<Option<String>>();
    let mut writing = socket.try_clone().expect("a second handle");
    let mut answering = socket.try_clone().expect("a third handle");
    thread::spawn(move || {
        while let Ok(Some(text)) = outgoing.recv() {
            if writing.write_all(text.as_bytes()).is_err() {
                break; // it has left; reading tells
            }
        }
        let _ = writing.shutdown(Shutdown::Both);
    });
    hub.send(Event::Joins(id, out)).expect("the hub runs");
    for line in BufReader::new(socket).lines() {
        let Ok(line) = line else { break };
        if early && line.starts_with("PING") {
            let answer = format!("PONG{}\n", &line[4..]);
            if answering.write_all(answer.as_bytes()).is_err() {
                break;
            }
        } else {
            hub.send(Event::Line(id, line)).expect("the hub runs");
        }
    }
    hub.send(Event::Leaves(id)).expect("the hub runs");
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let found = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.map(|text| text.parse::<u64>().expect("milliseconds"))
    };
    let early = words.iter().any(|word| word == "early");
    let (deliver_ms, dup_ms) = (option("deliver").unwrap_or(0), option("dup"));
    let (hub, events) = channel();
    thread::spawn(move || {
        Hub { clients: HashMap::new(), timers: Vec::new(), deliver_ms, dup_ms }.run(events);
    });
    let listener = TcpListener::bind(("127.0.0.1", words[1].parse().expect("a port"))).expect("a free port");
    for (id, socket) in listener.incoming().enumerate() {
        let (socket, hub) = (socket.expect("a connection"), hub.clone());
        socket.set_nodelay(true).expect("an option");
        thread::spawn(move || converse(id as u64, socket, hub, early));
    }
}
