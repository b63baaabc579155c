"""What crosses the wire: generated stubs, values and failures.  No input or output happens here."""
