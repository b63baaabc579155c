"""The Elixir side as a worker sees it."""
