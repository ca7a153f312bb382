#!/usr/bin/perl
# A client of the bus in Perl: ZMQ::FFI and Data::MessagePack, from docs/protocol/sb1.md alone.
#
#   apt-get install libzmq-ffi-perl libdata-messagepack-perl
#   perl client.pl ENDPOINT BROKER_KEY KEY_FILE NAME PEER...
#
# It says HELLO, pings, tells its PEERs hello and hears theirs, serves app.echo.NAME and asks theirs, stores
# an order in the durable topic "orders" and consumes those of all by its consumer NAME, which an operator
# has made. The key file is JSON with "public" and "secret"; the role app is enough.
use strict;
use warnings;
use Data::MessagePack;
use JSON::PP;
use ZMQ::FFI qw(:all);

use constant {
    HELLO => 0x01, PING => 0x02, BYE => 0x03, PUBLISH => 0x10, SUBSCRIBE => 0x12, REQUEST => 0x14, REPLY => 0x15,
    SERVE => 0x16, PULL => 0x20, SETTLE => 0x21,
    WELCOME => 0x81, PONG => 0x82, GOODBYE => 0x83, OK => 0x84, ERROR => 0x85,
    DELIVERY => 0x90, RECORD => 0x92, REQUEST_DELIVERY => 0x94, REPLY_DELIVERY => 0x95,
};

my ($endpoint, $broker_key, $key_file, $name, @peers) = @ARGV;
die "usage: client.pl ENDPOINT BROKER_KEY KEY_FILE NAME PEER...\n" unless defined $name;
$| = 1;

my $pack = Data::MessagePack->new->utf8;    # texts are str, not bin
my ($welcome, $pongs, $served, $last_id) = (undef, 0, 0, 0);
my (%heard, %answers, @records);
my $said = my $listened = time;

# One socket is one connection is one session.
my $context = ZMQ::FFI->new;
my $bus = $context->socket(ZMQ_DEALER);
{
    open my $file, '<', $key_file or die "error: $key_file: $!\n";
    my $pair = decode_json(do { local $/; <$file> });
    open my $random, '<:raw', '/dev/urandom' or die "error: /dev/urandom: $!\n";
    read($random, my $id, 16) == 16 or die "error: /dev/urandom: too short\n";
    $bus->set(ZMQ_ROUTING_ID, 'binary', "\x01$id");    # never shown to anybody, never used twice
    $bus->set(ZMQ_CURVE_SERVERKEY, 'string', $broker_key);
    $bus->set(ZMQ_CURVE_PUBLICKEY, 'string', $pair->{public});
    $bus->set(ZMQ_CURVE_SECRETKEY, 'string', $pair->{secret});
    $bus->set(ZMQ_LINGER, 'int', 0);
    $bus->set(ZMQ_RECONNECT_IVL, 'int', -1);
    $bus->set(ZMQ_HEARTBEAT_IVL, 'int', 10_000);
    $bus->set(ZMQ_HEARTBEAT_TIMEOUT, 'int', 15_000);
    $bus->set(ZMQ_HEARTBEAT_TTL, 'int', 30_000);
    $bus->set(ZMQ_RCVTIMEO, 'int', 100);
    $bus->set(ZMQ_SNDTIMEO, 'int', 5_000);    # a lost connection takes nothing
    $bus->connect($endpoint);
}

sub say_ {
    my ($command, $fields, $body) = @_;
    my $head = "SB\x01" . chr($command) . $pack->pack($fields);
    $bus->send_multipart([$head, defined $body ? $body : ()]);
    $said = time;
}

# Say with an id; the fields and the body of the answer.
sub ask {
    my ($command, $fields, $body) = @_;
    my $id = ++$last_id;
    say_($command, { %$fields, id => $id }, $body);
    until_(sub { $answers{$id} }, 'no answer', 30);
    return @{ delete $answers{$id} };
}

