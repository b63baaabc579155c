"""What the worker says about itself: log lines and events."""
