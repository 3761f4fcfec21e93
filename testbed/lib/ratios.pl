# ratios.pl SPEC... reads rounds, one a line, numbers apart by blanks, and prints for
# each SPEC "NAME=I/J" the median over the rounds of column I by column J, with its
# 95 % interval, or the least and the most of fewer than six rounds (stats.pl).
use strict;
use warnings;
use File::Basename;
use lib dirname(__FILE__);
require 'stats.pl';

my @rounds = map { [split] } <STDIN>;
for my $spec (@ARGV) {
    my ($name, $x, $y) = $spec =~ m{^(.*)=(\d+)/(\d+)$} or die "not NAME=I/J: $spec\n";
    my @q = map { $_->[$x] / $_->[$y] } @rounds;
    my ($median, $low, $high) = interval(@q);
    printf "%s: median of %d ratios %.3f, %s %.3f to %.3f\n", $name, scalar @q, $median, bounds(scalar @q), $low, $high;
}
