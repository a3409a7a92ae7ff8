// Chat server, `line` protocol: Java NIO, one selector thread.  usage: java -cp java_nio Chat PORT [IDLE]
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.nio.charset.*;
import java.text.Normalizer;
import java.util.*;
import java.util.regex.*;

public class Chat {
    static final int MAX_LINE = 4096, MAX_OUT = 1 << 20;
    static double idle = 60;
    static volatile boolean stopping;
    static Selector selector;
    static final Map<String, Conn> room = new LinkedHashMap<>();   // in login order
    static final Set<Conn> all = new LinkedHashSet<>();
    static final Deque<Conn> tooSlow = new ArrayDeque<>();

    static double now() { return System.nanoTime() / 1e9; }

    static class Conn {
        final SocketChannel ch;
        final SelectionKey key;
        final ByteArrayOutputStream in = new ByteArrayOutputStream();
        final ArrayDeque<ByteBuffer> out = new ArrayDeque<>();
        int waiting;
        boolean skip, first = true, eof, dead;
        String name, fold;
        double since = now(), last = since, closing = -1, shut = -1;

        Conn(SocketChannel ch) throws IOException {
            this.ch = ch;
            ch.configureBlocking(false);
            ch.setOption(StandardSocketOptions.TCP_NODELAY, true);
            key = ch.register(selector, SelectionKey.OP_READ, this);
            all.add(this);
        }
        void put(byte[] b) {
            if (closing >= 0 || dead) return;
            out.add(ByteBuffer.wrap(b));
            waiting += b.length;
            interest();
        }
        void say(String s) { put((s + "\n").getBytes(StandardCharsets.UTF_8)); }
        void hear(String s) {
            if (closing >= 0 || dead) return;
            byte[] b = (s + "\n").getBytes(StandardCharsets.UTF_8);
            if (waiting + b.length > MAX_OUT) flush();
            if (dead) return;
            if (waiting + b.length > MAX_OUT) tooSlow.add(this);
            else put(b);
        }
        void interest() {
            if (!key.isValid()) return;
            boolean read = !eof && (closing >= 0 || waiting < 2 * MAX_OUT);
            key.interestOps((read ? SelectionKey.OP_READ : 0) | (out.isEmpty() ? 0 : SelectionKey.OP_WRITE));
        }
        void flush() {
            try {
                while (!out.isEmpty()) {
                    waiting -= ch.write(out.peek());
                    if (out.peek().hasRemaining()) break;
                    out.poll();
                }
                if (closing >= 0 && out.isEmpty() && shut < 0) {
                    shut = now();
                    ch.shutdownOutput();
                    if (eof) { destroy(false); return; }
                }
                interest();
            } catch (IOException e) {
                tooSlow.add(this);   // gone: clean up after the present event
                out.clear();
                waiting = 0;
            }
        }
        void leave() {
            if (fold == null) return;
            room.remove(fold);
            fold = null;
            others(this, "INFO " + name + " disconnected");
        }
        void end() {
            if (closing >= 0) return;
            leave();
            closing = now();
            flush();
        }
        void destroy(boolean reset) {
            if (dead) return;
            dead = true;
            all.remove(this);
            leave();
            try {
                if (reset) ch.setOption(StandardSocketOptions.SO_LINGER, 0);
                ch.close();
            } catch (IOException e) { /* closed anyway */ }
        }
        void read() {
            ByteBuffer b = ByteBuffer.allocate(16384);
            int n;
            try { n = ch.read(b); } catch (IOException e) { destroy(false); return; }
            if (n < 0) { eof = true; if (closing >= 0 && shut >= 0) destroy(false); else end(); if (!dead) interest(); return; }
            byte[] d = b.array();
            for (int i = 0; i < n && closing < 0 && !dead; i++) {
                if (d[i] != '\n') {
                    if (in.size() > MAX_LINE + 1) skip = true; else in.write(d[i]);
                    if (first && in.size() == 2 && in.toByteArray()[0] == 0x16 && d[i] == 3) destroy(false);
                    continue;
                }
                last = now();
                byte[] l = in.toByteArray();
                in.reset();
                if (l.length > 0 && l[l.length - 1] == '\r') l = Arrays.copyOf(l, l.length - 1);
                boolean was = first;
                first = false;
                if (skip || l.length > MAX_LINE) say("ERR line-too-long");
                else if (was && HTTP.matcher(new String(l, StandardCharsets.ISO_8859_1)).find()) destroy(false);
                else line(l);
                skip = false;
            }
        }
        void line(byte[] raw) {
            raw = untelnet(raw);
            String s;
            try { s = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(raw)).toString(); }
            catch (CharacterCodingException e) { say("ERR invalid-utf8"); return; }
            s = s.strip();
            if (s.isEmpty()) return;
            String[] p = s.split("\\s+", 2);
            String arg = p.length > 1 ? p[1] : "";
            String cmd = p[0].toUpperCase(Locale.ROOT);
            switch (cmd) {
                case "QUIT": case "EXIT": say("Goodbye!"); end(); return;
                case "LOGIN":
                    if (fold != null) { say("ERR already-logged-in"); return; }
                    String n = name(arg);
                    if (n == null) { say("ERR invalid-username"); return; }
                    if (room.containsKey(fold(n))) { say("ERR username-taken"); return; }
                    name = n;
                    fold = fold(n);
                    room.put(fold, this);
                    say("OK");
                    return;
            }
            if (fold == null) { say("ERR must-login-first"); return; }
            switch (cmd) {
                case "MSG": {
                    String t = clean(arg);
                    if (t.isEmpty()) say("ERR empty-message"); else others(this, "MSG " + name + " " + t);
                    break;
                }
                case "DM": {
                    String[] q = arg.split("\\s+", 2);
                    String t = q.length < 2 ? "" : clean(q[1]);
                    if (t.isEmpty()) { say("ERR invalid-dm-format"); break; }
                    String n = name(q[0]);
                    Conn c = n == null ? null : room.get(fold(n));
                    if (c == null) say("ERR user-not-found"); else c.hear("DM " + name + " " + t);
                    break;
                }
                case "WHO": for (Conn c : room.values()) say("USER " + c.name); break;
                case "PING": { String t = clean(arg); say(t.isEmpty() ? "PONG" : "PONG " + t); break; }
                default: say("ERR unknown-command");
            }
        }
        byte[] untelnet(byte[] b) {
            ByteArrayOutputStream o = new ByteArrayOutputStream();
            for (int i = 0; i < b.length; i++) {
                if (b[i] != -1) { o.write(b[i]); continue; }
                int v = ++i < b.length ? b[i] & 255 : 0;
                if (v == 255) o.write(255);
                else if (v == 250) { while (++i < b.length && !((b[i] & 255) == 240 && b[i - 1] == -1)) ; }
                else if (v >= 251) { if (++i < b.length && v == 253 && b[i] == 6) put(new byte[]{-1, -5, 6}); }
            }
            return o.toByteArray();
        }
    }

    static void others(Conn me, String s) { for (Conn c : new ArrayList<>(room.values())) if (c != me) c.hear(s); }

    static final Pattern HTTP = Pattern.compile("^[A-Z]+ \\S+ HTTP/");
    static final Pattern BAD = Pattern.compile("[\\p{Cc}\\u202a-\\u202e\\u2066-\\u2069\\u2028\\u2029]");
    static final Pattern DROP = Pattern.compile("[\\u200b\\ufeff\\u00ad\\u2060-\\u2064\\u206a-\\u206f\\u115f\\u1160\\u3164\\uffa0\\u034f\\u180e]");
    static final Pattern TAGS = Pattern.compile("(\\x{1f3f4}[\\x{e0020}-\\x{e007e}]+\\x{e007f})|[\\x{e0000}-\\x{e007f}]");
    static final Pattern MARKS = Pattern.compile("(\\p{M}{4})\\p{M}+");
    static final Pattern BLANK = Pattern.compile("[\\s\\p{Z}\\p{Cf}\\ufe00-\\ufe0f\\x{e0100}-\\x{e01ef}\\u2800]*");
    static final Pattern NAME = Pattern.compile("[\\p{L}\\p{Nd}\\p{M}_.-]{1,20}");

    static boolean rtl(int c) {
        byte d = Character.getDirectionality(c);
        return d == Character.DIRECTIONALITY_RIGHT_TO_LEFT || d == Character.DIRECTIONALITY_RIGHT_TO_LEFT_ARABIC;
    }
    static String clean(String s) {
        s = BAD.matcher(s.strip().replace('\t', ' ')).replaceAll("\ufffd");
        s = DROP.matcher(s).replaceAll("");
        s = TAGS.matcher(s).replaceAll(m -> m.group(1) == null ? "" : m.group(1));
        if (s.codePoints().noneMatch(c -> Character.isLetter(c) && rtl(c))) s = s.replaceAll("[\\u200e\\u200f\\u061c]", "");
        s = MARKS.matcher(s).replaceAll("$1").strip();
        return BLANK.matcher(s).matches() ? "" : s;
    }
    static String name(String s) {
        if (s.codePointCount(0, s.length()) > 80) return null;
        StringBuilder b = new StringBuilder();
        s.codePoints().forEach(c -> {
            String x = Character.toString(c);
            b.append(c >= 0xff01 && c <= 0xffee ? Normalizer.normalize(x, Normalizer.Form.NFKC) : x);
        });
        s = Normalizer.normalize(b, Normalizer.Form.NFC);
        if (!NAME.matcher(s).matches() || s.matches("^\\p{M}.*") || Pattern.compile("\\p{M}{5}").matcher(s).find()) return null;
        if (DROP.matcher(s).find() || Pattern.compile("[\\ufe00-\\ufe0f\\x{e0100}-\\x{e01ef}]").matcher(s).find()) return null;
        if (s.codePoints().anyMatch(Chat::rtl)) {
            if (!rtl(s.codePointAt(0)) || s.codePoints().anyMatch(c -> Character.getDirectionality(c) == Character.DIRECTIONALITY_LEFT_TO_RIGHT)) return null;
        }
        return s;
    }
    static String fold(String s) { return Normalizer.normalize(s.toLowerCase(Locale.ROOT), Normalizer.Form.NFC); }

    public static void main(String[] a) throws Exception {
        if (a.length > 1) idle = Double.parseDouble(a[1]);
        selector = Selector.open();
        ServerSocketChannel srv = ServerSocketChannel.open();
        srv.setOption(StandardSocketOptions.SO_REUSEADDR, true);
        srv.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(a[0])), 256);
        srv.configureBlocking(false);
        srv.register(selector, SelectionKey.OP_ACCEPT);
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            selector.wakeup();
            try { main.join(2000); } catch (InterruptedException e) { /* going down */ }
        }));
        System.out.println("ready " + srv.socket().getLocalPort());
        double checked = 0;
        while (!stopping) {
            selector.select(100);
            for (Iterator<SelectionKey> i = selector.selectedKeys().iterator(); i.hasNext(); ) {
                SelectionKey k = i.next();
                i.remove();
                if (!k.isValid()) continue;
                if (k.isAcceptable()) {
                    for (SocketChannel c; (c = srv.accept()) != null; ) new Conn(c);
                    continue;
                }
                Conn c = (Conn) k.attachment();
                if (k.isReadable()) c.read();
                if (k.isValid() && k.isWritable()) c.flush();
                while (!tooSlow.isEmpty()) tooSlow.poll().destroy(true);
            }
            double t = now();
            if (t - checked < 0.1) continue;
            checked = t;
            for (Conn c : new ArrayList<>(all)) {
                if (c.closing >= 0) { if (c.shut >= 0 ? t - c.shut > 1 : t - c.closing > 10) c.destroy(false); }
                else if (t - c.last >= idle || (c.fold == null && t - c.since >= 60)) { c.say("INFO idle-timeout"); c.end(); }
            }
            while (!tooSlow.isEmpty()) tooSlow.poll().destroy(true);
        }
        room.clear();
        for (Conn c : new ArrayList<>(all)) { c.fold = null; c.say("INFO server-shutdown"); c.end(); }
        Thread.sleep(200);
    }
}
