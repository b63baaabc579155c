defmodule SnakepitWorker.Failure do
  @moduledoc """
  What went wrong in the worker, as data.

  | field | content |
  | --- | --- |
  | `type` | name of the Python exception: `"ValueError"` |
  | `message` | what went wrong, for a person |
  | `code` | name of a gRPC status: `"INVALID_ARGUMENT"`, `"NOT_FOUND"`, `"UNAVAILABLE"` … |
  | `category` | kind of failure: `"validation"`, `"provider"`, `"timeout"` … |
  | `retryable` | whether the same call may succeed later |
  | `retry_after_ms` | how long to wait before that, where known |
  | `violations` | arguments that are wrong, each with its `:field` and a `:description` |
  | `details` | facts for programs, with text keys |
  | `help` | what to do about it, where known |
  | `cause` | what led to it, nearest first, each with its `:type` and `:message` |
  | `exceptions` | those of a group of exceptions, each with its `:type` and `:message` |
  | `error_id` | the worker's log line about this failure has the same |
  | `correlation_id` | joins the log lines of both sides |
  | `tool`, `session_id` | the call that failed; the session is that of the request |
  | `traceback` | Python's, where it was sent |

  It is an exception too, so it can be raised.

  An exception of Python code that the worker knows nothing about has code `"INTERNAL"` and is not
  retryable. Snakepit's own program does not say more than `type`, `message` and `traceback`; its
  exceptions have the code `"UNKNOWN"` here.
  """

  defexception type: "Exception",
               message: "",
               code: "UNKNOWN",
               category: "internal",
               retryable: false,
               retry_after_ms: nil,
               violations: [],
               details: %{},
               help: nil,
               cause: [],
               exceptions: [],
               error_id: nil,
               correlation_id: nil,
               tool: nil,
               session_id: nil,
               traceback: nil

  @type t :: %__MODULE__{
          type: String.t(),
          message: String.t(),
          code: String.t(),
          category: String.t(),
          retryable: boolean(),
          retry_after_ms: non_neg_integer() | nil,
          violations: [%{field: String.t(), description: String.t()}],
          details: %{optional(String.t()) => term()},
          help: String.t() | nil,
          cause: [%{type: String.t(), message: String.t()}],
          exceptions: [%{type: String.t(), message: String.t()}],
          error_id: String.t() | nil,
          correlation_id: String.t() | nil,
          tool: String.t() | nil,
          session_id: String.t() | nil,
          traceback: String.t() | nil
        }

  @impl true
  def message(%__MODULE__{} = failure), do: "#{failure.code} #{failure.type}: #{failure.message}"

  @doc """
  The failure in an error of Snakepit, or `:error` where it holds none.

  Takes what `Snakepit.execute/3` and `Snakepit.execute_stream/4` return as error, and the reason
  inside of it as well.
  """
  @spec decode(term()) :: {:ok, t()} | :error
  def decode(%Snakepit.Error{details: %{reason: reason}}), do: decode(reason)

  # One of Snakepit's twelve exception structs. They have the same fields, and keep nothing of the
  # worker's object but these; so the worker says everything once more in the context.
  def decode(%{python_type: type, message: message, context: context} = exception)
      when is_binary(type) and is_binary(message) do
    context = map(context)
    {:ok, build(type, message, context, map(context["error"]), exception.python_traceback)}
  end

  # A stream ends with a gRPC status, whose message is the worker's object. The struct is known by
  # its name, because the library that defines it is Snakepit's dependency, not ours.
  def decode(%{__struct__: GRPC.RPCError, message: text}) when is_binary(text) do
    case JSON.decode(text) do
      {:ok, %{"type" => type, "message" => message} = object}
      when is_binary(type) and is_binary(message) ->
        traceback = object |> list("stacktrace") |> Enum.join()
        traceback = if traceback != "", do: traceback
        {:ok, build(type, message, map(object["context"]), object, traceback)}

      _other ->
        :error
    end
  end

  def decode(_other), do: :error

  defp build(type, message, context, facts, traceback) do
    %__MODULE__{
      type: type,
      message: message,
      code: facts["code"] || "UNKNOWN",
      category: facts["category"] || "internal",
      retryable: facts["retryable"] == true,
      retry_after_ms: facts["retry_after_ms"],
      violations:
        for %{"field" => field, "description" => description} <- list(facts, "violations") do
          %{field: field, description: description}
        end,
      details: map(facts["details"]),
      help: facts["help"],
      cause: exceptions(facts, "cause"),
      exceptions: exceptions(facts, "exceptions"),
      error_id: facts["error_id"],
      correlation_id: facts["correlation_id"],
      tool: context["tool_name"],
      session_id: context["session_id"],
      traceback: traceback
    }
  end

  defp exceptions(facts, key) do
    for %{"type" => type, "message" => message} <- list(facts, key) do
      %{type: type, message: message}
    end
  end

  defp map(value), do: if(is_map(value), do: value, else: %{})

  defp list(facts, key) do
    case facts do
      %{^key => value} when is_list(value) -> value
      _other -> []
    end
  end
end
