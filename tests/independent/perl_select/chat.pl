#!/usr/bin/perl
# chat server, `line` protocol, IO::Select loop.  usage: perl chat.pl PORT [IDLE]
use strict;
use warnings;
use IO::Socket::INET;
use IO::Select;
use Socket qw(SOL_SOCKET SO_LINGER IPPROTO_TCP TCP_NODELAY SHUT_WR);
use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use Encode ();
use Unicode::Normalize qw(NFC NFKC);
use Time::HiRes qw(time);
use feature 'fc';

my ($port, $idle) = @ARGV;
die "usage: chat.pl PORT [IDLE]\n" unless defined $port;
$idle //= 60;
my ($MAXLINE, $MAXOUT, $LOGIN) = (4096, 1 << 20, 60);
$SIG{PIPE} = 'IGNORE';
my $stop = 0;
$SIG{TERM} = $SIG{INT} = sub { $stop = 1 };
$| = 1;

my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 256, ReuseAddr => 1, Blocking => 0) or die "listen: $!";
my $rsel = IO::Select->new($listen);
my $wsel = IO::Select->new;
my %client;        # fileno -> client
my @users;         # clients in login order
my @slow;

print "ready ", $listen->sockport, "\n";

sub put {
    my ($c, $b) = @_;
    return if $c->{closing} || $c->{dead};
    $c->{out} .= $b;
    $wsel->add($c->{sock});
}
sub say_to { my ($c, $s) = @_; put($c, Encode::encode('UTF-8', $s) . "\n") }
sub hear {
    my ($c, $s) = @_;
    my $b = Encode::encode('UTF-8', $s) . "\n";
    if (length($c->{out}) + length($b) > $MAXOUT) { push @slow, $c; return }
    put($c, $b);
}
sub others { my ($me, $s) = @_; for my $u (@users) { hear($u, $s) if $u != $me } }
sub leave {
    my ($c) = @_;
    my $name = delete $c->{name} // return;
    @users = grep { $_ != $c } @users;
    others($c, "INFO $name disconnected");
}
# what is queued is sent, then the end
sub finish {
    my ($c) = @_;
    return if $c->{closing};
    leave($c);
    $c->{closing} = time;
    $wsel->add($c->{sock});
}
sub destroy {
    my ($c, $reset) = @_;
    return if $c->{dead};
    $c->{dead} = 1;
    leave($c);
    $rsel->remove($c->{sock});
    $wsel->remove($c->{sock});
    delete $client{$c->{fd}};
    setsockopt($c->{sock}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) if $reset;
    close $c->{sock};
}

sub clean_text {
    my ($t) = @_;
    $t =~ s/^\s+//; $t =~ s/\s+$//;
    $t =~ tr/\t/ /;
    $t =~ s/[\p{Cc}\x{202a}-\x{202e}\x{2066}-\x{2069}\x{2028}\x{2029}]/\x{fffd}/g;
    $t =~ s/[\x{200b}\x{feff}\x{ad}\x{2060}-\x{2064}\x{206a}-\x{206f}\x{115f}\x{1160}\x{3164}\x{ffa0}\x{34f}\x{180e}]//g;
    $t =~ s/(\x{1f3f4}[\x{e0020}-\x{e007e}]+\x{e007f})|[\x{e0000}-\x{e007f}]/defined $1 ? $1 : ''/ge;
    $t =~ s/[\x{200e}\x{200f}\x{61c}]//g unless $t =~ /(?=\p{L})[\p{Bidi_Class=R}\p{Bidi_Class=AL}]/;
    $t =~ s/(\p{M}{4})\p{M}+/$1/g;
    $t =~ s/^\s+//; $t =~ s/\s+$//;
    return $t =~ /^[\s\p{Default_Ignorable_Code_Point}\x{2800}]*$/ ? '' : $t;
}
# (name, key), or nothing
sub clean_name {
    my ($n) = @_;
    return if length($n) > 80;
    $n =~ s/([\x{ff01}-\x{ffee}\x{3000}])/NFKC($1)/ge;
    $n = NFC($n);
    return unless $n =~ /^[\p{L}\p{Nd}\p{M}_.\-]{1,20}\z/;
    return if $n =~ /^\p{M}/ || $n =~ /\p{M}{5}/ || $n =~ /\p{Default_Ignorable_Code_Point}/;
    if ($n =~ /[\p{Bidi_Class=R}\p{Bidi_Class=AL}\p{Bidi_Class=AN}]/) {    # RFC 5893
        return unless $n =~ /^[\p{Bidi_Class=R}\p{Bidi_Class=AL}]/;
        return if $n =~ /\p{Bidi_Class=L}/;
        return if $n =~ /\p{Bidi_Class=EN}/ && $n =~ /\p{Bidi_Class=AN}/;
        return unless $n =~ /[\p{Bidi_Class=R}\p{Bidi_Class=AL}\p{Bidi_Class=EN}\p{Bidi_Class=AN}]\p{M}*\z/;
    }
    return ($n, NFC(fc $n));
}
sub find { my ($key) = @_; for (@users) { return $_ if $_->{key} eq $key } return }

sub untelnet {
    my ($c, $l) = @_;
    return $l unless $l =~ /\xff/;
    put($c, "\xff\xfb\x06") if $l =~ /\xff\xfd\x06/;
    $l =~ s/\xff(?:(\xff)|\xfa.*?(?:\xff\xf0|\z)|[\xfb-\xfe](?:.|\z)|[^\xff]|\z)/defined $1 ? $1 : ''/gse;
    return $l;
}

