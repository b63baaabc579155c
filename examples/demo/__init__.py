"""The demo: a worker, a session, and a small language model to talk to, on one machine."""
