defmodule SnakepitWorker.HostAdapterTest do
  use ExUnit.Case, async: false
  doctest SnakepitWorker.HostAdapter

  alias Snakepit.Adapters.GRPCPython
  alias SnakepitWorker.HostAdapter

  @module ["-X", "snakepit=grpc_server.py", "-m", "snakepit_worker"]

  setup do
    on_exit(fn ->
      Application.delete_env(:snakepit_worker_elixir, :worker_args)
      Application.delete_env(:snakepit, :python_executable)
    end)
  end

  test "a module is run, not a script" do
    assert HostAdapter.script_path() == nil
    assert HostAdapter.script_args() == @module
  end

  test "the worker's arguments are configured" do
    Application.put_env(:snakepit_worker_elixir, :worker_args, ["--adapter", "shop.Shop"])
    assert HostAdapter.script_args() == @module ++ ["--adapter", "shop.Shop"]
  end

  test "the interpreter is the one that Snakepit has" do
    Application.put_env(:snakepit, :python_executable, "/srv/app/.venv/bin/python")
    assert HostAdapter.executable_path() == "/srv/app/.venv/bin/python"
  end

  test "what would make Snakepit run its own script is refused" do
    for args <- [["--max-workers", "4"], ["--adapter", "dspy", "--max-workers=4"]] do
      error = assert_raise ArgumentError, fn -> HostAdapter.args(args) end
      assert error.message =~ "SNAKEPIT_WORKER_MAX_WORKERS"
    end
  end

  test "the rest is left to Snakepit's own module" do
    fun = fn _chunk -> :ok end

    for {name, arguments} <- [
          get_port: [],
          uses_grpc?: [],
          init_grpc_connection: [50_051],
          command_timeout: ["shop.price", %{}],
          grpc_execute: [:connection, "session", "shop.price", %{}, 1000, [a: 1]],
          grpc_execute_stream: [:connection, "session", "shop.count", %{}, fun, 1000, [a: 1]]
        ] do
      assert apply(HostAdapter, name, arguments) == apply(GRPCPython, name, arguments)
    end
  end

  test "heartbeats are left to Snakepit, which sends its own where a module has none" do
    Code.ensure_loaded!(HostAdapter)
    refute function_exported?(HostAdapter, :grpc_heartbeat, 2)
    refute function_exported?(HostAdapter, :grpc_heartbeat, 3)
  end
end
