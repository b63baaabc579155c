"""Calls: from a request to a reply, wherever the tool has to run."""
