// chat server, `line` protocol. Two threads per client (reader, writer), one hub thread owns all state.
// readers -> hub: bounded channel; hub -> writer: channel with a byte counter.
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const MAX_LINE: usize = 4096;
const MAX_WAITING: usize = 1 << 20;
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

static STOP: AtomicBool = AtomicBool::new(false);
extern "C" {
    fn signal(sig: i32, f: extern "C" fn(i32)) -> usize;
    fn setsockopt(fd: i32, level: i32, name: i32, val: *const i32, len: u32) -> i32;
}
extern "C" fn on_signal(_: i32) {
    STOP.store(true, Ordering::SeqCst);
}

enum Event {
    Connected(u64, Arc<TcpStream>, Sender<Vec<u8>>, Arc<AtomicUsize>),
    Line(u64, Vec<u8>),
    TooLong(u64),
    Web(u64),
    Eof(u64),
    Broken(u64),
}

struct Client {
    stream: Arc<TcpStream>,
    out: Option<Sender<Vec<u8>>>, // None: no more output, the writer ends the stream when its queue is empty
    waiting: Arc<AtomicUsize>,
    name: Option<(String, String)>,
    connected: Instant,
    last: Instant,
    slow: bool,
}

impl Client {
    fn say(&self, s: &str) {
        self.raw(format!("{s}\n").into_bytes());
    }
    fn raw(&self, b: Vec<u8>) {
        if let Some(o) = &self.out {
            self.waiting.fetch_add(b.len(), Ordering::SeqCst);
            let _ = o.send(b);
        }
    }
    fn tell(&mut self, s: &str) {
        if self.waiting.load(Ordering::SeqCst) + s.len() + 1 > MAX_WAITING {
            self.slow = true;
        } else {
            self.say(s);
        }
    }
}

// ---- text ----
fn is_mark(c: char) -> bool {
    matches!(c as u32, 0x300..=0x36F | 0x483..=0x489 | 0x591..=0x5BD | 0x5BF | 0x5C1..=0x5C2 | 0x5C4..=0x5C5 | 0x5C7 | 0x610..=0x61A
        | 0x64B..=0x65F | 0x670 | 0x6D6..=0x6DC | 0x6DF..=0x6E4 | 0x6E7..=0x6E8 | 0x6EA..=0x6ED | 0x900..=0x903 | 0x93A..=0x93C | 0x93E..=0x94F
        | 0x981..=0x983 | 0x9BC | 0x9BE..=0x9CD | 0xE31 | 0xE34..=0xE3A | 0xE47..=0xE4E | 0x1AB0..=0x1ACE | 0x1DC0..=0x1DFF
        | 0x20D0..=0x20F0 | 0x302A..=0x302F | 0x3099..=0x309A | 0xFE00..=0xFE0F | 0xFE20..=0xFE2F | 0xE0100..=0xE01EF)
}
fn is_rtl(c: char) -> bool {
    c.is_alphabetic() && !is_mark(c) && matches!(c as u32, 0x590..=0x8FF | 0xFB1D..=0xFDFF | 0xFE70..=0xFEFC | 0x10800..=0x10FFF | 0x1E800..=0x1EFFF)
}
fn is_dropped(c: char) -> bool {
    matches!(c as u32, 0xAD | 0x34F | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B | 0x2060..=0x2065 | 0x206A..=0x206F | 0x3164 | 0xFEFF | 0xFFA0)
}
fn is_replaced(c: char) -> bool {
    c.is_control() || matches!(c as u32, 0x202A..=0x202E | 0x2066..=0x2069 | 0x2028 | 0x2029)
}
fn is_direction(c: char) -> bool {
    matches!(c as u32, 0x200E | 0x200F | 0x61C)
}
fn shows(c: char) -> bool {
    !(c.is_whitespace() || is_direction(c) || is_dropped(c) || matches!(c as u32, 0x200C | 0x200D | 0xFE00..=0xFE0F | 0xE0000..=0xE01EF | 0x2800))
}

fn clean_text(s: &str) -> Option<String> {
    let has_rtl = s.chars().any(is_rtl);
    let mut out = String::new();
    let (mut marks, mut flag) = (0, false);
    for c in s.trim().chars() {
        let c = if c == '\t' { ' ' } else if is_replaced(c) { '\u{FFFD}' } else { c };
        if is_dropped(c) || (is_direction(c) && !has_rtl) {
            continue;
        }
        if matches!(c as u32, 0xE0000..=0xE007F) {
            if !flag {
                continue;
            }
        } else {
            flag = c as u32 == 0x1F3F4;
        }
        marks = if is_mark(c) { marks + 1 } else { 0 };
        if marks <= 4 {
            out.push(c);
        }
    }
    let t = out.trim();
    t.chars().any(shows).then(|| t.to_string())
}

