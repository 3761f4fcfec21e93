# Process 1 of the virtual machine once the root is there: runs the command
# that relay.pl on the host sends over a virtio port, and sends back its output
# and its status. Perl, because every Debian has it (perl-base is essential)
# and because a shell can't keep bytes, descriptors and statuses apart exactly.
#
# A frame is a letter, a length (32 bits, network order) and that many bytes:
#   host to guest  R specification   C go on   I input ("" is its end)
#                  Z the terminal's size
#   guest to host  H "I am up"   P "I am prepared"   O output   E error output
#                  N count   X status   F failure
# The specification is a list of key, value: time, cwd, umask, env NAME=VALUE,
# arg, out, modules, before, tty, count, warm, two. Without any arg this is the second
# machine of two, which serves the first.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use Fcntl;
use POSIX qw(:sys_wait_h);

use lib '/run/testbed/agent';
require 'guest-job.pl';
require 'guest-peer.pl';

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

# counted is how long the machine's tasks have run, in nanoseconds. Where
# instructions are counted, that is how many they were. Idling is not in it: the
# clock leaps while the machine waits for its host, differently each time.
sub counted {
    my $time = 0;
    open(my $file, '<', '/proc/schedstat') or return 0;
    # The seventh of a CPU's numbers is its tasks' time.
    while (<$file>) { $time += $1 if /^cpu\d+(?: \d+){6} (\d+)/ }
    return $time;
}

# warm_up runs the command once, unseen: what it reads of the host is in the
# machine's memory then, and no program spins, counted, while it waits for that.
sub warm_up {
    my ($spec) = @_;
    my $pid = fork() // fail("fork: $!");
    if ($pid == 0) {
        open(my $null, '+<', '/dev/null') or POSIX::_exit(126);
        Job::child($spec, $null, $null, $null);
    }
    waitpid $pid, 0;
}

# await_frame KIND returns the next frame, which is of that kind.
sub await_frame {
    my ($want) = @_;
    while (1) {
        my ($kind, $data) = next_frame();
        return $data if defined $kind && $kind eq $want;
        read_port() if !defined $kind;
    }
}

$SIG{PIPE} = 'IGNORE';
# A child's end wakes select through a pipe: a handler alone would race it.
pipe(my $wake_r, my $wake_w) or die "pipe: $!\n";
fcntl($_, F_SETFL, O_NONBLOCK) for $wake_r, $wake_w;
$SIG{CHLD} = sub { syswrite($wake_w, '.') };
send_frame('H', '');

my $spec = Job::specification(await_frame('R'));
%ENV = map { split /=/, $_, 2 } @{ $spec->{env} };
my $peer = eval { Peer->new('/run/testbed/peer') if @{ $spec->{two} } };
fail($@) if $@;
prepare($spec);
warm_up($spec) if @{ $spec->{warm} };
send_frame('P', '');
await_frame('C');
my $from = @{ $spec->{count} } ? counted() : undef;
my $job = eval { Job->start($spec, \&send_frame) if @{ $spec->{arg} } };
fail($@) if $@;
my $taking = defined $job;    # input comes, and is taken

while (1) {
    sysread($wake_r, my $wakes, 4096);
    while ((my $child = waitpid(-1, WNOHANG)) > 0) {
        my $status = $?;
        if (!$job || $child != $job->{pid}) { $peer->ended($child, $status) if $peer; next }
        send_frame('N', counted() - $from) if defined $from;
        $job->ended($status);
        # Whatever it left running goes with it, as with a container; then the
        # pipes end, after what is still in them.
        kill 'KILL', -1;
    }
    last if $job && $job->over();
    # Before select: frames may have come along with the last one.
    while (my ($kind, $data) = next_frame()) {
        $taking = 0 if $kind eq 'I' && !length $data;
        $job->frame($kind, $data) if $job;
    }
    my ($read, $write) = ('', '');
    vec($read, fileno $wake_r, 1) = 1;
    # Input that the command doesn't take stays on the host.
    vec($read, fileno $port, 1) = 1 if !$job || ($job->thirsty() && ($taking || $job->{terminal}));
    $job->want(\$read, \$write) if $job;
    $peer->want(\$read, \$write) if $peer;
    next if select($read, $write, undef, undef) <= 0;
    $job->pump($read, $write) if $job;
    $peer->pump($read, $write) if $peer;
    read_port() if vec($read, fileno $port, 1);
}

send_frame('X', $job->exit_code());
idle();
