# ratios.pl SPEC... reads rounds, one a line, numbers apart by blanks, and prints for
# each SPEC "NAME=I/J" the median over the rounds of column I by column J, with the
# 95 % interval of a bootstrap: 10,000 resamples of the rounds.
use strict;
use warnings;

sub median {
    my @s = sort { $a <=> $b } @_;
    return ($s[$#s / 2] + $s[@s / 2]) / 2;
}

my @rounds = map { [split] } <STDIN>;
for my $spec (@ARGV) {
    my ($name, $x, $y) = $spec =~ m{^(.*)=(\d+)/(\d+)$} or die "not NAME=I/J: $spec\n";
    my @q = map { $_->[$x] / $_->[$y] } @rounds;
    srand(1);
    my @b = sort { $a <=> $b } map { median(map { $q[rand @q] } @q) } 1 .. 10000;
    printf "%s: median of %d ratios %.3f, 95 %% interval %.3f to %.3f\n", $name, scalar @q, median(@q), $b[250], $b[9749];
}
