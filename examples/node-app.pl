#!/usr/bin/perl
# An app for a node of the mesh in nothing but Perl: what docs/protocol/node-app.md says, in 150 lines.
#
#   node-app.pl /run/…/node-beta.sock serve 7      answers on port 7 with what it is sent, in capitals
#   node-app.pl /run/…/node-alpha.sock ask beta 7 hello
#
# `serve` takes streams and datagrams; `ask` opens a stream with the words in its first data, prints what
# comes back, then asks the same by datagram. Exit codes: 0 done, 1 the node or the far end said no, 2 usage.
use strict;
use warnings;
use POSIX ();
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC SOL_SOCKET pack_sockaddr_un);

# The number of the system call sendmsg, since Perl has nothing of its own that passes descriptors: Linux has one for
# each kind of machine, and 211 for all that came since 2012.
my %SENDMSG = (x86_64 => 46, aarch64 => 211, riscv64 => 211, loongarch64 => 211);
my $SENDMSG = $SENDMSG{ (POSIX::uname())[4] } // die "the number of sendmsg on this machine is not known here: add it\n";
my $SCM_RIGHTS = 1;

# --- MessagePack, as much of it as the protocol has: maps with text keys, numbers, text, bytes, nil, floats

sub text   { my ($t) = @_; utf8::encode($t); return (length $t < 32 ? pack('C', 0xa0 | length $t) : pack('CC', 0xd9, length $t)) . $t }
sub bytes  { my ($b) = @_; return pack('Cn', 0xc5, length $b) . $b }
sub number { my ($n) = @_; return pack('CN', 0xce, $n) }

sub message {           # key, encoded value, …
    my @pairs = @_;
    my $body = pack('C', 0x80 | @pairs / 2);
    while (my ($key, $value) = splice @pairs, 0, 2) { $body .= text($key) . $value }
    return pack('N', length $body) . $body;
}

sub decode {            # the value at the start of $$in, which is taken off
    my ($in) = @_;
    my $take = sub { return unpack $_[1], substr $$in, 0, $_[0], '' };
    my $type = $take->(1, 'C');
    return $type if $type < 0x80;
    return { map { decode($in), decode($in) } 1 .. ($type & 15) } if $type < 0x90;
    return [ map { decode($in) } 1 .. ($type & 15) ] if $type < 0xa0;
    return substr $$in, 0, $type & 31, '' if $type < 0xc0;
    return undef if $type == 0xc0;
    return $type == 0xc3 if $type == 0xc2 || $type == 0xc3;
    my %sized = (0xc4 => [1, 'C'], 0xc5 => [2, 'n'], 0xc6 => [4, 'N'], 0xd9 => [1, 'C'], 0xda => [2, 'n'], 0xdb => [4, 'N']);
    return substr $$in, 0, $take->(@{ $sized{$type} }), '' if $sized{$type};
    my %plain = (0xcb => [8, 'd>'], 0xcc => [1, 'C'], 0xcd => [2, 'n'], 0xce => [4, 'N'], 0xcf => [8, 'Q>']);
    return $take->(@{ $plain{$type} }) if $plain{$type};
    die sprintf "the node sent a type of MessagePack that this example does not know: 0x%02x\n", $type;
}

# --- The connection

my $node;

sub say_to_node { my $out = message(@_); syswrite($node, $out) == length $out or die "the node does not read\n" }

sub say_with_descriptor {       # struct msghdr with one iovec and one control message, by hand
    my ($handle, @pairs) = @_;
    my $out = message(@pairs);
    my $iovec = pack 'P Q', $out, length $out;
    my $control = pack 'Q l l l x4', 20, SOL_SOCKET, $SCM_RIGHTS, fileno $handle;
    my $header = pack 'Q L x4 P Q P Q l x4', 0, 0, $iovec, 1, $control, length $control, 0;
    syscall($SENDMSG, fileno $node, $header, 0) == length $out or die "cannot hand a descriptor over: $!\n";
    close $handle;              # it belongs to the node from now on
}

sub exactly {
    my ($size) = @_;
    my $data = '';
    while (length $data < $size) {
        sysread $node, $data, $size - length $data, length $data or die "the node went away\n";
    }
    return $data;
}

sub hear {                      # the next message, of one of these types if there are any
    my %wanted = map { $_ => 1 } @_;
    while (1) {
        my $body = exactly(unpack 'N', exactly(4));
        my $message = decode(\$body);
        return $message if !%wanted || $wanted{ $message->{type} };
        die "failed with code $message->{code}: $message->{message}\n" if $message->{type} eq 'failed';
    }
}

sub pair {
    socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "no socket pair: $!\n";
    return $ours, $theirs;
}

# --- What it does

sub serve {
    my ($port) = @_;
    say_to_node(type => text('listen'), id => number(1), port => number($port));
    hear('done');
    say_to_node(type => text('bind'), id => number(2), port => number($port));
    hear('bound');
    local $| = 1;
    print "ready\n";
    while (1) {
        my $message = hear('incoming', 'datagram');
        if ($message->{type} eq 'datagram') {
            say_to_node(
                type => text('send'), port => number($port), target => text($message->{origin}),
                to => number($message->{source}), data => bytes(uc $message->{data}));
            next;
        }
        my ($ours, $theirs) = pair();
        say_with_descriptor($theirs, type => text('accept'), stream => number($message->{stream}));
        my $asked = '';
        while (sysread $ours, $asked, 65536, length $asked) { }    # one at a time: it is an example
        syswrite $ours, uc $asked;
        close $ours;
    }
}

sub ask {
    my ($target, $port, $words) = @_;
    say_to_node(
        type => text('open'), id => number(1), target => text($target), port => number($port),
        early => bytes($words));
    my $opened = hear('opened');
    my ($ours, $theirs) = pair();
    say_with_descriptor($theirs, type => text('attach'), stream => number($opened->{stream}));
    shutdown $ours, 1;
    my $answer = '';
    while (sysread $ours, $answer, 65536, length $answer) { }
    my $closed = hear('closed');
    die "the stream was cut with code $closed->{code}\n" if $closed->{code};
    print "stream: $answer\n";

    say_to_node(type => text('bind'), id => number(2), port => number(0));
    my $bound = hear('bound');
    say_to_node(
        type => text('send'), port => number($bound->{port}), target => text($target),
        to => number($port), data => bytes($words));
    local $SIG{ALRM} = sub { die "the datagram or its answer was lost\n" };
    alarm 10;
    print "datagram: ", hear('datagram')->{data}, "\n";
}

my ($path, $what, @rest) = @ARGV;
my %does = (serve => [1, \&serve], ask => [3, \&ask]);
if (!$what || !$does{$what} || @rest != $does{$what}[0]) {
    print STDERR "usage: $0 SOCKET serve PORT | $0 SOCKET ask NODE PORT WORDS\n";
    exit 2;
}
socket $node, AF_UNIX, SOCK_STREAM, 0 or die "no socket: $!\n";
connect $node, pack_sockaddr_un($path) or do { print STDERR "no node answers at $path: $!\n"; exit 1 };
eval {
    say_to_node(type => text('hello'), version => number(1), app => text('perl'));
    hear('welcome');
    $does{$what}[1]->(@rest);
    1;
} or do { print STDERR "$0: $@"; exit 1 };
