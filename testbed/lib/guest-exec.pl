# guest-exec.pl COMMAND [ARG]... runs the command on the other machine of
# testbed/vm --two: with our arguments, environment, directory and umask there,
# our input, output and error output, and ends as it ended. Signals that end a
# program are passed on. See guest-peer.pl for the frames.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use POSIX ();
use Socket;

my $path = '/run/testbed/peer';
my $peer;
socket($peer, AF_UNIX, SOCK_STREAM, 0) && connect($peer, pack_sockaddr_un($path))
    or die "testbed/softroce: the other machine can't be reached: $path: $!\n";

sub write_all {
    my ($handle, $data) = @_;
    my $at = 0;
    while ($at < length $data) {
        my $n = syswrite($handle, $data, length($data) - $at, $at);
        if (defined $n) { $at += $n; next }
        next if $! == EINTR;
        if ($! == EAGAIN) {
            vec(my $write = '', fileno $handle, 1) = 1;
            select(undef, $write, undef, undef);
            next;
        }
        return 0;
    }
    return 1;
}

sub send_frame { my ($kind, $data) = @_; write_all($peer, $kind . pack('N', length $data) . $data) }

# quit ends us as the command ended: by the signal, or with the status.
sub quit {
    my ($how, $n) = split ' ', $_[0];
    POSIX::_exit($n) if $how eq 'exit';
    POSIX::sigaction($n, POSIX::SigAction->new('DEFAULT')) if $n != 9;
    kill $n, $$;
    POSIX::_exit(128 + $n);
}

$SIG{PIPE} = 'IGNORE';
for my $name (qw(TERM INT HUP QUIT USR1 USR2 ALRM)) {
    # What our caller ignores, the command is to ignore too.
    next if ($SIG{$name} // '') eq 'IGNORE';
    $SIG{$name} = sub { send_frame('S', $name) };
}
my @spec = (cwd => POSIX::getcwd() // '/', umask => sprintf('%o', umask));
push @spec, env => "$_=$ENV{$_}" for sort keys %ENV;
push @spec, arg => $_ for @ARGV;
send_frame('R', join '', map { "$_\0" } @spec);

my ($inbox, $room, $input, $status, $lingering) = ('', 1 << 18, defined fileno(STDIN), undef, 0);
send_frame('I', '') if !$input;
my %stream = (O => \*STDOUT, E => \*STDERR);
while (1) {
    my $read = '';
    vec($read, fileno $peer, 1) = 1;
    vec($read, fileno STDIN, 1) = 1 if $input && $room > 0;
    next if select($read, undef, undef, undef) <= 0;
    if ($input && vec($read, fileno STDIN, 1)) {
        my $got = sysread(STDIN, my $data, $room < 1 << 16 ? $room : 1 << 16);
        if ($got) { send_frame('I', $data); $room -= $got }
        elsif (defined $got || ($! != EINTR && $! != EAGAIN)) { send_frame('I', ''); $input = 0 }
    }
    next if !vec($read, fileno $peer, 1);
    my $got = sysread($peer, $inbox, 1 << 18, length $inbox);
    next if !defined $got && $! == EINTR;
    die "testbed/softroce: the other machine is gone\n" if !$got;
    my $ended = 0;
    while (length $inbox >= 5) {
        my ($kind, $length) = unpack 'aN', $inbox;
        last if length $inbox < 5 + $length;
        my $data = substr($inbox, 5, $length);
        substr($inbox, 0, 5 + $length) = '';
        if ($stream{$kind} && !$length) { close $stream{$kind} }
        elsif (my $handle = $stream{$kind}) {
            # A reader that is gone: the command learns it as it would have.
            write_all($handle, $data) or send_frame('S', 'PIPE');
            send_frame('W', pack('aN', $kind, $length));
        }
        elsif ($kind eq 'W') { $room += unpack 'xN', $data }
        elsif ($kind eq 'X') { $status = $data }
        elsif ($kind eq 'D') { $ended = 1 }
    }
    quit($status) if $ended;
    # It has ended, but left something running that holds its streams: that is
    # no reason for our caller to wait.
    if (defined $status && !$lingering) {
        quit($status) if fork() // 1;
        ($lingering, $input) = (1, 0);
    }
}
