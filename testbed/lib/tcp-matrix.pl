# tcp-matrix.pl BYTES reads lines "rdmaxfer-OUT-IN SINK times SECONDS U S C W U S C W", one
# a run of so many bytes, of the sender and then the receiver user and system seconds,
# involuntary and voluntary context switches; and "rdmaxfer-OUT-IN SINK calls N", the
# system calls of both in one run. It prints a table of medians.
use strict;
use warnings;
use File::Basename;
use lib dirname(__FILE__);
require 'stats.pl';

my $bytes = shift @ARGV;
my ($gb, $mb) = ($bytes / 1e9, $bytes / 1e6);

my (%calls, %runs, @order);
while (<STDIN>) {
    my ($name, $sink, $what, @f) = split;
    my ($out, $in) = (split /-/, $name)[1, 2];
    my $cell = "$sink $out $in";
    if ($what eq 'calls') {
        $calls{$cell} = $f[0];
        next;
    }
    push @order, $cell unless $runs{$cell};
    push @{ $runs{$cell} }, \@f;
}
print "| sink | out | in | GB/s, median (least to most) | CPU s/GB, sender | receiver | context switches/MB | system calls/MB |\n|---|---|---|---|---|---|---|---|\n";
for my $cell (sort @order) {
    my ($sink, $out, $in) = split / /, $cell;
    my @r = @{ $runs{$cell} };
    my @rate = sort { $a <=> $b } map { $gb / $_->[0] } @r;
    printf "| %s | %s | %s | %.2f (%.2f to %.2f) | %.2f | %.2f | %.1f | %.1f |\n", $sink, $out, $in, median(@rate), $rate[0], $rate[-1],
        median(map { ($_->[1] + $_->[2]) / $gb } @r), median(map { ($_->[5] + $_->[6]) / $gb } @r),
        median(map { ($_->[3] + $_->[4] + $_->[7] + $_->[8]) / $mb } @r), $calls{$cell} / $mb;
}
