# A command that runs here for somebody elsewhere: guest-agent.pl starts one for
# the host, guest-peer.pl one for each "softroce exec" of the other machine.
# Whoever starts it gives a "send" that takes frames (see guest-agent.pl).
package Job;
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use Fcntl;
use POSIX qw(:sys_wait_h);

# From <asm/ioctls.h>; perl-base has no ioctl.ph.
use constant {
    TIOCSCTTY => 0x540E, TIOCSWINSZ => 0x5414, TIOCGPTN => 0x80045430, TIOCSPTLCK => 0x40045431,
};

# specification turns "key, value, each ended by a zero byte" into key => [values].
sub specification {
    my %spec = map { $_ => [] } qw(time cwd umask env arg out modules before tty count warm two);
    my @words = split /\0/, $_[0], -1;
    while (@words >= 2) {
        my ($key, $value) = splice @words, 0, 2;
        push @{ $spec{$key} }, $value;
    }
    return \%spec;
}

# start(SPEC, SEND, WINDOW) runs SPEC's arg. With a WINDOW no more than so many
# bytes of each stream are on their way until "W" frames make room again.
sub start {
    my ($class, $spec, $send, $window) = @_;
    my $size = $spec->{tty}[-1];    # the last: relay.pl's
    my (@ours, @theirs);
    if (defined $size) {
        my ($master, $slave) = terminal($size);
        @ours = ($master, $master);
        @theirs = ($slave) x 3;
    }
    else {
        pipe(my $in_r, my $in_w) and pipe(my $out_r, my $out_w) and pipe(my $err_r, my $err_w)
            or die "pipe: $!\n";
        @ours = ($in_w, $out_r, $err_r);
        @theirs = ($in_r, $out_w, $err_w);
    }
    my $pid = fork() // die "fork: $!\n";
    child($spec, @theirs) if $pid == 0;
    close $_ for @theirs;
    my ($input, $output, $errors) = @ours;
    my %streams = (fileno $output => [ 'O', $output ]);
    $streams{ fileno $errors } = [ 'E', $errors ] if $errors;
    fcntl($input, F_SETFL, O_NONBLOCK);
    return bless {
        pid => $pid, send => $send, streams => \%streams, input => $input,
        terminal => defined $size, pending => '', input_ended => 0, told => 0,
        room => defined $window ? { O => $window, E => $window } : undef,
    }, $class;
}

sub terminal {
    my ($size) = @_;
    sysopen(my $master, '/dev/ptmx', O_RDWR | O_NOCTTY) or die "/dev/ptmx: $!\n";
    my $unlocked = pack('i', 0);
    my $number   = pack('i', 0);
    ioctl($master, TIOCSPTLCK, $unlocked) and ioctl($master, TIOCGPTN, $number) or die "pty: $!\n";
    my $path = '/dev/pts/' . unpack('i', $number);
    sysopen(my $slave, $path, O_RDWR | O_NOCTTY) or die "$path: $!\n";
    window_size($master, $size);
    return ($master, $slave);
}

# window_size(TERMINAL, "ROWS COLUMNS").
sub window_size {
    my ($terminal, $size) = @_;
    my $packed = pack('S4', (split(' ', $size), 0, 0)[0, 1], 0, 0);
    ioctl($terminal, TIOCSWINSZ, $packed);
}

# child never returns.
sub child {
    my ($spec, @fds) = @_;
    POSIX::setsid();
    ioctl($fds[0], TIOCSCTTY, 0) if @{ $spec->{tty} };
    umask oct($_) for @{ $spec->{umask} };
    POSIX::dup2(fileno $fds[$_], $_) for 0 .. 2;
    $SIG{PIPE} = 'DEFAULT';
    %ENV = map { split /=/, $_, 2 } @{ $spec->{env} };
    my ($cwd) = @{ $spec->{cwd} };
    if (!chdir $cwd) {
        syswrite(STDERR, "testbed: $cwd: $!\n");
        POSIX::_exit(126);
    }
    my @command = @{ $spec->{arg} };
    no warnings 'exec';
    exec { $command[0] } @command;
    my ($error, $status) = ("$!", $!{ENOENT} ? 127 : 126);
    syswrite(STDERR, "testbed/vm: $command[0]: $error\n");
    POSIX::_exit($status);
}