/// (shown, key). std has no normalisation forms: wide forms are mapped, NFC is not applied.
fn clean_name(s: &str) -> Option<(String, String)> {
    let name: String = s.chars().map(|c| match c as u32 { x @ 0xFF01..=0xFF5E => char::from_u32(x - 0xFEE0).unwrap(), _ => c }).collect();
    let n = name.chars().count();
    if n == 0 || n > 20 || is_mark(name.chars().next()?) {
        return None;
    }
    let (mut marks, mut rtl, mut ltr) = (0, false, false);
    for c in name.chars() {
        if is_dropped(c) || (0xFE00..=0xFE0F).contains(&(c as u32)) || c as u32 > 0xE0000 {
            return None;
        }
        if is_mark(c) {
            marks += 1;
            if marks > 4 {
                return None;
            }
            continue;
        }
        marks = 0;
        if !(c.is_alphanumeric() || "_-.".contains(c)) {
            return None;
        }
        if is_rtl(c) { rtl = true } else if c.is_alphabetic() { ltr = true }
    }
    if rtl && (ltr || !is_rtl(name.chars().next()?)) {
        return None;
    }
    let key = name.to_lowercase();
    Some((name, key))
}

fn untelnet(b: &[u8]) -> (Vec<u8>, bool) {
    let (mut o, mut mark, mut i) = (Vec::with_capacity(b.len()), false, 0);
    while i < b.len() {
        if b[i] != 255 {
            o.push(b[i]);
            i += 1;
            continue;
        }
        match b.get(i + 1) {
            Some(255) => { o.push(255); i += 2 }
            Some(250) => {
                i += 2;
                while i < b.len() && !(b[i] == 255 && b.get(i + 1) == Some(&240)) { i += 1 }
                i += 2
            }
            Some(251..=254) => { mark |= b[i + 1] == 253 && b.get(i + 2) == Some(&6); i += 3 }
            _ => i += 2,
        }
    }
    (o, mark)
}

// ---- hub ----
struct Hub {
    clients: HashMap<u64, Client>,
    order: Vec<u64>, // logged in, in login order
    idle: Duration,
}

