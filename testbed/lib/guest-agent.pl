# Process 1 of the virtual machine once the root is there: runs the command
# that relay.pl on the host sends over a virtio port, and sends back its output
# and its status. Perl, because every Debian has it (perl-base is essential)
# and because a shell can't keep bytes, descriptors and statuses apart exactly.
#
# A frame is a letter, a length (32 bits, network order) and that many bytes:
#   host to guest  R command (see run)   I input ("" is its end)
#   guest to host  H "I am up"   G "the command starts"   O output
#                  E error output   X status   F failure
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use Fcntl;
use POSIX qw(:sys_wait_h);

my $port_path = shift @ARGV;
sysopen(my $port, $port_path, O_RDWR) or die "open $port_path: $!\n";

# send_frame blocks while the host is slow to read: that is how a stalled
# reader stalls the command, and nothing is lost.
sub send_frame {
    my ($kind, $data) = @_;
    my $frame = $kind . pack('N', length $data) . $data;
    my $at = 0;
    while ($at < length $frame) {
        my $n = syswrite($port, $frame, length($frame) - $at, $at);
        if (!defined $n) {
            next if $! == EINTR;
            die "write $port_path: $!\n";
        }
        $at += $n;
    }
}

# idle waits for the host to end the machine. Process 1 must not end: that is
# a panic.
sub idle { sleep 3600 while 1 }

sub fail {
    send_frame('F', join '', @_);
    idle();
}

my $inbox = '';

# next_frame takes a whole frame out of the inbox, if there is one.
sub next_frame {
    return if length $inbox < 5;
    my ($kind, $length) = unpack('aN', $inbox);
    return if length $inbox < 5 + $length;
    my $data = substr($inbox, 5, $length);
    substr($inbox, 0, 5 + $length) = '';
    return ($kind, $data);
}

sub read_port {
    my $n = sysread($port, $inbox, 1 << 18, length $inbox);
    die "read $port_path: $!\n" if !defined $n && $! != EINTR && $! != EAGAIN;
    die "the host is gone\n" if defined $n && $n == 0;
}

# quiet runs a command of the machine's own preparation; what it printed is
# shown only when it fails.
sub quiet {
    my @command = @_;
    my $pid = open(my $output, '-|') // fail("fork: $!");
    if ($pid == 0) {
        open(STDERR, '>&', \*STDOUT);
        exec { $command[0] } @command or print "$command[0]: $!\n";
        POSIX::_exit(127);
    }
    my $text = do { local $/; <$output> } // '';
    close $output;
    fail("@command: status " . ($? >> 8 || $?) . "\n$text") if $?;
}

# prepare does what must be there before the command: the caller's --out
# directories and the kernel's modules under their own paths, then --pair's
# command.
sub prepare {
    my ($spec) = @_;
    quiet('date', '--set', "\@$_") for @{ $spec->{time} };
    my $i = 0;
    for my $dir (@{ $spec->{out} }) {
        my $mounted = '/run/testbed/out/' . $i++;
        quiet('mkdir', '-p', '--', $dir);
        quiet('mount', '--bind', '--', $mounted, $dir);
    }
    my (undef, undef, $release) = POSIX::uname();
    for my $modules (@{ $spec->{modules} }) {
        quiet('mkdir', '-p', "/lib/modules/$release");
        quiet('mount', '--bind', '--', $modules, "/lib/modules/$release");
    }
    my ($cwd) = @{ $spec->{cwd} };
    chdir $cwd or fail("chdir $cwd: $!");
    quiet('/bin/sh', '-c', $_) for @{ $spec->{before} };
    # The other CPUs last: see machine.sh.
    for my $cpu (glob '/sys/devices/system/cpu/cpu[1-9]*/online') {
        open(my $file, '>', $cpu) or next;
        print $file "1\n";
    }
}

