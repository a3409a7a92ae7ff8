# A chat in JSON objects, one on a line: a loop around select, PORT.
use strict;
use warnings;
use IO::Socket::INET;
use IO::Select;

$SIG{PIPE} = 'IGNORE';
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 50, ReuseAddr => 1)
    or die "cannot listen: $!";
my $select = IO::Select->new($listener);
my (%unread, %name_of, %people);

sub say_to { my ($socket, $line) = @_; syswrite($socket, "$line\n") }

sub leave {
    my ($socket) = @_;
    my $name = delete $name_of{$socket};
    $select->remove($socket);
    delete $unread{$socket};
    close $socket;
    return unless defined $name;
    delete $people{$name};
    say_to($people{$_}, qq({"event":"left","who":"$name"})) for keys %people;
}

sub hello {
    my ($socket, $name) = @_;
    return say_to($socket, '{"error":"twice"}') if defined $name_of{$socket};
    return say_to($socket, '{"error":"taken"}') if $people{$name};
    $name_of{$socket} = $name;
    $people{$name} = $socket;
    say_to($socket, '{"ok":true}');
}

sub obey {
    my ($socket, $line) = @_;
    return hello($socket, $1) if $line =~ /^\{"do":"hello","name":"(.*?)"\}$/;
    return say_to($socket, '{"pong":null}') if $line eq '{"do":"ping"}';
    if ($line eq '{"do":"bye"}') { say_to($socket, '{"bye":true}'); return leave($socket) }
    my $name = $name_of{$socket};
    return say_to($socket, '{"error":"hello first"}') unless defined $name;
    if ($line =~ /^\{"do":"say","text":"(.*)"\}$/) {
        say_to($people{$_}, qq({"event":"said","who":"$name","text":"$1"})) for grep { $_ ne $name } keys %people;
    } elsif ($line =~ /^\{"do":"tell","to":"(.*?)","text":"(.*)"\}$/) {
        if ($people{$1}) { say_to($people{$1}, qq({"event":"told","who":"$name","text":"$2"})) }
        else { say_to($socket, '{"error":"nobody"}') }
    } elsif ($line eq '{"do":"list"}') {
        say_to($socket, qq({"user":"$_"})) for sort keys %people;
    } else {
        say_to($socket, '{"error":"what"}');
    }
}

while (1) {
    for my $socket ($select->can_read) {
        if ($socket == $listener) {
            my $client = $listener->accept or next;
            $select->add($client);
            $unread{$client} = '';
            next;
        }
        my $size = sysread($socket, my $data, 4096);
        if (!$size) { leave($socket); next }
        $unread{$socket} .= $data;
        while (defined $unread{$socket} && $unread{$socket} =~ s/^(.*?)\r?\n//) { obey($socket, $1) }
    }
}
