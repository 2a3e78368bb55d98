# SDK of the HTTP API: wire types and client.
