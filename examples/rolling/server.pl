# Answers each request with its version. A version that begins with "broken" answers with an
# error, which is what its own check finds.
use strict;
use warnings;
use IO::Socket::INET;

my $port = 8000;
my $version = $ENV{VERSION} // 'unknown';

exit check() if @ARGV && $ARGV[0] eq 'check';

$SIG{TERM} = sub { exit 0 };
$SIG{PIPE} = 'IGNORE';
my $listener = IO::Socket::INET->new(LocalPort => $port, Listen => 128, ReuseAddr => 1)
    or die "listen on port $port: $@\n";
print STDERR "version $version listens on port $port\n";
while (1) {
    my $client = $listener->accept or next;
    while (defined(my $line = <$client>)) {
        last if $line =~ /^\r?\n$/;
    }
    my $status = $version =~ /^broken/ ? '500 Internal Server Error' : '200 OK';
    my $body = "$version\n";
    print $client "HTTP/1.1 $status\r\nContent-Type: text/plain\r\n",
        'Content-Length: ', length $body, "\r\nConnection: close\r\n\r\n", $body;
    close $client;
}

sub check {
    my $server = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 3) or return 1;
    print $server "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    my $status = <$server> // '';
    print "the server says: $status";
    return $status =~ m{^HTTP/1\.1 200 } ? 0 : 1;
}
