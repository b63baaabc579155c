"""The gRPC server: one short method per RPC, and the listener."""
