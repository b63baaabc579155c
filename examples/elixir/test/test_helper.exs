# Tests that start workers need a host for them, which tests/e2e/test_elixir.py brings.
exclude = if System.get_env("LAUNCH_TEST_HOST"), do: [], else: [:starts_workers]
ExUnit.start(exclude: exclude)
