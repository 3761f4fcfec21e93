# The wire between the two machines of testbed/vm --two, over which "softroce
# exec" reaches the other one (guest-exec.pl). It is a virtio port of each,
# joined outside: no fault of the network cuts it. Many channels share it; each
# has windows of its own, so that a reader who stalls stalls himself alone.
#
# A frame on it is a letter, a channel, a length (32 bits each) and the bytes:
#   to the command     R specification  I input  S signal  K its caller is gone
#   from the command   O output  E error output ("" is its end)  X status
#                      D both have ended
#   both ways          W room for so much more of a stream
# A client's socket has the same frames without the channel.
package Peer;
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use Fcntl;
use Socket;

use constant { ANSWER => 1 << 31, WINDOW => 1 << 18, BACKLOG => 1 << 20 };

# new(SOCKET) opens the port and listens for this machine's clients at SOCKET.
sub new {
    my ($class, $path) = @_;
    my $device;
    for my $name (glob '/sys/class/virtio-ports/*/name') {
        open(my $file, '<', $name) or next;
        $device = "/dev/$1" if <$file> eq "testbed-peer\n" && $name =~ m{([^/]+)/name$};
    }
    die "no virtio port testbed-peer\n" if !$device;
    sysopen(my $port, $device, O_RDWR | O_NONBLOCK) or die "$device: $!\n";
    my $listener;
    socket($listener, AF_UNIX, SOCK_STREAM, 0)
        && fcntl($listener, F_SETFL, O_NONBLOCK)
        && bind($listener, pack_sockaddr_un($path))
        && listen($listener, 64)
        or die "$path: $!\n";
    return bless {
        port => $port, inbox => '', outbox => '', listener => $listener,
        clients => {}, jobs => {}, last => 0,
    }, $class;
}

sub put {
    my ($self, $kind, $channel, $data) = @_;
    $self->{outbox} .= $kind . pack('NN', $channel, length $data) . $data;
}

# ended(PID, WAIT-STATUS): one of our children.
sub ended {
    my ($self, $pid, $status) = @_;
    $_->{pid} == $pid and $_->ended($status) for values %{ $self->{jobs} };
}

sub want {
    my ($self, $read, $write) = @_;
    # Commands tell of their end here: with the backlog's bound, as all they send.
    if (length $self->{outbox} < BACKLOG) {
        while (my ($channel, $job) = each %{ $self->{jobs} }) {
            if (!$job->{told} && $job->drained()) {
                $job->{told} = 1;
                $self->put('X', $channel | ANSWER, $job->{status});
            }
            if ($job->{told} && $job->over()) {
                $self->put('D', $channel | ANSWER, '');
                delete $self->{jobs}{$channel};
                next;
            }
            $job->want($read, $write);
        }
        vec($$read, fileno $_->{socket}, 1) = 1 for values %{ $self->{clients} };
    }
    for my $client (values %{ $self->{clients} }) {
        vec($$write, fileno $client->{socket}, 1) = 1 if length $client->{outbox};
    }
    vec($$read, fileno $self->{listener}, 1) = 1;
    return if !$self->{port};
    vec($$read, fileno $self->{port}, 1) = 1;
    vec($$write, fileno $self->{port}, 1) = 1 if length $self->{outbox};
}

sub pump {
    my ($self, $read, $write) = @_;
    my $port = $self->{port};
    if ($port && vec($write, fileno $port, 1) && length $self->{outbox}) {
        my $wrote = syswrite($port, $self->{outbox}, 1 << 15);
        substr($self->{outbox}, 0, $wrote) = '' if defined $wrote;
    }
    if ($port && vec($read, fileno $port, 1)) {
        my $got = sysread($port, $self->{inbox}, 1 << 18, length $self->{inbox});
        # The other machine is gone: the host ends us presently.
        if (defined $got ? !$got : ($! != EAGAIN && $! != EINTR)) { undef $self->{port} }
        $self->take();
    }
    $_->pump($read, $write) for values %{ $self->{jobs} };
    if (vec($read, fileno $self->{listener}, 1) && accept(my $socket, $self->{listener})) {
        fcntl($socket, F_SETFL, O_NONBLOCK);
        my $channel = ++$self->{last};
        $self->{clients}{$channel} = { socket => $socket, inbox => '', outbox => '', done => 0 };
    }
    for my $channel (keys %{ $self->{clients} }) {
        my $client = $self->{clients}{$channel};
        my $fd     = fileno $client->{socket};
        $self->client_reads($client) if vec($write, $fd, 1);
        $self->client_writes($channel, $client) if vec($read, $fd, 1);
        delete $self->{clients}{$channel} if $client->{done} && !length $client->{outbox};
    }
}

sub client_reads {
    my ($self, $client) = @_;
    my $wrote = syswrite($client->{socket}, $client->{outbox});
    if (defined $wrote) { substr($client->{outbox}, 0, $wrote) = '' }
    elsif ($! != EAGAIN && $! != EINTR) { $client->{outbox} = '' }
}

sub client_writes {
    my ($self, $channel, $client) = @_;
    my $got = sysread($client->{socket}, $client->{inbox}, 1 << 16, length $client->{inbox});
    return if !defined $got && ($! == EAGAIN || $! == EINTR);
    while (length $client->{inbox} >= 5) {
        my ($kind, $length) = unpack 'aN', $client->{inbox};
        last if length $client->{inbox} < 5 + $length;
        $self->put($kind, $channel, substr($client->{inbox}, 5, $length));
        substr($client->{inbox}, 0, 5 + $length) = '';
    }
    return if $got;
    $self->put('K', $channel, '') if !$client->{done};
    ($client->{done}, $client->{outbox}) = (1, '');
}

# take hands out what the other machine sent.
sub take {
    my ($self) = @_;
    while (length $self->{inbox} >= 9) {
        my ($kind, $channel, $length) = unpack 'aNN', $self->{inbox};
        last if length $self->{inbox} < 9 + $length;
        my $data = substr($self->{inbox}, 9, $length);
        substr($self->{inbox}, 0, 9 + $length) = '';
        if ($channel & ANSWER) {
            my $client = $self->{clients}{ $channel & ~ANSWER } or next;
            $client->{outbox} .= $kind . pack('N', $length) . $data;
            $client->{done} = 1 if $kind eq 'D';
        }
        elsif ($kind eq 'R') {
            my $send = sub { $self->put($_[0], $channel | ANSWER, $_[1]) };
            $self->{jobs}{$channel} = Job->start(Job::specification($data), $send, WINDOW);
        }
        elsif (my $job = $self->{jobs}{$channel}) {
            $job->frame($kind, $data) if $kind ne 'K';
            next if $kind ne 'K';
            $job->signal('KILL');
            delete $self->{jobs}{$channel};
        }
    }
}

1;
