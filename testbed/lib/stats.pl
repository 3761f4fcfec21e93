# What the tables and ratios say of some samples: their median, and the bounds of the median
# of all the rounds that there could have been. For the scripts beside this one.
use strict;
use warnings;

sub median {
    my @s = sort { $a <=> $b } @_;
    return ($s[$#s / 2] + $s[@s / 2]) / 2;
}

# rank gives the largest k for which the k-th of so many samples and the k-th from the other
# end have the median between them in 95 % of all cases. They do not where fewer than k samples
# are on one side of it, and on which side each is a coin could have said (David and Nagaraja,
# Order Statistics, 7.1). 0 where not even the least and the most do: of fewer than six.
sub rank {
    my ($samples) = @_;
    my ($k, $term) = (0, 0.5**$samples);
    my $fewer = $term;    # the chance of no more than k
    while (2 * $fewer <= 0.05) {
        $k++;
        $term *= ($samples - $k + 1) / $k;
        $fewer += $term;
    }
    return $k;
}

# interval gives the median of the samples and the two between which the median of all is;
# bounds says what those are, of so many samples.
sub interval {
    my @s = sort { $a <=> $b } @_;
    my $k = rank(scalar @s) || 1;
    return (median(@s), $s[$k - 1], $s[-$k]);
}

sub bounds {
    my ($samples) = @_;
    return rank($samples) ? '95 % interval' : 'least to most';
}

1;
