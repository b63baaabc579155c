defmodule FromTheWorker do
  @moduledoc """
  What Snakepit 0.13 makes of a failure that the worker sends.

  The texts in `test/fixtures` are written by the worker's own code.
  """

  @structs ~w(ValueError KeyError IndexError TypeError AttributeError ImportError RuntimeError
              NotImplementedError FileNotFoundError PermissionError ZeroDivisionError)

  @doc "What the worker sends."
  def text(name) do
    [__DIR__, "..", "fixtures", "#{name}.json"] |> Path.join() |> File.read!() |> String.trim()
  end

  @doc "The error of a unary call: one of twelve structs, which keep what they know, and a wrapper."
  def unary(text, command \\ "shop.price") do
    {:ok, %{"type" => type, "message" => message} = object} = JSON.decode(text)
    name = if type in @structs, do: type, else: "PythonException"
    stacktrace = object["stacktrace"] || []

    wrapped(
      struct!(Module.concat(Snakepit.Error, name),
        message: message,
        context: object["context"] || %{},
        stacktrace: stacktrace,
        python_type: type,
        python_traceback: object["traceback"] || Enum.join(stacktrace)
      ),
      command
    )
  end

  @doc "The error of a stream: the status as it came, and a wrapper."
  def stream(text, command \\ "shop.count") do
    wrapped(%GRPC.RPCError{status: 13, message: text}, command)
  end

  def wrapped(reason, command) do
    %Snakepit.Error{
      category: :worker,
      message: "Request failed",
      details: %{reason: reason, command: command, pool: Snakepit.Pool}
    }
  end
end
