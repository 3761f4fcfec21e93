# relay.pl RUN BOOT-SECONDS SECONDS VERBOSE NAME...
#
# Runs the machine, or the two, and stands between it and the caller: sends the
# specification (RUN/NAME/spec, see guest-agent.pl, where the frames are described
# too) and our input into it, writes what comes back to our output and error
# output, and leaves one line in RUN/result saying how it ended:
#   exit N | timeout | failed | signal | died NAME | noboot NAME | diedearly NAME
# the last two before the command had been started, so that all can be done again.
# RUN/count gets what the machine counted. SECONDS may be 0: no limit.
#
# RUN/NAME/command is QEMU's command, each word ended by a zero byte; what it says
# itself goes to RUN/NAME/qemu. The words {io}, {link} and {peer} in it become the
# numbers of descriptors: of the machine's port here, and of the network link and
# the wire between two machines. Perl and not bash, because output must stay bytes,
# in order, and complete before the machine is ended.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use Fcntl;
use POSIX ();
use Socket;

my ($run, $boot_seconds, $seconds, $verbose, @names) = @ARGV;
my @machines = map { { name => $_, dir => "$run/$_", inbox => '', outbox => '', state => 'booting' } } @names;
my $first    = $machines[0];                    # it runs the command
my ($terminal, $cooked, $going);

sub slurp {
    my ($path) = @_;
    open(my $file, '<', $path) or die "$path: $!\n";
    local $/;
    return <$file>;
}

sub leave {
    my ($path, $text) = @_;
    open(my $file, '>', $path) or die "$path: $!\n";
    print $file $text;
    close $file or die "$path: $!\n";
}

