"""The process around a worker: group, signals, readiness, watchdogs, exit."""
