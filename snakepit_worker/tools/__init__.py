"""What an adapter is: its tools, how their arguments are bound, and where adapters come from."""