sub handle {
    my ($c, $raw) = @_;
    $raw = untelnet($c, $raw);
    my $l = eval { Encode::decode('UTF-8', $raw, Encode::FB_CROAK) };
    return say_to($c, 'ERR invalid-utf8') unless defined $l;
    return if $l =~ /^\s*\z/;
    my ($cmd, $arg) = $l =~ /^\s*(\S+)\s*(.*)\z/s;
    $cmd = uc $cmd;
    $arg =~ s/\s+\z//;
    if ($cmd eq 'QUIT' || $cmd eq 'EXIT') { say_to($c, 'Goodbye!'); return finish($c) }
    if ($cmd eq 'LOGIN') {
        return say_to($c, 'ERR already-logged-in') if defined $c->{name};
        my ($n, $k) = clean_name($arg) or return say_to($c, 'ERR invalid-username');
        return say_to($c, 'ERR username-taken') if find($k);
        @$c{qw(name key)} = ($n, $k);
        push @users, $c;
        return say_to($c, 'OK');
    }
    return say_to($c, 'ERR must-login-first') unless defined $c->{name};
    if ($cmd eq 'MSG') {
        my $t = clean_text($arg);
        return say_to($c, 'ERR empty-message') if $t eq '';
        others($c, "MSG $c->{name} $t");
    } elsif ($cmd eq 'DM') {
        my ($to, $t) = $arg =~ /^(\S+)\s+(.*)\z/s;
        $t = clean_text($t) if defined $t;
        return say_to($c, 'ERR invalid-dm-format') if !defined $t || $t eq '';
        my (undef, $k) = clean_name($to);
        my $u = defined $k ? find($k) : undef;
        return say_to($c, 'ERR user-not-found') unless $u;
        hear($u, "DM $c->{name} $t");
    } elsif ($cmd eq 'WHO') {
        say_to($c, "USER $_->{name}") for @users;
    } elsif ($cmd eq 'PING') {
        my $t = clean_text($arg);
        say_to($c, $t eq '' ? 'PONG' : "PONG $t");
    } else {
        say_to($c, 'ERR unknown-command');
    }
}

sub readable {
    my ($c) = @_;
    my $n = sysread($c->{sock}, my $buf, 65536);
    if (!defined $n) { destroy($c) unless $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR; return }
    if ($n == 0) { $rsel->remove($c->{sock}); $c->{eof} = 1; finish($c); return }
    return if $c->{closing};    # thrown away, so that closing is no reset
    $c->{in} .= $buf;
    if (!$c->{begun} && $c->{in} =~ /^\x16\x03/) { return destroy($c) }
    while (!$c->{closing} && (my $i = index($c->{in}, "\n")) >= 0) {
        my $l = substr($c->{in}, 0, $i + 1, '');
        chop $l;
        $l =~ s/\r\z//;
        $c->{last} = time;
        if (delete $c->{skip} || length($l) > $MAXLINE) { say_to($c, 'ERR line-too-long') }
        elsif (!$c->{begun} && $l =~ m{^[A-Z]+ \S* ?HTTP/\d}) { return destroy($c) }
        else { handle($c, $l) }
        $c->{begun} = 1;
    }
    if (length($c->{in}) > $MAXLINE + 1) { $c->{skip} = 1; $c->{in} = '' }
}
sub writable {
    my ($c) = @_;
    if (length $c->{out}) {
        my $n = syswrite($c->{sock}, $c->{out}, 262144);
        if (!defined $n) { destroy($c) unless $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR; return }
        substr($c->{out}, 0, $n, '');
    }
    return if length $c->{out};
    $wsel->remove($c->{sock});
    if ($c->{closing} && !$c->{shut}) {
        $c->{shut} = time;
        shutdown($c->{sock}, SHUT_WR);
        destroy($c) if $c->{eof};
    }
}

while (!$stop) {
    my ($r, $w) = IO::Select->select($rsel, $wsel, undef, 0.1);
    for my $s (@{ $r || [] }) {
        if ($s == $listen) {
            while (my $n = $listen->accept) {
                $n->blocking(0);
                setsockopt($n, IPPROTO_TCP, TCP_NODELAY, 1);
                $client{ fileno $n } = { sock => $n, fd => fileno $n, in => '', out => '', last => time, since => time };
                $rsel->add($n);
            }
        } else {
            my $c = $client{ fileno($s) // -1 } or next;
            readable($c);
        }
    }
    for my $s (@{ $w || [] }) {
        my $c = $client{ fileno($s) // -1 } or next;
        writable($c);
    }
    while (my $c = shift @slow) { destroy($c, 1) }
    my $now = time;
    for my $c (values %client) {
        if ($c->{closing}) { destroy($c) if $c->{shut} ? $now - $c->{shut} > 1 : $now - $c->{closing} > 10 }
        elsif ($now - $c->{last} >= $idle || (!defined $c->{name} && $now - $c->{since} >= $LOGIN)) {
            say_to($c, 'INFO idle-timeout');
            finish($c);
        }
    }
}
@users = ();
for my $c (values %client) {
    say_to($c, 'INFO server-shutdown');
    syswrite($c->{sock}, $c->{out});
    shutdown($c->{sock}, SHUT_WR);
}
select undef, undef, undef, 0.2;
