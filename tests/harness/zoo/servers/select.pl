# A chat server in Perl on select: PORT [deliver=MS] [dup=MS] [echo=MS]; what these mean is in room.py.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw(time);

$SIG{PIPE} = 'IGNORE';
my $port = shift @ARGV;
my %options = map { /=/ ? split(/=/, $_, 2) : ($_, 1) } @ARGV;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 64, ReuseAddr => 1)
  or die "listen: $!";
my $all = IO::Select->new($listener);
my (%people, @timers);    # by file number; [due, action] in the order of due

sub later {
    my ($flaw, $action) = @_;
    my $delay_ms = $options{$flaw} // 0;
    return $action->() unless $delay_ms;
    my $due = time + $delay_ms / 1000;
    my $at = 0;
    $at++ while $at < @timers && $timers[$at][0] <= $due;
    splice @timers, $at, 0, [$due, $action];
}

sub send_to { my ($text, @to) = @_; for (@to) { syswrite $_->{sock}, "$text\n" if $_->{sock}->opened } }

sub others {
    my ($self) = @_;
    return grep { $_ != $self && $_->{name} ne '' && $_->{room} eq $self->{room} } values %people;
}

sub leave {
    my ($self) = @_;
    return if $self->{gone}++;
    my @others = others($self);
    my $name = $self->{name};
    delete $people{ $self->{number} };
    later('deliver', sub { send_to("INFO $name left", @others) }) if $name ne '';
}

sub handle {
    my ($self, $line) = @_;
    my ($verb, $rest) = split / /, $line, 2;
    $rest //= '';
    if ($verb eq 'LOGIN') {
        my ($name, $room) = split /@/, $rest;
        return send_to('ERR username-taken', $self) if grep { $_->{name} eq $name && $_->{room} eq $room } values %people;
        @$self{qw(name room)} = ($name, $room);
        send_to('OK', $self);
    }
    elsif ($verb eq 'PING')  { send_to($rest eq '' ? 'PONG' : "PONG $rest", $self) }
    elsif ($verb eq 'SYNC')  { later('deliver', sub { send_to("SYNCED $rest", $self) }) }
    elsif ($verb eq 'HELLO') { send_to('HI', $self) }
    elsif ($verb eq 'MSG' && $self->{name} ne '') {
        my @others = others($self);
        my $text = "MSG $self->{name} $rest";
        later('deliver', sub { send_to($text, @others) });
        later('dup', sub { send_to($text, @others) }) if exists $options{dup};
        later('echo', sub { send_to($text, $self) }) if exists $options{echo};
    }
    elsif ($verb eq 'QUIT') {
        send_to('Goodbye!', $self);
        leave($self);
        shutdown $self->{sock}, 2;
    }
    elsif ($verb ne 'JOIN') { send_to('ERR must-login-first', $self) }
}

my %by_socket;
while (1) {
    my $left = @timers ? $timers[0][0] - time : undef;
    $left = 0 if defined $left && $left < 0;
    for my $sock ($all->can_read($left)) {
        if ($sock == $listener) {
            my $new = $listener->accept or next;
            $all->add($new);
            my $self = { sock => $new, number => fileno $new, name => '', room => '', rest => '' };
            $people{ fileno $new } = $by_socket{ fileno $new } = $self;
            next;
        }
        my $number = fileno $sock;
        my $self = $by_socket{$number};
        my $got = sysread $sock, my $data, 4096;
        if (!$got) {
            leave($self);
            $all->remove($sock);
            delete $by_socket{$number};
            close $sock;
            next;
        }
        $self->{rest} .= $data;
        while ($self->{rest} =~ s/^([^\n]*)\n//) { handle($self, $1) }
    }
    while (@timers && $timers[0][0] <= time) { (shift @timers)->[1]->() }
}