# run starts the command. Its specification is a list of key, value, each
# ended by a zero byte: time, cwd, umask, env NAME=VALUE, arg, out, modules, before.
sub run {
    my ($text) = @_;
    my %spec = map { $_ => [] } qw(time cwd umask env arg out modules before);
    my @words = split /\0/, $text, -1;
    while (@words >= 2) {
        my ($key, $value) = splice @words, 0, 2;
        push @{ $spec{$key} }, $value;
    }
    %ENV = map { split /=/, $_, 2 } @{ $spec{env} };
    prepare(\%spec);
    send_frame('G', '');
    pipe(my $in_r, my $in_w) and pipe(my $out_r, my $out_w) and pipe(my $err_r, my $err_w)
        or fail("pipe: $!");
    my $pid = fork() // fail("fork: $!");
    if ($pid == 0) {
        POSIX::setsid();
        umask oct($_) for @{ $spec{umask} };
        $SIG{PIPE} = 'DEFAULT';
        POSIX::dup2(fileno $in_r, 0);
        POSIX::dup2(fileno $out_w, 1);
        POSIX::dup2(fileno $err_w, 2);
        my @command = @{ $spec{arg} };
        no warnings 'exec';
        exec { $command[0] } @command;
        my ($error, $status) = ("$!", $!{ENOENT} ? 127 : 126);
        syswrite(STDERR, "testbed/vm: $command[0]: $error\n");
        POSIX::_exit($status);
    }
    close $_ for $in_r, $out_w, $err_w;
    return ($pid, $in_w, $out_r, $err_r);
}

$SIG{PIPE} = 'IGNORE';
# A child's end wakes select through a pipe: a handler alone would race it.
pipe(my $wake_r, my $wake_w) or die "pipe: $!\n";
fcntl($_, F_SETFL, O_NONBLOCK) for $wake_r, $wake_w;
$SIG{CHLD} = sub { syswrite($wake_w, '.') };
send_frame('H', '');

my ($kind, $spec);
until (defined $kind) { read_port(); ($kind, $spec) = next_frame() }
my ($pid, $input, $output, $errors) = run($spec);

my %letter = (fileno($output) => 'O', fileno($errors) => 'E');
my %stream = (fileno($output) => $output, fileno($errors) => $errors);
my ($pending, $input_ended, $status) = ('', 0, undef);
fcntl($input, F_SETFL, O_NONBLOCK);

while (1) {
    sysread($wake_r, my $wakes, 4096);
    while ((my $child = waitpid(-1, WNOHANG)) > 0) {
        next if $child != $pid;
        $status = WIFSIGNALED($?) ? 128 + WTERMSIG($?) : WEXITSTATUS($?);
        # Whatever it left running goes with it, as with a container; then the
        # pipes end, after what is still in them.
        kill 'KILL', -1;
    }
    last if !%stream && defined $status;
    # Before select: frames may have come along with the command.
    while (my ($what, $data) = next_frame()) {
        next if $what ne 'I';
        if (!$input)         { next }
        elsif (length $data) { $pending .= $data }
        else                 { $input_ended = 1 }
    }
    if ($input && $input_ended && !length $pending) { close $input; undef $input }
    my ($read, $write) = ('', '');
    vec($read, $_, 1) = 1 for keys %stream, fileno $wake_r;
    # Input that the command doesn't take stays on the host.
    vec($read, fileno $port, 1) = 1 if length $pending < 1 << 20 && !$input_ended;
    vec($write, fileno $input, 1) = 1 if $input && length $pending;
    next if select($read, $write, undef, undef) <= 0;
    for my $fd (keys %stream) {
        next if !vec($read, $fd, 1);
        my $got = sysread($stream{$fd}, my $data, 1 << 16);
        if ($got) { send_frame($letter{$fd}, $data) }
        elsif (defined $got) { delete $stream{$fd} }
    }
    read_port() if vec($read, fileno $port, 1);
    if ($input && length $pending && vec($write, fileno $input, 1)) {
        my $wrote = syswrite($input, $pending);
        if (defined $wrote) { substr($pending, 0, $wrote) = '' }
        elsif ($! != EAGAIN && $! != EINTR) { $pending = ''; close $input; undef $input }
    }
}

send_frame('X', $status);
idle();