# frame takes what its owner sent.
sub frame {
    my ($self, $kind, $data) = @_;
    if ($kind eq 'I') {
        if (length $data) { $self->{pending} .= $data if $self->{input} }
        else              { $self->{input_ended} = 1 }
        $self->close_input();
    }
    elsif ($kind eq 'W') { my ($stream, $n) = unpack 'aN', $data; $self->{room}{$stream} += $n }
    elsif ($kind eq 'S') { $self->signal($data) }
    elsif ($kind eq 'Z') { window_size($self->{input}, $data) if $self->{terminal} && $self->{input} }
}

# signal goes to the command and what it started: nobody else can reach those.
sub signal { my ($self, $signal) = @_; kill $signal, -$self->{pid} if !defined $self->{status} }

sub close_input {
    my ($self) = @_;
    return if !$self->{input} || !$self->{input_ended} || length $self->{pending};
    # A terminal that hangs up tells those on it; a pipe ends.
    if ($self->{terminal}) { $self->signal('HUP') }
    else                   { close $self->{input}; undef $self->{input} }
}

sub thirsty { my ($self) = @_; return length $self->{pending} < 1 << 20 }

# want sets the bits of what is to be waited for.
sub want {
    my ($self, $read, $write) = @_;
    for my $fd (keys %{ $self->{streams} }) {
        vec($$read, $fd, 1) = 1 if !$self->{room} || $self->{room}{ $self->{streams}{$fd}[0] } > 0;
    }
    vec($$write, fileno $self->{input}, 1) = 1 if $self->{input} && length $self->{pending};
}

# pump moves what can be moved.
sub pump {
    my ($self, $read, $write) = @_;
    for my $fd (keys %{ $self->{streams} }) {
        next if !vec($read, $fd, 1);
        my ($kind, $handle) = @{ $self->{streams}{$fd} };
        my $most = 1 << 16;
        $most = $self->{room}{$kind} if $self->{room} && $self->{room}{$kind} < $most;
        my $got = sysread($handle, my $data, $most);
        if ($got) {
            $self->{room}{$kind} -= $got if $self->{room};
            $self->{send}->($kind, $data);
        }
        # A terminal whose last process is gone says EIO.
        elsif (defined $got || ($! != EINTR && $! != EAGAIN)) {
            delete $self->{streams}{$fd};
            $self->{send}->($kind, '') if $self->{room};
        }
    }
    my $input = $self->{input};
    return if !$input || !length $self->{pending} || !vec($write, fileno $input, 1);
    my $wrote = syswrite($input, $self->{pending});
    if (!defined $wrote) {
        return if $! == EAGAIN || $! == EINTR;
        $wrote = length $self->{pending};    # it doesn't want any: dropped
        undef $self->{input};
    }
    substr($self->{pending}, 0, $wrote) = '';
    $self->{send}->('W', pack('aN', 'I', $wrote)) if $self->{room};
    $self->close_input();
}

# ended(WAIT-STATUS) notes the command's end.
sub ended {
    my ($self, $status) = @_;
    $self->{status} = WIFSIGNALED($status) ? 'signal ' . WTERMSIG($status) : 'exit ' . WEXITSTATUS($status);
}

# exit_code is the status as a shell has it.
sub exit_code {
    my ($kind, $n) = split ' ', $_[0]{status};
    return $kind eq 'signal' ? 128 + $n : $n;
}

# drained: the command has ended, and all that it wrote was sent. What it left
# running may still hold its streams.
sub drained {
    my ($self) = @_;
    return 0 if !defined $self->{status};
    my $read = '';
    vec($read, $_, 1) = 1 for keys %{ $self->{streams} };
    return $read eq '' || select($read, undef, undef, 0) <= 0;
}

# over: nothing more can come.
sub over { my ($self) = @_; return defined $self->{status} && !%{ $self->{streams} } }

1;