sub until_ {
    my ($condition, $otherwise, $seconds) = @_;
    my $end = time + $seconds;
    until ($condition->()) {
        die "error: $otherwise\n" if time > $end;
        turn();
    }
}

# Wait a little, take in one message, keep the session alive.
sub turn {
    say_(PING, {}) if $welcome && time - $said >= 5;
    die "error: the broker is silent\n" if time - $listened > 30;
    $bus->die_on_error(0);
    my @frames = $bus->recv_multipart;
    $bus->die_on_error(1);
    return if $bus->has_error;
    $listened = time;
    my ($head, $body) = @frames;
    take(ord(substr $head, 3, 1), $pack->unpack(substr $head, 4), $body // '');
}

sub take {
    my ($command, $fields, $body) = @_;
    if    ($command == WELCOME)  { $welcome = $fields }
    elsif ($command == PONG)     { $pongs++ }
    elsif ($command == OK)       { $answers{ $fields->{ref} } = [$fields, $body] }
    elsif ($command == RECORD)   { push @records, [$fields->{seq}, $body] }
    elsif ($command == DELIVERY) {
        hear($fields->{s}, $_) for ($fields->{n} // 1) == 1 ? $body : @{ $pack->unpack($body) };
    }
    elsif ($command == REPLY_DELIVERY) {
        die "error: $fields->{num} $fields->{err}: $fields->{msg}\n" if $fields->{err};
        $answers{ $fields->{ref} } = [$fields, $body];
    }
    elsif ($command == REQUEST_DELIVERY) {
        $served++;
        say_(REPLY, { r => $fields->{r} }, "$name heard $body");
    }
    elsif ($command == ERROR || $command == GOODBYE) {
        die join(' ', 'error:', $fields->{num}, $fields->{err} // 'goodbye', $fields->{msg} // $fields->{reason} // ''), "\n";
    }
}

sub greet { say_(PUBLISH, { s => "app.hello.$name" }, "hello from $name") }

# A delivery on app.hello.PEER: who is new here is greeted again, because it has not heard us.
sub hear {
    my ($subject, $body) = @_;
    my ($peer) = $subject =~ /([^.]+)$/;
    return if $heard{$peer} || !grep { $_ eq $peer } @peers;
    $heard{$peer} = 1;
    print "heard $body\n";
    greet();
}

say_(HELLO, { name => $name, lang => 'perl', caps => ['durable'] });
until_(sub { $welcome }, "no broker answers at $endpoint, or it does not allow this key", 5);
print "welcome $welcome->{key}\n";
say_(PING, { t => 4711 });
until_(sub { $pongs }, 'no PONG', 10);
print "pong\n";

ask(SERVE, { s => "app.echo.$name" });
ask(SUBSCRIBE, { sid => 1, s => 'app.hello.*' });
greet();
until_(sub { keys %heard == @peers }, 'not all peers are there', 30);

for my $peer (@peers) {
    my (undef, $body) = ask(REQUEST, { s => "app.echo.$peer", dl => 10_000 }, $name);
    print "answer $body\n";
}

# OK comes when the order is on disk; said again with the same mid it would be stored once.
my ($stored) = ask(PUBLISH, { s => "app.order.$name", mid => $name }, "order of $name");
print "stored $stored->{seq}\n";
for (my $orders = 0; $orders < @peers + 1;) {
    ask(PULL, { topic => 'orders', consumer => $name, n => 16, wait => 5_000 });
    for my $record (splice @records) {
        my ($seq, $body) = @$record;
        print "order $seq: $body\n";
        ask(SETTLE, { topic => 'orders', consumer => $name, seqs => [0 + $seq] });    # a number, though it was printed
        $orders++;
    }
}

until_(sub { $served == @peers }, 'not all peers asked', 30);
print "served $served\n";
say_(BYE, { reason => 'done' });
select undef, undef, undef, 0.1;    # LINGER is 0: give it time to leave
