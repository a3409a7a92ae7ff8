# chat server, `line` protocol, Tcl event loop.  usage: tclsh chat.tcl PORT ?IDLE?
set idle 60
if {$argc > 1} { set idle [lindex $argv 1] }
set maxline 4096
set maxout [expr {1 << 20}]
set users {}          ;# channels in login order
# C($ch,field): buf out name key last since skip first closing

proc now {} { expr {[clock milliseconds] / 1000.0} }

proc accept {ch host port} {
    global C
    fconfigure $ch -blocking 0 -translation binary -encoding binary -buffering full -buffersize 65536
    array set C [list $ch,buf "" $ch,name "" $ch,key "" $ch,last [now] $ch,since [now] $ch,skip 0 $ch,first 1 $ch,closing 0]
    lappend ::channels $ch
    fileevent $ch readable [list readable $ch]
}
set channels {}

# Tcl keeps what the socket does not take and sends it in the background
proc put {ch bytes} {
    if {$::C($ch,closing)} return
    if {[catch {puts -nonewline $ch $bytes; flush $ch}]} { after 0 [list destroy $ch] }
}
proc say {ch s} { put $ch [encoding convertto utf-8 "$s\n"] }
proc tell_ {ch s} {
    if {[catch {chan pending output $ch} n]} return
    if {$n + [string length $s] > $::maxout} { after 0 [list destroy $ch]; return }
    say $ch $s
}
proc others {me s} { foreach u $::users { if {$u ne $me} { tell_ $u $s } } }
proc leave {ch} {
    global users C
    set i [lsearch -exact $users $ch]
    if {$i < 0} return
    set users [lreplace $users $i $i]
    others $ch "INFO $C($ch,name) disconnected"
}
proc destroy {ch} {
    global C channels
    if {![info exists C($ch,buf)]} return
    set C($ch,closing) 1
    leave $ch
    set i [lsearch -exact $channels $ch]
    set channels [lreplace $channels $i $i]
    array unset C $ch,*
    catch {close $ch}
}
# everything queued is sent, then the end. close on a non-blocking channel flushes in the background
proc finish {ch} {
    if {$::C($ch,closing)} return
    leave $ch
    set ::C($ch,closing) 1
    fileevent $ch readable [list drain $ch]
    wait_flushed $ch 0
}
proc drain {ch} { if {[catch {read $ch 65536}] || [eof $ch]} { fileevent $ch readable {} ; set ::C($ch,ended) 1 } }
proc wait_flushed {ch n} {
    global C
    if {![info exists C($ch,buf)]} return
    if {[catch {chan pending output $ch} left]} { destroy $ch; return }
    if {$left > 0 && $n < 200} { after 50 [list wait_flushed $ch [incr n]]; return }
    catch {close $ch write}
    if {[info exists C($ch,ended)]} { destroy $ch } else { after 500 [list destroy $ch] }
}

proc readable {ch} {
    global C maxline
    if {[catch {read $ch 65536} data]} { destroy $ch; return }
    append C($ch,buf) $data
    if {$C($ch,first) && [string match "\x16\x03*" $C($ch,buf)]} { destroy $ch; return }
    set at 0
    while {!$C($ch,closing) && [set i [string first \n $C($ch,buf) $at]] >= 0} {
        set l [string range $C($ch,buf) $at [expr {$i - 1}]]
        set at [expr {$i + 1}]
        if {[string index $l end] eq "\r"} { set l [string range $l 0 end-1] }
        set C($ch,last) [now]
        if {$C($ch,skip) || [string length $l] > $maxline} {
            set C($ch,skip) 0
            say $ch "ERR line-too-long"
        } elseif {$C($ch,first) && [regexp {^[A-Z]+ .* ?HTTP/[0-9]} $l]} {
            destroy $ch
            return
        } else {
            handle $ch $l
        }
        if {![info exists C($ch,buf)]} return
        set C($ch,first) 0
    }
    if {$C($ch,closing)} return
    set C($ch,buf) [string range $C($ch,buf) $at end]
    if {[string length $C($ch,buf)] > $maxline + 1} { set C($ch,skip) 1; set C($ch,buf) "" }
    if {[eof $ch]} { finish $ch; if {[info exists C($ch,buf)]} { set C($ch,ended) 1; fileevent $ch readable {} } }
}

proc untelnet {ch l} {
    if {[string first \xff $l] < 0} { return $l }
    if {[string first \xff\xfd\x06 $l] >= 0} { put $ch \xff\xfb\x06 }
    set out ""
    set n [string length $l]
    for {set i 0} {$i < $n} {incr i} {
        set c [string index $l $i]
        if {$c ne "\xff"} { append out $c; continue }
        incr i
        switch -- [string index $l $i] {
            \xff { append out \xff }
            \xfa { set e [string first \xff\xf0 $l $i]; set i [expr {$e < 0 ? $n : $e + 1}] }
            \xfb - \xfc - \xfd - \xfe { incr i }
        }
    }
    return $out
}
# Tcl 8.6 has 16-bit characters and a lenient decoder: check the bytes by hand
proc valid_utf8 {b} {
    regexp {^(?:[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})*$} $b
}

