"""The archive: what sessions hold, in a database from which another worker rebuilds them.

A session is a row with its resources, each described by a recipe.  It belongs to one worker at a
time: ``claim`` takes it, every write names the fence that the claim gave, and a writer whose fence
is no longer the current one loses with a conflict.  A worker keeps what it owns by renewing one
lease; when the lease has ended, or the worker's process on the same machine has, others may claim.

The rest of the worker uses `thread.ArchiveThread`, with what stands in ``model``, ``options`` and
``owner``.  Nothing here imports SQLAlchemy but the thread, when it starts.
"""
