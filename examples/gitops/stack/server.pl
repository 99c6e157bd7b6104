# Answers each request with the page beside it.
use strict;
use warnings;
use File::Basename;
use IO::Socket::INET;

my $page = dirname(__FILE__) . '/page.html';
$SIG{TERM} = sub { exit 0 };
$SIG{PIPE} = 'IGNORE';
my $listener = IO::Socket::INET->new(LocalPort => 8000, Listen => 128, ReuseAddr => 1)
    or die "listen on port 8000: $@\n";
while (1) {
    my $client = $listener->accept or next;
    while (defined(my $line = <$client>)) {
        last if $line =~ /^\r?\n$/;
    }
    open my $file, '<', $page or die "$page: $!\n";
    my $body = do { local $/; <$file> } // '';
    print $client "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n",
        'Content-Length: ', length $body, "\r\nConnection: close\r\n\r\n", $body;
    close $client;
}
