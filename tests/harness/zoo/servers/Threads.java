// A chat server in Java with a thread for each client: PORT [deliver=MS] [dup=MS] [early]; what these mean is in room.py.
// With `early` messages go through an executor, and answers do not.

import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;

public class Threads {
    static final Map<String, Long> options = new HashMap<>();
    static final Set<Threads> members = new LinkedHashSet<>();
    static final ScheduledExecutorService executor = Executors.newSingleThreadScheduledExecutor(task -> {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    });

    final Socket socket;
    String name = "", room = "";

    Threads(Socket socket) {
        this.socket = socket;
    }

    static void later(String flaw, Runnable action) {
        long delay = options.getOrDefault(flaw, 0L);
        if (delay > 0 || options.containsKey("early")) {
            executor.schedule(() -> { synchronized (members) { action.run(); } }, delay, TimeUnit.MILLISECONDS);
        } else {
            action.run();
        }
    }

    void tell(String text) {
        try {
            socket.getOutputStream().write((text + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (IOException gone) {
            // It has left; reading tells.
        }
    }

    List<Threads> others() {
        List<Threads> found = new ArrayList<>();
        for (Threads one : members) if (one != this && one.room.equals(room)) found.add(one);
        return found;
    }

    void leave() {
        if (members.remove(this)) {
            List<Threads> others = others();
            later("deliver", () -> others.forEach(one -> one.tell("INFO " + name + " left")));
        }
    }

    void handle(String line) throws IOException {
        int at = line.indexOf(' ');
        String verb = at < 0 ? line : line.substring(0, at), rest = at < 0 ? "" : line.substring(at + 1);
        switch (verb) {
            case "LOGIN" -> {
                String[] words = rest.split("@", 2);
                for (Threads one : members) {
                    if (one.name.equals(words[0]) && one.room.equals(words[1])) {
                        tell("ERR username-taken");
                        return;
                    }
                }
                name = words[0];
                room = words[1];
                members.add(this);
                tell("OK");
            }
            case "PING" -> tell(("PONG " + rest).strip());
            case "SYNC" -> later("deliver", () -> tell("SYNCED " + rest));
            case "HELLO" -> tell("HI");
            case "MSG" -> {
                List<Threads> others = others();
                String text = "MSG " + name + " " + rest;
                later("deliver", () -> others.forEach(one -> one.tell(text)));
                if (options.containsKey("dup")) later("dup", () -> others.forEach(one -> one.tell(text)));
            }
            case "QUIT" -> {
                tell("Goodbye!");
                leave();
                socket.shutdownInput();
                socket.shutdownOutput();
            }
            case "JOIN" -> { }
            default -> tell("ERR must-login-first");
        }
    }

    void converse() {
        try (socket; BufferedReader lines = new BufferedReader(new InputStreamReader(socket.getInputStream(), "UTF-8"))) {
            for (String line; (line = lines.readLine()) != null; ) synchronized (members) { handle(line); }
        } catch (IOException gone) {
            // It was reset.
        }
        synchronized (members) { leave(); }
    }

    public static void main(String[] words) throws IOException {
        for (int at = 1; at < words.length; at++) {
            String[] option = words[at].split("=");
            options.put(option[0], option.length > 1 ? Long.parseLong(option[1]) : 0L);
        }
        ServerSocket listener = new ServerSocket(Integer.parseInt(words[0]), 64, InetAddress.getByName("127.0.0.1"));
        while (true) {
            Socket socket = listener.accept();
            socket.setTcpNoDelay(true);
            Thread thread = new Thread(new Threads(socket)::converse);
            thread.setDaemon(true);
            thread.start();
        }
    }
}
