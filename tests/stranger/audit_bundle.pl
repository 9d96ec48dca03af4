#!/usr/bin/perl
# A stranger's verifier of an audit bundle, in another language: written from docs/spec/audit-log.md alone, with Perl's own modules and the
# openssl program.
#
# Usage: audit_bundle.pl BUNDLE-DIRECTORY PUBLIC-KEY-BASE64
# Prints entries, periods, gaps and values; leaves with status 1 and a sentence when something does not verify.
use strict;
use warnings;
use Digest::SHA qw(sha256 sha256_hex);
use Encode qw(encode_utf8);
use File::Temp;
use JSON::PP;
use MIME::Base64;

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my %count = (entries => 0, gaps => 0, values => 0, periods => 0);

sub refuse { die "@_\n" }

sub octets_of {
    my ($path) = @_;
    open my $file, '<:raw', $path or refuse("$path cannot be read");
    local $/;
    my $content = <$file>;
    return defined $content ? $content : '';
}

sub unbase64 {
    my ($text) = @_;
    my $octets = decode_base64($text);
    refuse('not base64') if encode_base64($octets, '') ne $text;
    return $octets;
}

sub leaf { return sha256("\0" . $_[0]) }

# RFC 6962, section 2.1, as it is printed there.
sub tree {
    my (@hashes) = @_;
    return @hashes ? $hashes[0] : sha256('') if @hashes < 2;
    my $k = 1;
    $k *= 2 while $k * 2 < @hashes;
    return sha256("\1" . tree(@hashes[0 .. $k - 1]) . tree(@hashes[$k .. $#hashes]));
}

# RFC 6962, section 2.1.1: from the leaf upwards.
sub inclusion {
    my ($digest, $index, $size, @path) = @_;
    my $last = $size - 1;
    for my $sibling (@path) {
        if ($index % 2 || $index == $last) {
            $digest = sha256("\1" . $sibling . $digest);
            while ($index % 2 == 0 && $index) { $index >>= 1; $last >>= 1 }
        }
        else { $digest = sha256("\1" . $digest . $sibling) }
        $index >>= 1;
        $last >>= 1;
    }
    refuse('a path of another length') if $last;
    return $digest;
}

sub tile {
    my ($folder, $level, $number, $width) = @_;
    my $name = sprintf '%03d', $number % 1000;
    while ($number >= 1000) {
        $number = int($number / 1000);
        $name = sprintf 'x%03d/%s', $number % 1000, $name;
    }
    return octets_of("$folder/tile/$level/$name" . ($width == 256 ? '' : ".p/$width"));
}

sub unframe {
    my ($content) = @_;
    my @found;
    while (length $content) {
        my $length = unpack 'n', $content;
        refuse('cut short') if !defined $length || length $content < 2 + $length;
        push @found, substr $content, 2, $length;
        $content = substr $content, 2 + $length;
    }
    return @found;
}

sub signed {
    my ($public, $message, $signature) = @_;
    my $folder = File::Temp->newdir;
    my %file = (key => pack('H*', '302a300506032b6570032100') . $public, message => $message, signature => $signature);
    for my $name (keys %file) {
        open my $out, '>:raw', "$folder/$name" or refuse('no place to write');
        print $out $file{$name};
        close $out;
    }
    return system("openssl pkeyutl -verify -pubin -keyform DER -inkey $folder/key -rawin -in $folder/message -sigfile $folder/signature >/dev/null 2>&1") == 0;
}

sub open_checkpoint {
    my ($text, $origin, $public) = @_;
    my ($body, $lines) = $text =~ /\A(.*\n)\n(.*)\z/s or refuse('no checkpoint');
    my ($name, $size, $root) = split /\n/, $body;
    refuse('a checkpoint of another log') if $name ne $origin;
    my $id = substr sha256("$origin\n\x01$public"), 0, 4;
    for my $line (split /\n/, $lines) {
        my (undef, $signer, $blob) = split / /, $line;
        my $raw = unbase64($blob);
        next if $signer ne $origin || substr($raw, 0, 4) ne $id;
        refuse('a wrong signature') if !signed($public, $body, substr $raw, 4);
        return ($size, unbase64($root));
    }
    refuse("no signature of the log's key");
}

sub check_entry {
    my ($folder, $log, $index, $entry, $line) = @_;
    refuse('fewer lines than entries') if !defined $line;
    $line = $json->decode($line);
    my $same = $line->{log} eq $log->{period} && $line->{index} == $index && $json->encode($line->{entry}) eq $json->encode($entry);
    refuse('the readable line differs') if !$same;
    $count{entries}++;
    $count{gaps}++ if $entry->{kind} eq 'gap';
    my $at = 0;
    for my $part (@{$entry->{sealed} || []}) {
        if (my $name = $part->{blob}) {
            my $content = octets_of("$folder/blob/" . substr($name, 0, 2) . "/$name");
            refuse('a swapped blob') if sha256_hex($content) ne $name || length $content != $part->{size};
        }
        my $value = ($line->{values} || [])->[$at++];
        next if !defined $value;
        refuse('another value') if sha256("obhut audit log v1 value\n" . encode_utf8($value)) ne unbase64($part->{digest});
        $count{values}++;
    }
    return;
}

# Positions ascend within a log, those of each server and database by themselves.
sub check_order {
    my ($entry, $highest) = @_;
    return if $entry->{kind} ne 'change';
    my ($system, $timeline, $lsn, $ordinal) = @{$entry->{position}};
    my $place = sprintf '%012d %08s%08s %012d', $timeline, split(m{/}, $lsn), $ordinal;
    $place =~ tr/ /0/;
    my $before = $highest->{"$system $entry->{database}"};
    refuse('a change twice, or out of order') if defined $before && $place le $before;
    $highest->{"$system $entry->{database}"} = $place;
    return;
}

sub check_log {
    my ($root, $log, $public, $lines, $previous) = @_;
    my $folder = "$root/logs/$log->{period}";
    my ($size, $top) = open_checkpoint(octets_of("$folder/checkpoint"), $log->{origin}, $public);
    refuse('another size') if $size != $log->{size};
    my $tiles = int(($size + 255) / 256);
    my $width = sub { my ($number) = @_; return $size - $number * 256 < 256 ? $size - $number * 256 : 256 };
    my @hashes = map { unpack '(a32)*', tile($folder, 0, $_, $width->($_)) } 0 .. $tiles - 1;
    refuse('the leaf hashes do not give the root') if @hashes != $size || tree(@hashes) ne $top;
    my %highest;
    my %wanted = map { $_ => 1 } 0, int($log->{first} / 256) .. int($log->{last} / 256);
    for my $number (sort { $a <=> $b } keys %wanted) {
        my $index = $number * 256;
        for my $octets (unframe(tile($folder, 'entries', $number, $width->($number)))) {
            refuse("entry $index differs") if leaf($octets) ne ($hashes[$index] // '');
            my $entry = $json->decode($octets);
            check_order($entry, \%highest);
            check_chain($entry->{detail}, @$previous) if !$index && @$previous;
            check_entry($folder, $log, $index, $entry, shift @$lines) if $index >= $log->{first} && $index <= $log->{last};
            $index++;
        }
        refuse('entries are missing') if $index != $number * 256 + $width->($number);
    }
    return [$log->{origin}, $size, $top];
}

sub check_chain {
    my ($said, $origin, $size, $top) = @_;
    refuse('a broken chain of periods') if $said->{previous_origin} ne $origin || $said->{previous_size} != $size;
    refuse('another history before') if unbase64($said->{previous_root}) ne $top;
    return;
}

sub check_proof {
    my ($root, $name, $logs, $public, $line) = @_;
    my ($head, $note) = split /\n\n/, octets_of("$root/$name"), 2;
    my (undef, $extra, $position, @path) = split /\n/, $head;
    my $octets = unbase64($extra =~ s/\Aextra //r);
    my $index = $position =~ s/\Aindex //r;
    my ($period) = $name =~ m{\Aproofs/(.+)-\d+\.tlog-proof\z} or refuse("$name: not the name of a proof");
    my ($size, $top) = open_checkpoint($note, $logs->{$period}{origin}, $public);
    refuse("$name: not in the log") if inclusion(leaf($octets), $index, $size, map { unbase64($_) } @path) ne $top;
    check_entry("$root/logs/$period", $logs->{$period}, $index, $json->decode($octets), $line);
    return;
}

sub main {
    my ($root, $key) = @_;
    my $public = unbase64($key);
    my $cover = $json->decode(octets_of("$root/bundle.json"));
    refuse('another format') if $cover->{format} ne 'obhut audit bundle 1';
    my @lines = split /\n/, octets_of("$root/entries.jsonl");
    my %logs = map { $_->{period} => $_ } @{$cover->{logs}};
    my @proofs = @{$cover->{proofs} || []};
    check_proof($root, $_, \%logs, $public, shift @lines) for @proofs;
    my $previous = [];
    $previous = check_log($root, $_, $public, \@lines, $previous) for @proofs ? () : @{$cover->{logs}};
    refuse('more lines than entries') if @lines;
    $count{periods} = keys %logs;
    print $json->encode(\%count), "\n";
    return;
}

eval { main(@ARGV); 1 } or do { print STDERR 'does not verify: ', $@; exit 1 };