set mk {\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0903\u093a-\u093c\u093e-\u094f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe20-\ufe2f}
set rtl {\u05d0-\u05f2\u0620-\u064a\u066e-\u06d5\u06fa-\u08c9\ufb1d-\ufdff\ufe70-\ufefc}
proc clean_text {s} {
    global mk rtl
    set s [string trim $s]
    set s [string map [list \t " "] $s]
    regsub -all {[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u2028\u2029]} $s \ufffd s
    regsub -all {[\u200b\ufeff\u00ad\u2060-\u2064\u206a-\u206f\u115f\u1160\u3164\uffa0\u034f\u180e]} $s "" s
    if {![regexp "\[$rtl\]" $s]} { regsub -all {[\u200e\u200f\u061c]} $s "" s }
    regsub -all "(\[$mk\]{4})\[$mk\]+" $s {\1} s
    set s [string trim $s]
    if {[regexp {^[\s\u00a0\u2000-\u200d\u202f\u205f\u3000\u200e\u200f\u061c\ufe00-\ufe0f\u2800]*$} $s]} { return "" }
    return $s
}
# returns {name key} or {}
proc clean_name {s} {
    global mk rtl
    set n ""
    foreach c [split $s ""] {
        scan $c %c u
        if {$u >= 0xff01 && $u <= 0xff5e} { set c [format %c [expr {$u - 0xfee0}]] }
        append n $c
    }
    set len [string length $n]
    if {$len < 1 || $len > 20} { return {} }
    if {[regexp "^\[$mk\]" $n] || [regexp "\[$mk\]{5}" $n]} { return {} }
    foreach c [split $n ""] {
        if {![string is alnum $c] && ![regexp "^\[_.$mk-\]\$" $c]} { return {} }
        if {[regexp {[\u115f\u1160\u3164\uffa0]} $c]} { return {} }
    }
    if {[regexp "\[$rtl\]" $n] && (![regexp "^\[$rtl\]" $n] || [regexp {[A-Za-z\u00c0-\u0590]} $n])} { return {} }
    return [list $n [string tolower $n]]
}
proc find {key} { foreach u $::users { if {$::C($u,key) eq $key} { return $u } } ; return "" }

proc handle {ch raw} {
    global C users
    set raw [untelnet $ch $raw]
    if {![valid_utf8 $raw]} { say $ch "ERR invalid-utf8"; return }
    set l [string trim [encoding convertfrom utf-8 $raw] " \t"]
    if {$l eq ""} return
    regexp {^([^ \t]+)[ \t]*(.*)$} $l -> cmd arg
    set cmd [string toupper $cmd]
    set in [expr {$C($ch,name) ne ""}]
    if {$cmd in {QUIT EXIT}} { say $ch "Goodbye!"; finish $ch; return }
    if {$cmd eq "LOGIN"} {
        if {$in} { say $ch "ERR already-logged-in"; return }
        set n [clean_name $arg]
        if {$n eq ""} { say $ch "ERR invalid-username"; return }
        if {[find [lindex $n 1]] ne ""} { say $ch "ERR username-taken"; return }
        lassign $n C($ch,name) C($ch,key)
        lappend users $ch
        say $ch OK
        return
    }
    if {!$in} { say $ch "ERR must-login-first"; return }
    switch -- $cmd {
        MSG {
            set t [clean_text $arg]
            if {$t eq ""} { say $ch "ERR empty-message" } else { others $ch "MSG $C($ch,name) $t" }
        }
        DM {
            set t ""
            if {[regexp {^([^ \t]+)[ \t]+(.*)$} $arg -> to t]} { set t [clean_text $t] }
            if {$t eq ""} { say $ch "ERR invalid-dm-format"; return }
            set n [clean_name $to]
            set u [expr {$n eq "" ? "" : [find [lindex $n 1]]}]
            if {$u eq ""} { say $ch "ERR user-not-found" } else { tell_ $u "DM $C($ch,name) $t" }
        }
        WHO { foreach u $users { say $ch "USER $C($u,name)" } }
        PING { set t [clean_text $arg]; say $ch [expr {$t eq "" ? "PONG" : "PONG $t"}] }
        default { say $ch "ERR unknown-command" }
    }
}

proc tick {} {
    global C channels idle
    set t [now]
    foreach ch $channels {
        if {![info exists C($ch,buf)] || $C($ch,closing)} continue
        if {$t - $C($ch,last) >= $idle || ($C($ch,name) eq "" && $t - $C($ch,since) >= 60)} {
            say $ch "INFO idle-timeout"
            finish $ch
        }
    }
    after 100 tick
}

set srv [socket -server accept -myaddr 127.0.0.1 [lindex $argv 0]]
puts "ready [lindex [fconfigure $srv -sockname] 2]"
flush stdout
tick
vwait forever
