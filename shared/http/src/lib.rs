//! HTTP/1.1 over unix sockets, client and server, with limits.