impl Hub {
    fn others(&mut self, me: u64, s: &str) {
        for id in &self.order {
            if *id != me {
                self.clients.get_mut(id).unwrap().tell(s);
            }
        }
    }
    fn find(&self, key: &str) -> Option<u64> {
        self.order.iter().copied().find(|id| self.clients[id].name.as_ref().unwrap().1 == key)
    }
    fn leave(&mut self, id: u64) {
        if let Some(p) = self.order.iter().position(|x| *x == id) {
            self.order.remove(p);
            let name = self.clients[&id].name.clone().unwrap().0;
            self.others(id, &format!("INFO {name} disconnected"));
        }
    }
    /// everything queued is still sent
    fn close(&mut self, id: u64) {
        self.leave(id);
        self.clients.remove(&id); // drops the sender: the writer finishes and ends the stream
    }
    fn reset(&mut self, id: u64) {
        self.leave(id);
        if let Some(c) = self.clients.remove(&id) {
            let l = [1i32, 0];
            unsafe { setsockopt(c.stream.as_raw_fd(), 1, 13, l.as_ptr(), 8) }; // SO_LINGER: close resets
            let _ = c.stream.shutdown(Shutdown::Both);
        }
    }
    fn line(&mut self, id: u64, raw: Vec<u8>) {
        let Some(c) = self.clients.get(&id) else { return };
        let (raw, mark) = untelnet(&raw);
        if mark {
            c.raw(vec![255, 251, 6]);
        }
        let Ok(s) = std::str::from_utf8(&raw) else { return c.say("ERR invalid-utf8") };
        let s = s.trim_matches(|c: char| c == ' ' || c == '\t');
        if s.is_empty() {
            return;
        }
        let (cmd, arg) = s.split_once([' ', '\t']).unwrap_or((s, ""));
        let arg = arg.trim_start();
        let cmd = cmd.to_ascii_uppercase();
        let me = c.name.clone();
        match (cmd.as_str(), me) {
            ("QUIT" | "EXIT", _) => {
                c.say("Goodbye!");
                self.close(id)
            }
            ("LOGIN", Some(_)) => c.say("ERR already-logged-in"),
            ("LOGIN", None) => match clean_name(arg) {
                None => c.say("ERR invalid-username"),
                Some(n) if self.find(&n.1).is_some() => c.say("ERR username-taken"),
                Some(n) => {
                    let c = self.clients.get_mut(&id).unwrap();
                    c.name = Some(n);
                    c.say("OK");
                    self.order.push(id)
                }
            },
            (_, None) => c.say("ERR must-login-first"),
            ("MSG", Some(n)) => match clean_text(arg) {
                None => c.say("ERR empty-message"),
                Some(t) => self.others(id, &format!("MSG {} {t}", n.0)),
            },
            ("DM", Some(n)) => match arg.split_once([' ', '\t']).and_then(|(w, t)| Some((w, clean_text(t)?))) {
                None => c.say("ERR invalid-dm-format"),
                Some((who, t)) => match clean_name(who).and_then(|k| self.find(&k.1)) {
                    None => c.say("ERR user-not-found"),
                    Some(to) => self.clients.get_mut(&to).unwrap().tell(&format!("DM {} {t}", n.0)),
                },
            },
            ("WHO", _) => {
                for u in &self.order {
                    c.say(&format!("USER {}", self.clients[u].name.as_ref().unwrap().0));
                }
            }
            ("PING", _) => match clean_text(arg) {
                None => c.say("PONG"),
                Some(t) => c.say(&format!("PONG {t}")),
            },
            _ => c.say("ERR unknown-command"),
        }
    }
    fn run(mut self, rx: Receiver<Event>) {
        let mut tick = Instant::now();
        loop {
            match rx.recv_timeout(Duration::from_millis(100)) {
                Ok(Event::Connected(id, stream, out, waiting)) => {
                    let now = Instant::now();
                    self.clients.insert(id, Client { stream, out: Some(out), waiting, name: None, connected: now, last: now, slow: false });
                }
                Ok(Event::Line(id, l)) => {
                    if let Some(c) = self.clients.get_mut(&id) { c.last = Instant::now() }
                    self.line(id, l)
                }
                Ok(Event::TooLong(id)) => {
                    if let Some(c) = self.clients.get_mut(&id) {
                        c.last = Instant::now();
                        c.say("ERR line-too-long")
                    }
                }
                Ok(Event::Web(id) | Event::Eof(id)) => self.close(id),
                Ok(Event::Broken(id)) => self.reset(id),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Some(id) = self.order.iter().copied().find(|id| self.clients[id].slow) {
                self.reset(id);
            }
            if tick.elapsed() >= Duration::from_millis(100) {
                tick = Instant::now();
                let late: Vec<u64> = self.clients.iter().filter(|(_, c)| c.last.elapsed() >= self.idle || (c.name.is_none() && c.connected.elapsed() >= LOGIN_TIMEOUT)).map(|(id, _)| *id).collect();
                for id in late {
                    self.clients[&id].say("INFO idle-timeout");
                    self.close(id);
                }
            }
            if STOP.load(Ordering::SeqCst) {
                for c in self.clients.values() {
                    c.say("INFO server-shutdown");
                }
                self.clients.clear();
                thread::sleep(Duration::from_millis(500));
                std::process::exit(0);
            }
        }
    }
}

fn reader(id: u64, s: Arc<TcpStream>, hub: SyncSender<Event>) {
    let (mut line, mut skip, mut first) = (Vec::new(), false, true);
    let mut buf = [0u8; 8192];
    loop {
        match (&*s).read(&mut buf) {
            Ok(0) => { let _ = hub.send(Event::Eof(id)); return }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => { let _ = hub.send(Event::Broken(id)); return }
            Ok(n) => {
                for &b in &buf[..n] {
                    if b != b'\n' {
                        if line.len() > MAX_LINE + 1 { skip = true } else { line.push(b) }
                        if first && line == [0x16, 3] { let _ = hub.send(Event::Web(id)); }
                        continue;
                    }
                    if line.last() == Some(&b'\r') && !skip { line.pop(); }
                    let l = std::mem::take(&mut line);
                    let ev = if skip || l.len() > MAX_LINE { Event::TooLong(id) }
                        else if first && String::from_utf8_lossy(&l).contains(" HTTP/1.") { Event::Web(id) }
                        else { Event::Line(id, l) };
                    skip = false;
                    first = false;
                    if hub.send(ev).is_err() { return }
                }
            }
        }
    }
}

fn writer(s: Arc<TcpStream>, rx: Receiver<Vec<u8>>, waiting: Arc<AtomicUsize>) {
    while let Ok(b) = rx.recv() {
        let r = (&*s).write_all(&b);
        waiting.fetch_sub(b.len(), Ordering::SeqCst);
        if r.is_err() { break }
    }
    // the queue is empty and the hub has let go of this client
    let _ = s.shutdown(Shutdown::Write);
    thread::sleep(Duration::from_millis(300)); // the reader takes what is still coming, so that the end is not a reset
    let _ = s.shutdown(Shutdown::Both);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let port: u16 = args.get(1).and_then(|p| p.parse().ok()).expect("usage: chat PORT [IDLE]");
    let idle = args.get(2).map_or(60.0, |s| s.parse::<f64>().expect("idle"));
    unsafe { signal(15, on_signal); signal(2, on_signal); }
    let l = TcpListener::bind(("127.0.0.1", port)).expect("bind");
    let (tx, rx) = sync_channel(1024);
    thread::spawn(move || Hub { clients: HashMap::new(), order: vec![], idle: Duration::from_secs_f64(idle) }.run(rx));
    println!("ready {}", l.local_addr().unwrap().port());
    for (id, s) in l.incoming().enumerate() {
        let Ok(s) = s else { continue };
        let _ = s.set_nodelay(true);
        let (s, id, waiting) = (Arc::new(s), id as u64, Arc::new(AtomicUsize::new(0)));
        let (otx, orx) = channel();
        let _ = tx.send(Event::Connected(id, s.clone(), otx, waiting.clone()));
        let (s2, tx2) = (s.clone(), tx.clone());
        thread::spawn(move || reader(id, s2, tx2));
        thread::spawn(move || writer(s, orx, waiting));
    }
}
