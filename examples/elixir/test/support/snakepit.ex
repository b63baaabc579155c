# Stand-ins for the modules of Snakepit 0.13 and of grpc that the library touches, as far as it does.

defmodule Snakepit.Adapter do
  @callback executable_path() :: String.t()
  @callback script_path() :: String.t()
  @callback script_args() :: [String.t()]
  @callback command_timeout(command :: String.t(), args :: map()) :: pos_integer()
  @optional_callbacks command_timeout: 2
end

defmodule Snakepit.Adapters.GRPCPython do
  @behaviour Snakepit.Adapter

  @impl true
  def executable_path do
    Application.get_env(:snakepit, :python_executable) || System.get_env("SNAKEPIT_PYTHON")
  end

  @impl true
  def script_path, do: "/snakepit/priv/python/grpc_server.py"

  @impl true
  def script_args, do: ["--adapter", "snakepit_bridge.adapters.showcase.ShowcaseAdapter"]

  @impl true
  def command_timeout(command, args), do: {:command_timeout, [command, args]}

  def get_port, do: 0
  def init_grpc_connection(port), do: {:init_grpc_connection, [port]}

  def grpc_execute(connection, session_id, command, args, timeout \\ nil, opts \\ []),
    do: {:grpc_execute, [connection, session_id, command, args, timeout, opts]}

  def grpc_execute_stream(conn, session_id, command, args, fun, timeout \\ nil, opts \\ []),
    do: {:grpc_execute_stream, [conn, session_id, command, args, fun, timeout, opts]}

  def uses_grpc?, do: true
end

defmodule Snakepit.Error do
  @enforce_keys [:category, :message, :details]
  defstruct [:category, :message, :details, :python_traceback, :grpc_status]

  @type t :: %__MODULE__{}
end

for name <- ~w(PythonException ValueError KeyError IndexError TypeError AttributeError ImportError
      RuntimeError NotImplementedError FileNotFoundError PermissionError ZeroDivisionError) do
  defmodule Module.concat(Snakepit.Error, name) do
    defexception [:message, :context, :stacktrace, :python_type, :python_traceback]
  end
end

defmodule GRPC.RPCError do
  defexception [:status, :message, :details]
end

defmodule Snakepit.Bridge.SessionStore do
  def store_worker_session(session_id, worker_id) do
    send(self(), {:store_worker_session, session_id, worker_id})
    :ok
  end
end

defmodule Snakepit do
  @moduledoc """
  Tells the test what it is asked (a message to the process itself), and answers what the test wants.
  """

  @doc "What the next calls of this process get, and the chunks that streams deliver before it."
  def will_answer(result, chunks \\ []) do
    will_answer_in_turn([{result, chunks}])
  end

  @doc "The same for one call after the other; the last answer is that of all further ones."
  def will_answer_in_turn(answers) do
    Process.put(__MODULE__, answers)
  end

  def execute(command, args, opts) do
    send(self(), {:execute, command, args, opts})
    {result, _chunks} = next()
    result
  end

  def execute_stream(command, args, fun, opts) do
    send(self(), {:execute_stream, command, args, opts})
    {result, chunks} = next()

    Enum.reduce_while(chunks, result, fn chunk, result ->
      case fun.(chunk) do
        :halt -> {:halt, :ok}
        _other -> {:cont, result}
      end
    end)
  end

  defp next do
    [answer | further] = Process.get(__MODULE__)
    if further != [], do: Process.put(__MODULE__, further)
    answer
  end
end
