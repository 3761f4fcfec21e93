# tcp-table.pl BYTES reads lines "NAME SINK SECONDS CPU-SECONDS", one a run of so many
# bytes, rounds in their order, and prints a table: the median rate with its 95 % interval,
# or the least and the most of fewer than six rounds (stats.pl), median CPU seconds a GB, and
# how many times as fast rdmaxfer-auto was into the same sink in the same rounds (beside scp
# rdmaxfer-encrypt), and how many times rdmaxfer-auto-copy was. Where some
# have fewer runs than others all have as few, for one word stands for all their bounds.
use strict;
use warnings;
use File::Basename;
use List::Util qw(max min);
use lib dirname(__FILE__);
require 'stats.pl';

my $gb = shift(@ARGV) / 1e9;

my (%rate, %cpu, @order);
while (<STDIN>) {
    my ($name, $sink, $seconds, $cpu) = split;
    push @order, [$name, $sink] unless $rate{$sink}{$name};
    push @{ $rate{$sink}{$name} }, $gb / $seconds;
    push @{ $cpu{$sink}{$name} }, $cpu / $gb;
}
die "tcp-table: no runs to make a table of; did ONLY match any?\n" if !@order;
my @runs = map { scalar @$_ } map { values %$_ } values %rate;
my $runs = min @runs;
warn "tcp-table: some have only $runs runs: the first $runs of each\n" if $runs < max @runs;
splice @$_, $runs for map { values %$_ } values %rate, values %cpu;

# ratio gives how many times as fast one was as another in the same rounds; nothing where
# either was not there, or both are the same.
sub ratio {
    my ($sink, $mine, $name) = @_;
    my ($ours, $theirs) = ($rate{$sink}{$mine}, $rate{$sink}{$name});
    return '' if !$ours || $mine eq $name;
    return sprintf '%.2f (%.2f to %.2f)', interval(map { $ours->[$_] / $theirs->[$_] } 0 .. $#$theirs);
}

my $bounds = bounds($runs);
print "| | sink | GB/s, median ($bounds) | CPU s/GB | auto (beside scp: encrypt) is so many times as fast ($bounds) | auto --landing copy is |\n|---|---|---|---|---|---|\n";
for (sort { $a->[1] cmp $b->[1] } @order) {
    my ($name, $sink) = @$_;
    printf "| %s | %s | %.2f (%.2f to %.2f) | %.2f | %s | %s |\n", $name =~ s/-copy/ --landing copy/r =~ s/-/ /r, $sink, interval(@{ $rate{$sink}{$name} }),
        median(@{ $cpu{$sink}{$name} }), ratio($sink, $name eq 'scp' ? 'rdmaxfer-encrypt' : 'rdmaxfer-auto', $name),
        $name =~ /^rdmaxfer|scp/ ? '' : ratio($sink, 'rdmaxfer-auto-copy', $name);
}
