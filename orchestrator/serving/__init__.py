"""A small HTTP/1.1 server over sockets: h11 reads and writes the protocol, asyncio the bytes."""
