//! The netdump protocol: wire format, client, server, extents; no I/O
