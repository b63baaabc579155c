defmodule SnakepitWorker.HostAdapter do
  @moduledoc """
  Starts snakepit-worker where Snakepit would start the Python program that it ships.

      config :snakepit,
        pooling_enabled: true,
        adapter_module: SnakepitWorker.HostAdapter,
        python_executable: "/srv/app/.venv/bin/python"

      config :snakepit_worker_elixir, worker_args: ["--adapter", "dspy"]

  The command line is

      python -X snakepit=grpc_server.py -m snakepit_worker --adapter dspy --port 0 …

  The interpreter ignores the option `-X`; Snakepit finds its workers in the process table by the
  text in it.

  The arguments of a pool (`adapter_args`) take the place of all of these, the `-m` included, so
  they start with the same words; `args/1` puts them there, and in `config/config.exs`, where no
  code of a dependency can be called yet, they are written out:

      adapter_args: ["-X", "snakepit=grpc_server.py", "-m", "snakepit_worker", "--adapter", "dspy"]

  This is for the process profile. In the thread profile Snakepit runs a script of its own whatever
  this module says; there the command `snakepit-python` takes the interpreter's place.

  Everything but the command line is left to `Snakepit.Adapters.GRPCPython`. There is no
  `grpc_heartbeat`, as there is none in that module: Snakepit then sends its own heartbeats.

  Written for Snakepit 0.13.
  """

  @behaviour Snakepit.Adapter

  alias Snakepit.Adapters.GRPCPython

  @module ["-X", "snakepit=grpc_server.py", "-m", "snakepit_worker"]

  @doc "The Python interpreter: `:python_executable`, `SNAKEPIT_PYTHON`, or what Snakepit finds."
  @impl true
  defdelegate executable_path(), to: GRPCPython

  @doc "None: a module is run. The working folder is then that of the BEAM."
  @impl true
  def script_path, do: nil

  @doc "The arguments of a pool that has no `adapter_args` of its own."
  @impl true
  def script_args, do: args(Application.get_env(:snakepit_worker_elixir, :worker_args, []))

  @doc """
  The interpreter's arguments for the given ones of the worker.

      iex> SnakepitWorker.HostAdapter.args(["--adapter", "dspy"])
      ["-X", "snakepit=grpc_server.py", "-m", "snakepit_worker", "--adapter", "dspy"]

  Raises `ArgumentError` for `--max-workers`: Snakepit would run its own script because of it. The
  variable `SNAKEPIT_WORKER_MAX_WORKERS` in the pool's `adapter_env` says the same and does no harm.
  """
  @spec args([String.t()]) :: [String.t()]
  def args(worker_args) do
    if Enum.any?(worker_args, &String.contains?(&1, "--max-workers")) do
      raise ArgumentError,
            "with --max-workers among the arguments Snakepit runs its own script; set " <>
              "SNAKEPIT_WORKER_MAX_WORKERS in adapter_env, or start by snakepit-python"
    end

    @module ++ worker_args
  end

  @impl true
  defdelegate command_timeout(command, args), to: GRPCPython

  # What follows is called by Snakepit's worker process, though its behaviour does not list it.

  @doc false
  defdelegate get_port(), to: GRPCPython

  @doc false
  defdelegate init_grpc_connection(port), to: GRPCPython

  @doc false
  defdelegate grpc_execute(connection, session_id, command, args, timeout, opts), to: GRPCPython

  @doc false
  defdelegate grpc_execute_stream(connection, session_id, command, args, fun, timeout, opts),
    to: GRPCPython

  @doc false
  defdelegate uses_grpc?(), to: GRPCPython
end