sub finish {
    my ($result) = @_;
    $SIG{$_} = 'IGNORE' for qw(TERM INT HUP ALRM WINCH);
    # Whatever it still has in flight was accounted for; there is nothing in
    # it that a slower end would save.
    my @running = map { $_->{qemu} // () } @machines;
    kill 'KILL', @running;
    waitpid $_, 0 for @running;
    $cooked->setattr(0, POSIX::TCSADRAIN()) if $cooked;
    leave("$run/result", "$result\n");
    exit 0;
}

sub pair_of_sockets {
    socketpair(my $one, my $other, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!\n";
    return ($one, $other);
}

# launch starts a machine's QEMU, which inherits the named descriptors.
sub launch {
    my ($machine, %handle) = @_;
    ($machine->{io}, $handle{io}) = pair_of_sockets();
    my @command = split /\0/, slurp("$machine->{dir}/command");
    $machine->{qemu} = fork() // die "fork: $!\n";
    if ($machine->{qemu} == 0) {
        for my $name (keys %handle) {
            fcntl($handle{$name}, F_SETFD, 0);
            my $fd = fileno $handle{$name};
            s/\{$name\}/$fd/ for @command;
        }
        open(STDIN,  '<', '/dev/null');
        open(STDOUT, '>', "$machine->{dir}/qemu") or die "$machine->{dir}/qemu: $!\n";
        open(STDERR, '>&', \*STDOUT);
        exec { $command[0] } @command or die "$command[0]: $!\n";
    }
    fcntl($machine->{io}, F_SETFL, O_NONBLOCK);
}

# all_are STATE...: all machines.
sub all_are {
    my %wanted = map { $_ => 1 } @_;
    return !grep { !$wanted{ $_->{state} } } @machines;
}

$SIG{$_} = sub { finish('signal') } for qw(TERM INT HUP);
# Whoever gives less time than a boot may take has a time-out, however far that came.
my $short = $seconds && $seconds < $boot_seconds;
$SIG{ALRM} = sub {
    my ($late) = grep { $_->{state} eq 'booting' } @machines;
    finish($late && !$short ? "noboot $late->{name}" : 'timeout');
};
$SIG{PIPE} = 'IGNORE';
alarm($short ? $seconds : $boot_seconds);
my $started = time;
# now is the wall clock with its fraction (Time::HiRes is not in perl-base).
sub now { chomp(my $time = `date +%s.%N`); return $time }
my $launched = $verbose ? now() : 0;
sub note { printf STDERR "testbed/vm: %.1f s after QEMU started: %s\n", now() - $launched, $_[0] if $verbose }

if (@machines == 2) {
    my ($link_a, $link_b) = pair_of_sockets();
    my ($peer_a, $peer_b) = pair_of_sockets();
    launch($machines[0], link => $link_a, peer => $peer_a);
    launch($machines[1], link => $link_b, peer => $peer_b);
}
else { launch($first) }

# put writes all of it, waiting as long as our reader makes us wait. A reader
# that is gone is no reason to lose the status: what it won't have is dropped.
sub put {
    my ($handle, $data) = @_;
    my $at = 0;
    while ($at < length $data) {
        my $n = syswrite($handle, $data, length($data) - $at, $at);
        if (defined $n) { $at += $n; next }
        next if $! == EINTR;
        if ($! == EAGAIN) {    # somebody made the caller's pipe non-blocking
            vec(my $write = '', fileno $handle, 1) = 1;
            select(undef, $write, undef, undef);
            next;
        }
        return;
    }
}

sub frame { my ($kind, $data) = @_; return $kind . pack('N', length $data) . $data }

# window_size is the terminal's, "ROWS COLUMNS" (TIOCGWINSZ).
sub window_size {
    my $size = pack 'S4', 24, 80, 0, 0;
    ioctl(STDIN, 0x5413, $size);
    return join ' ', (unpack 'S4', $size)[0, 1];
}

# make_raw: from now on the terminal inside does what the one outside did.
sub make_raw {
    ($cooked, my $raw) = map { my $t = POSIX::Termios->new; $t->getattr(0); $t } 1, 2;
    $raw->setiflag($raw->getiflag & ~(POSIX::BRKINT() | POSIX::ICRNL() | POSIX::INLCR() | POSIX::IGNCR() | POSIX::INPCK() | POSIX::ISTRIP() | POSIX::IXON()));
    $raw->setoflag($raw->getoflag & ~POSIX::OPOST());
    $raw->setlflag($raw->getlflag & ~(POSIX::ECHO() | POSIX::ECHONL() | POSIX::ICANON() | POSIX::ISIG() | POSIX::IEXTEN()));
    $raw->setcc(POSIX::VMIN(), 1);
    $raw->setcc(POSIX::VTIME(), 0);
    $raw->setattr(0, POSIX::TCSADRAIN());
    $SIG{WINCH} = sub { $first->{outbox} .= frame('Z', window_size()) };
}

# take answers one frame of a machine.
sub take {
    my ($machine, $kind, $data) = @_;
    if    ($kind eq 'O') { put(\*STDOUT, $data) }
    elsif ($kind eq 'E') { put(\*STDERR, $data) }
    elsif ($kind eq 'N') { leave("$run/count", "$data\n") }
    elsif ($kind eq 'X') { finish("exit $data") }
    elsif ($kind eq 'F') { put(\*STDERR, $data . "\n"); finish('failed') }
    elsif ($kind eq 'H') {
        note("user space is up ($machine->{name})");
        $machine->{state} = 'up';
        # The machine's clock was set from one that counts whole seconds.
        my $spec = slurp("$machine->{dir}/spec") . "time\0" . now() . "\0";
        if ($spec =~ /(?:^|\0)tty\0\0/) { $terminal = 1; $spec .= "tty\0" . window_size() . "\0" }
        $machine->{outbox} .= frame('R', $spec);
        return if !all_are('up', 'prepared');
        my $left = $seconds - (time - $started);
        finish('timeout') if $seconds && $left <= 0;
        alarm($seconds ? $left : 0);
    }
    elsif ($kind eq 'P') {
        $machine->{state} = 'prepared';
        return if !all_are('prepared');
        note('the command starts');
        $going = 1;
        make_raw() if $terminal;
        $_->{outbox} .= frame('C', '') for @machines;
    }
}

my $input = defined fileno(STDIN);
my $input_told = 0;
while (1) {
    # A caller without any input has an input that is at its end.
    if ($going && !$input && !$input_told) { $first->{outbox} .= frame('I', ''); $input_told = 1 }
    my ($read, $write) = ('', '');
    for my $machine (@machines) {
        vec($read,  fileno $machine->{io}, 1) = 1;
        vec($write, fileno $machine->{io}, 1) = 1 if length $machine->{outbox};
    }
    vec($read, fileno STDIN, 1) = 1 if $going && $input && length $first->{outbox} < 1 << 20;
    next if select($read, $write, undef, undef) <= 0;

    if ($going && $input && vec($read, fileno STDIN, 1)) {
        my $got = sysread(STDIN, my $data, 1 << 16);
        # An error (a closed terminal, a directory) is an end too.
        if ($got) { $first->{outbox} .= frame('I', $data) }
        elsif (defined $got || ($! != EINTR && $! != EAGAIN)) { $input = 0 }
    }
    for my $machine (@machines) {
        my $fd = fileno $machine->{io};
        if (vec($write, $fd, 1)) {
            my $wrote = syswrite($machine->{io}, $machine->{outbox});
            substr($machine->{outbox}, 0, $wrote) = '' if defined $wrote;
        }
        next if !vec($read, $fd, 1);
        my $got = sysread($machine->{io}, $machine->{inbox}, 1 << 18, length $machine->{inbox});
        next if !defined $got && ($! == EAGAIN || $! == EINTR);
        finish(($going ? 'died ' : 'diedearly ') . $machine->{name}) if !$got;
        while (length $machine->{inbox} >= 5) {
            my ($kind, $length) = unpack('aN', $machine->{inbox});
            last if length $machine->{inbox} < 5 + $length;
            my $data = substr($machine->{inbox}, 5, $length);
            substr($machine->{inbox}, 0, 5 + $length) = '';
            take($machine, $kind, $data);
        }
    }
}
