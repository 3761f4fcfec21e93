# files-table.pl FILES reads lines "ROUND CELL SECONDS CPU-SECONDS" and prints a table of the
# cells, medians with their 95 % interval, or the least and the most of fewer than six rounds
# (stats.pl), and how many times as fast one cell was as another in the same rounds. Where
# some have fewer runs than others all have as few, for one word stands for all their bounds.
use strict;
use warnings;
use File::Basename;
use List::Util qw(max min);
use lib dirname(__FILE__);
require 'stats.pl';

my $files = shift @ARGV;

my (%seconds, %cpu, @order);
while (<STDIN>) {
    my (undef, $cell, $s, $c) = split;
    push @order, $cell unless $seconds{$cell};
    push @{ $seconds{$cell} }, $s;
    push @{ $cpu{$cell} }, $c;
}
die "files-table: no runs to make a table of; did ONLY match any?\n" if !@order;
my @runs = map { scalar @$_ } values %seconds;
my $runs = min @runs;
warn "files-table: some have only $runs runs: the first $runs of each\n" if $runs < max @runs;
splice @$_, $runs for values %seconds, values %cpu;

my $bounds = bounds($runs);
print "| | files/s ($bounds) | seconds | CPU µs a file |\n|---|---|---|---|\n";
for my $cell (sort @order) {
    printf "| %s | %.0f (%.0f to %.0f) | %.2f | %.0f |\n", $cell, interval(map { $files / $_ } @{ $seconds{$cell} }),
        median(@{ $seconds{$cell} }), 1e6 / $files * median(@{ $cpu{$cell} });
}
for (['fast', 'rsync'], ['xxh3', 'rsync'], ['durable', 'rsync-durable'], ['lanes2', 'fast'], ['fast', 'one']) {
    my ($ours, $theirs) = map { $seconds{$_} } @$_;
    next if !$ours || !$theirs;
    my ($median, $low, $high) = interval(map { $theirs->[$_] / $ours->[$_] } 0 .. $#$ours);
    printf "%s is %.2f times as fast as %s (%s %.2f to %.2f)\n", $_->[0], $median, $_->[1], $bounds, $low, $high;
}
