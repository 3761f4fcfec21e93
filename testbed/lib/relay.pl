# relay.pl RUN BOOT-SECONDS SECONDS VERBOSE -- QEMU-COMMAND...
#
# Runs the machine and stands between it and the caller: sends the command
# (RUN/spec, see guest-agent.pl, where the frames are described too) and our
# input into it, writes what comes back to our output and error output, and
# leaves one line in RUN/result saying how it ended:
#   exit N | timeout | failed | signal | died | noboot | diedearly
# the last two before the command had been started, so that all can be done again.
# What QEMU itself says goes to RUN/qemu. The words "{io}" in QEMU's command become the number of the descriptor that
# the machine's port is joined to. Perl and not bash, because output must stay
# bytes, in order, and complete before the machine is ended.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use Fcntl;
use Socket;

my ($run, $boot_seconds, $seconds, $verbose, undef, @qemu) = @ARGV;
my ($spec_path, $result_path) = ("$run/spec", "$run/result");
my $qemu;

sub finish {
    my ($result) = @_;
    $SIG{$_} = 'IGNORE' for qw(TERM INT HUP ALRM);
    # Whatever it still has in flight was accounted for; there is nothing in
    # it that a slower end would save.
    if ($qemu) { kill 'KILL', $qemu; waitpid $qemu, 0 }
    open(my $file, '>', $result_path) or die "$result_path: $!\n";
    print $file "$result\n";
    close $file or die "$result_path: $!\n";
    exit 0;
}

socketpair(my $io, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!\n";
$qemu = fork() // die "fork: $!\n";
if ($qemu == 0) {
    fcntl($theirs, F_SETFD, 0);
    my $fd = fileno $theirs;
    s/\{io\}/$fd/ for @qemu;
    close $io;
    open(STDIN, '<', '/dev/null');
    open(STDOUT, '>', "$run/qemu") or die "$run/qemu: $!\n";
    open(STDERR, '>&', \*STDOUT);
    exec { $qemu[0] } @qemu or die "$qemu[0]: $!\n";
}
close $theirs;

my ($up, $going) = (0, 0);
$SIG{$_} = sub { finish('signal') } for qw(TERM INT HUP);
$SIG{ALRM} = sub { finish($up ? 'timeout' : 'noboot') };
$SIG{PIPE} = 'IGNORE';
alarm($boot_seconds < $seconds ? $boot_seconds : $seconds);
my $started = time;

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

# now is the wall clock with its fraction (Time::HiRes is not in perl-base).
sub now { chomp(my $time = `date +%s.%N`); return $time }

my $launched = $verbose ? now() : 0;
sub note { printf STDERR "testbed/vm: %.1f s after QEMU started: %s\n", now() - $launched, $_[0] if $verbose }

sub frame { my ($kind, $data) = @_; return $kind . pack('N', length $data) . $data }

fcntl($io, F_SETFL, O_NONBLOCK);
my ($inbox, $outbox) = ('', '');
my $input = defined fileno(STDIN);

while (1) {
    my ($read, $write) = ('', '');
    vec($read, fileno $io, 1) = 1;
    vec($read, fileno STDIN, 1) = 1 if $up && $input && length $outbox < 1 << 20;
    vec($write, fileno $io, 1) = 1 if length $outbox;
    my $n = select($read, $write, undef, undef);
    next if $n <= 0;

    if (vec($write, fileno $io, 1)) {
        my $wrote = syswrite($io, $outbox);
        substr($outbox, 0, $wrote) = '' if defined $wrote;
    }
    if ($up && $input && vec($read, fileno STDIN, 1)) {
        my $got = sysread(STDIN, my $data, 1 << 16);
        # An error (a closed terminal, a directory) is an end too.
        if ($got) { $outbox .= frame('I', $data) }
        elsif (defined $got || ($! != EINTR && $! != EAGAIN)) { $outbox .= frame('I', ''); $input = 0 }
    }
    next if !vec($read, fileno $io, 1);
    my $got = sysread($io, $inbox, 1 << 18, length $inbox);
    next if !defined $got && ($! == EAGAIN || $! == EINTR);
    finish($going ? 'died' : 'diedearly') if !$got;
    while (length $inbox >= 5) {
        my ($kind, $length) = unpack('aN', $inbox);
        last if length $inbox < 5 + $length;
        my $data = substr($inbox, 5, $length);
        substr($inbox, 0, 5 + $length) = '';
        if    ($kind eq 'O') { put(\*STDOUT, $data) }
        elsif ($kind eq 'E') { put(\*STDERR, $data) }
        elsif ($kind eq 'X') { finish("exit $data") }
        elsif ($kind eq 'F') { put(\*STDERR, $data . "\n"); finish('failed') }
        elsif ($kind eq 'G') { $going = 1; note('the command starts') }
        elsif ($kind eq 'H') {
            $up = 1;
            note('user space is up');
            my $left = $seconds - (time - $started);
            finish('timeout') if $left <= 0;
            alarm $left;
            open(my $file, '<', $spec_path) or die "$spec_path: $!\n";
            # The machine's clock was set from one that counts whole seconds.
            $outbox .= frame('R', do { local $/; <$file> } . "time\0" . now() . "\0");
            # A caller without any input has an input that is at its end.
            $outbox .= frame('I', '') if !$input;
        }
    }
}
