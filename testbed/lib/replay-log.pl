# replay-log.pl LOG IMAGE [SEED] makes of IMAGE, a device's contents at the time
# when dm-log-writes began to log it, what a power cut leaves: every write that was
# flushed (or FUA) before the mark "cut" is there, the others are not. With SEED
# each 4 KiB block of those others is there with a chance of one half.
#
# The kernel logs a write when it is flushed, and what never was at the log's end,
# that is after our mark. The log (drivers/md/dm-log-writes.c) has a super block,
# then entries of one sector each, followed by the data; all little-endian:
#   super  magic, version, entries (64 bits each), sector size (32 bits)
#   entry  sector, sectors, flags, data length (64 bits each); a mark's text
#
# Of two writes to one block the later one wins, as it does in a drive's cache;
# between blocks any order is the same once the power is gone.
use strict;
use warnings;
no warnings 'portable';    # 64 bits it is

use constant { DISCARD => 4, MARK => 8, MAGIC => 0x6a736677736872, BLOCK => 4096 };

my ($log_path, $image_path, $seed) = @ARGV;
open(my $log,   '<:raw',  $log_path)   or die "$log_path: $!\n";
open(my $image, '+<:raw', $image_path) or die "$image_path: $!\n";

sub fetch {
    my ($length) = @_;
    my $n = read($log, my $data, $length);
    die "$log_path: ends early\n" if !defined $n || $n != $length;
    return $data;
}

sub put {
    my ($at, $data) = @_;
    seek($image, $at, 0) or die "$image_path: $!\n";
    print $image $data   or die "$image_path: $!\n";
}

my ($magic, undef, $entries, $sector) = unpack('Q<Q<Q<L<', fetch(512));
die "$log_path: no log of dm-log-writes\n" if $magic != MAGIC;
srand $seed if defined $seed;

my ($cut, $at, %count) = (0, $sector);
$count{$_} = 0 for qw(kept unflushed blocks survived);
for (1 .. $entries) {
    seek($log, $at, 0);
    my $header = fetch($sector);
    my ($to, $sectors, $flags, $length) = unpack('Q<4', $header);
    $at += $sector;
    if ($flags & MARK) {
        $cut = 1 if substr($header, 32, $length) eq 'cut';
        next;
    }
    next if !$sectors;    # a flush alone
    my $data;
    if ($flags & DISCARD) { $data = "\0" x ($sectors * $sector) }
    else                  { $data = fetch($sectors * $sector); $at += $sectors * $sector }
    if (!$cut) {
        $count{kept}++;
        put($to * $sector, $data);
        next;
    }
    $count{unflushed}++;
    for (my $i = 0; $i < length $data; $i += BLOCK) {
        $count{blocks}++;
        next if !defined $seed || rand() < 0.5;
        $count{survived}++;
        put($to * $sector + $i, substr($data, $i, BLOCK));
    }
}
die "$log_path: no mark of the cut\n" if !$cut;
close $image or die "$image_path: $!\n";
printf "flushed writes kept: %d; unflushed: %d, of their %d blocks %d survived\n",
    @count{qw(kept unflushed blocks survived)};
