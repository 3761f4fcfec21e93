# files-table.pl FILES reads lines "ROUND CELL SECONDS CPU-SECONDS" and prints a table of the
# cells, medians with the 95 % interval of a bootstrap (10,000 resamples of the rounds), and
# how many times as fast one cell was as another in the same rounds.
use strict;
use warnings;

my $files = shift @ARGV;

sub median {
    my @s = sort { $a <=> $b } @_;
    return ($s[$#s / 2] + $s[@s / 2]) / 2;
}

# interval gives median and bounds.
sub interval {
    my @q = @_;
    srand(1);
    my @b = sort { $a <=> $b } map { median(map { $q[rand @q] } @q) } 1 .. 10000;
    return (median(@q), $b[250], $b[9749]);
}

my (%seconds, %cpu, @order);
while (<STDIN>) {
    my (undef, $cell, $s, $c) = split;
    push @order, $cell unless $seconds{$cell};
    push @{ $seconds{$cell} }, $s;
    push @{ $cpu{$cell} }, $c;
}
print "| | files/s (95 %) | seconds | CPU µs a file |\n|---|---|---|---|\n";
for my $cell (sort @order) {
    printf "| %s | %.0f (%.0f to %.0f) | %.2f | %.0f |\n", $cell, interval(map { $files / $_ } @{ $seconds{$cell} }),
        median(@{ $seconds{$cell} }), 1e6 / $files * median(@{ $cpu{$cell} });
}
for (['fast', 'rsync'], ['xxh3', 'rsync'], ['durable', 'rsync-durable'], ['lanes2', 'fast'], ['fast', 'one']) {
    my ($ours, $theirs) = map { $seconds{$_} } @$_;
    next if !$ours || !$theirs;
    printf "%s is %.2f times as fast as %s (%.2f to %.2f)\n", $_->[0], (interval(map { $theirs->[$_] / $ours->[$_] } 0 .. $#$ours))[0], $_->[1],
        (interval(map { $theirs->[$_] / $ours->[$_] } 0 .. $#$ours))[1, 2];
}
